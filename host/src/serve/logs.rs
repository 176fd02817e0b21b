//! The daemon's log: lines of text or of JSON on standard error.
//!
//! A line of the access log never waits for its reader: it goes through a bounded queue, and is
//! dropped when the queue is full. All other lines are written where they are made, so that the
//! last one before a crash is there.

use super::config::LogFormat;
use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The `target` of the access log's lines.
pub(crate) const ACCESS: &str = "access";

/// Lines that wait to be written. A line has a kilobyte at most: 4 MiB.
const LINES_MAX: usize = 4096;
/// The longest that the end of the process waits for the lines that are left.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The log is written while this is there; dropping it writes the lines that wait.
#[derive(Debug)]
#[must_use]
pub struct Logs(SyncSender<Item>);

/// Begins to log. `RUST_LOG` chooses the lines; by default, `info` and above.
pub fn begin(format: LogFormat) -> Logs {
    let (lines, waiting) = sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let writer = Writer {
        lines: lines.clone(),
        dropped: Arc::clone(&dropped),
    };
    // Without the thread, the lines are dropped and counted.
    let _ = std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || write(&waiting, &dropped));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Logs(lines)
}

impl Drop for Logs {
    fn drop(&mut self) {
        let (done, is_done) = sync_channel(1);
        if self.0.try_send(Item::Flush(done)).is_ok() {
            // A reader that takes nothing must not keep the process.
            let _ = is_done.recv_timeout(FLUSH_MAX);
        }
    }
}

#[derive(Debug)]
enum Item {
    Line(Vec<u8>),
    /// Everything before this is written.
    Flush(SyncSender<()>),
}

fn write(waiting: &Receiver<Item>, dropped: &AtomicU64) {
    for item in waiting {
        match item {
            // There is no place to report to that the log cannot be written.
            Item::Line(line) => {
                let _ = io::stderr().lock().write_all(&line);
            }
            Item::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        let lines = dropped.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(
                lines,
                "lines of the access log were dropped: its reader is slow"
            );
        }
    }
}

/// Gives each line its way.
struct Writer {
    lines: SyncSender<Item>,
    /// Lines that found the queue full, and were not yet reported.
    dropped: Arc<AtomicU64>,
}

/// The way of one line.
enum Way<'w> {
    Direct,
    Queued(&'w Writer),
}

impl<'w> MakeWriter<'w> for Writer {
    type Writer = Way<'w>;

    fn make_writer(&'w self) -> Way<'w> {
        Way::Direct
    }

    fn make_writer_for(&'w self, line: &Metadata<'_>) -> Way<'w> {
        match line.target() == ACCESS {
            true => Way::Queued(self),
            false => Way::Direct,
        }
    }
}

impl Write for Way<'_> {
    /// The subscriber writes a line in one piece.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Direct => io::stderr().lock().write_all(line)?,
            Self::Queued(writer) => {
                if writer.lines.try_send(Item::Line(line.to_vec())).is_err() {
                    writer.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_and_no_time() {
        let (lines, waiting) = sync_channel(2);
        let writer = Writer {
            lines,
            dropped: Arc::default(),
        };
        for _ in 0..5 {
            let written = Way::Queued(&writer).write(b"line\n").expect("no error");
            assert_eq!(written, 5);
        }
        assert_eq!(writer.dropped.load(Ordering::Relaxed), 3);
        assert_eq!(waiting.try_iter().count(), 2);
    }
}
