//! How long the writer makes room: the durations of the spans `make_room`, as any subscriber of
//! `tracing` sees them, and the CPU time of its thread meanwhile.

use rustix::time::{ClockId, clock_gettime};
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

const SPAN: &str = "make_room";

static PAUSES: Mutex<Vec<Pause>> = Mutex::new(Vec::new());

thread_local! {
    static SINCE: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pause {
    pub(crate) time: Duration,
    pub(crate) cpu: Duration,
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

struct Pauses;

/// Listens from now on.
pub(crate) fn install() {
    // Fails only if a subscriber is set already.
    let _ = tracing::subscriber::set_global_default(Pauses);
}

/// The pauses since the last call.
pub(crate) fn take() -> Vec<Pause> {
    std::mem::take(&mut PAUSES.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Subscriber for Pauses {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == SPAN
    }

    /// All are the same: none is within another.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {
        SINCE.set(Some((Instant::now(), cpu())));
    }

    fn exit(&self, _: &Id) {
        if let Some((since, cpu_then)) = SINCE.take() {
            let mut pauses = PAUSES.lock().unwrap_or_else(PoisonError::into_inner);
            pauses.push(Pause {
                time: since.elapsed(),
                cpu: cpu() - cpu_then,
            });
        }
    }
}
