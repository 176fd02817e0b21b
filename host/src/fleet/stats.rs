//! What the fleet counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// How a lookup ended, in the words of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The entry is here now.
    Hit,
    /// The fleet has none.
    Miss,
    /// What was there is of no use: damaged, forged, of another key.
    Refused,
    /// No answer in time.
    Late,
    /// An error, or no connection.
    Failed,
    /// As many lookups as may be were under way.
    Busy,
    /// The breaker is open.
    Open,
    /// No news of purges yet, or a purge is under way.
    Unready,
}

/// How sharing an entry ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shared {
    /// It was written.
    Stored,
    /// It was written in place of an older one.
    Replaced,
    /// The fleet has one already, or the entry was removed lately.
    There,
    /// The queue was full, the breaker open, or there was no news of purges yet.
    Dropped,
    /// Longer than what is shared.
    TooLong,
    /// An error, or no connection.
    Failed,
}

impl Looked {
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::Hit, "hit"),
        (Self::Miss, "miss"),
        (Self::Refused, "refused"),
        (Self::Late, "late"),
        (Self::Failed, "failed"),
        (Self::Busy, "busy"),
        (Self::Open, "open"),
        (Self::Unready, "unready"),
    ];
}

impl Shared {
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Stored, "stored"),
        (Self::Replaced, "replaced"),
        (Self::There, "there"),
        (Self::Dropped, "dropped"),
        (Self::TooLong, "too-long"),
        (Self::Failed, "failed"),
    ];
}

#[derive(Debug, Default)]
pub(super) struct Stats {
    looked: [AtomicU64; Looked::ALL.len()],
    shared: [AtomicU64; Shared::ALL.len()],
    late_fills: AtomicU64,
    followed: AtomicU64,
    edges: AtomicU64,
}

/// As of one moment.
#[derive(Clone, Debug)]
pub(crate) struct Counts {
    /// By how they ended.
    pub(crate) lookups: Vec<(&'static str, u64)>,
    /// By how they ended.
    pub(crate) shared: Vec<(&'static str, u64)>,
    /// Answers that came too late for their lookup, and are here now.
    pub(crate) late_fills: u64,
    /// Purges and removals of other edges that hold here.
    pub(crate) followed: u64,
    /// Edges that live, this one included.
    pub(crate) edges: u64,
    pub(crate) is_open: bool,
    pub(crate) is_connected: bool,
    /// Since the last news; none before the first.
    pub(crate) unheard: Option<Duration>,
}

impl Stats {
    pub(super) fn looked(&self, outcome: Looked) {
        self.looked[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn shared(&self, outcome: Shared) {
        self.shared[outcome as usize].fetch_add(1, Relaxed);
    }

    pub(super) fn late_fill(&self) {
        self.late_fills.fetch_add(1, Relaxed);
    }

    pub(super) fn followed(&self, purges: u64) {
        self.followed.fetch_add(purges, Relaxed);
    }

    pub(super) fn edges(&self, count: u64) {
        self.edges.store(count, Relaxed);
    }

    pub(super) fn counts(
        &self,
        is_open: bool,
        is_connected: bool,
        unheard: Option<Duration>,
    ) -> Counts {
        let lookups = Looked::ALL.iter().zip(&self.looked);
        let shared = Shared::ALL.iter().zip(&self.shared);
        Counts {
            lookups: lookups
                .map(|((_, name), count)| (*name, count.load(Relaxed)))
                .collect(),
            shared: shared
                .map(|((_, name), count)| (*name, count.load(Relaxed)))
                .collect(),
            late_fills: self.late_fills.load(Relaxed),
            followed: self.followed.load(Relaxed),
            edges: self.edges.load(Relaxed),
            is_open,
            is_connected,
            unheard,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_under_its_own_name() {
        let stats = Stats::default();
        for (number, (outcome, _)) in Looked::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
            (0..=number).for_each(|_| stats.looked(outcome));
        }
        for (number, (outcome, _)) in Shared::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, number);
            stats.shared(outcome);
        }
        let counts = stats.counts(false, true, None);
        for (number, (name, count)) in counts.lookups.into_iter().enumerate() {
            assert_eq!((name, count), (Looked::ALL[number].1, number as u64 + 1));
        }
        assert!(counts.shared.iter().all(|(_, count)| *count == 1));
    }
}
