//! One row of the history: what happened in some seconds, and how things stood after them.

use crate::cache::Stats;
use crate::serve::metrics::{Answered, Counts, Metrics};

/// The columns of a row. Further ones go to the end of a group; the page reads them by name.
pub(super) const COLUMNS: [&str; 21] = [
    // Events within the row's time.
    "hits_memory",
    "hits_disk",
    "hits_edge",
    "hits_component",
    "stale",
    "misses",
    "misses_edge",
    "collapsed",
    "partial",
    "bypasses",
    "errors",
    "saved_tokens",
    "saved_money_millionths",
    "evictions",
    // How things stood at its end.
    "entries",
    "disk_bytes",
    "inflight_bytes",
    // Durations within it, in microseconds; [`NONE`] without any.
    "hit_p50_us",
    "hit_p99_us",
    "miss_p50_us",
    "miss_p99_us",
];

/// The columns that count events.
const EVENTS: usize = 14;

/// The columns that say how things stand.
const LEVELS: usize = 3;

/// No value.
pub(super) const NONE: u64 = u64::MAX;

/// A row, in the order of [`COLUMNS`].
pub(super) type Row = [u64; COLUMNS.len()];

/// Everything counted since the start, and how things stand.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    pub(super) events: [u64; EVENTS],
    levels: [u64; LEVELS],
    pub(super) hits: Counts,
    pub(super) misses: Counts,
}

/// Hits, for their durations.
pub(super) const HITS: [Answered; 5] = [
    Answered::HitMemory,
    Answered::HitDisk,
    Answered::HitFleet,
    Answered::HitEdge,
    Answered::HitComponent,
];

/// Answers that waited for the provider, for their durations.
const MISSES: [Answered; 3] = [Answered::Miss, Answered::Collapsed, Answered::Partial];

impl Totals {
    pub(super) fn of(metrics: &Metrics, stats: &Stats) -> Self {
        let count = |answered| metrics.took(answered).count();
        let millionths = metrics.saved_money().unwrap_or(0.0) * 1e6;
        let sum = |of: &[Answered]| {
            let mut sum = Counts::default();
            for answered in of {
                sum.add(&metrics.took(*answered));
            }
            sum
        };
        Self {
            events: [
                count(Answered::HitMemory),
                // Neither was in memory.
                count(Answered::HitDisk) + count(Answered::HitFleet),
                count(Answered::HitEdge),
                count(Answered::HitComponent),
                count(Answered::Stale),
                count(Answered::Miss),
                count(Answered::MissEdge),
                count(Answered::Collapsed),
                count(Answered::Partial),
                count(Answered::Bypass),
                count(Answered::Error),
                metrics.saved_tokens(),
                // Prices are not below zero; a sum over the bound stays there.
                millionths.round() as u64,
                stats.evictions,
            ],
            levels: [stats.entries, stats.disk_bytes, metrics.inflight_bytes().0],
            hits: sum(&HITS),
            misses: sum(&MISSES),
        }
    }

    /// What happened since the earlier totals.
    pub(super) fn since(&self, earlier: &Self) -> Row {
        let mut row = [NONE; COLUMNS.len()];
        let events = self.events.iter().zip(earlier.events);
        for (cell, (now, before)) in row.iter_mut().zip(events) {
            *cell = now.saturating_sub(before);
        }
        let levels = row.iter_mut().skip(EVENTS);
        levels.zip(self.levels).for_each(|(cell, now)| *cell = now);
        let micros = |seconds: f64| (seconds * 1e6).round() as u64;
        let (hits, misses) = (
            self.hits.since(&earlier.hits),
            self.misses.since(&earlier.misses),
        );
        let quantiles = [(&hits, 0.5), (&hits, 0.99), (&misses, 0.5), (&misses, 0.99)];
        let cells = row.iter_mut().skip(EVENTS + LEVELS);
        for (cell, (counts, share)) in cells.zip(quantiles) {
            *cell = counts.quantile(share).map_or(NONE, micros);
        }
        row
    }
}

const _: () = assert!(EVENTS + LEVELS + 4 == COLUMNS.len());
