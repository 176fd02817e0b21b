//! How far a long command is: a line on stderr each second, where people read that. A pipe or a file gets
//! nothing, because scripts read what commands print.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

/// How often a line is written, and after which time the first one.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// What a command tells of itself while it runs.
#[derive(Debug)]
pub(crate) struct Progress {
    of: &'static str,
    is_read: bool,
    told: Instant,
}

impl Progress {
    /// `of` names one of what is counted, such as "segment".
    pub(crate) fn of(of: &'static str) -> Self {
        Self {
            of,
            is_read: stderr().is_terminal(),
            told: Instant::now(),
        }
    }

    /// So much is done, of so much; of an unknown amount with 0.
    pub(crate) fn tell(&mut self, done: u64, all: u64) {
        if let Some(line) = self.line(Instant::now(), done, all) {
            eprintln!("{line}");
        }
    }

    fn line(&mut self, now: Instant, done: u64, all: u64) -> Option<String> {
        if !self.is_read || now < self.told + TELL_EVERY {
            return None;
        }
        self.told = now;
        Some(match all {
            0 => format!("{} {done}", self.of),
            _ => format!("{} {done} of {all}", self.of),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_line_each_second_and_a_pipe_none() {
        let told = |is_read| {
            let start = Instant::now();
            let mut progress = Progress {
                of: "segment",
                is_read,
                told: start,
            };
            let looks = (0..250).map(|look| (start + Duration::from_millis(10) * look, look));
            let lines: Vec<String> = looks
                .filter_map(|(now, look)| progress.line(now, look.into(), 250))
                .collect();
            lines
        };
        assert_eq!(told(true), ["segment 100 of 250", "segment 200 of 250"]);
        assert_eq!(told(false), [""; 0]);
    }
}
