//! The cache's own counts, which are read for each report.

use crate::cache::Stats;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::Ordering::Relaxed;

#[derive(Default)]
pub(super) struct CacheCounts {
    entries: Gauge,
    payload_bytes: Gauge,
    disk_bytes: Gauge,
    disk_quota_bytes: Gauge,
    pinned_bytes: Gauge,
    dead_bytes: Gauge,
    queued_bytes: Gauge,
    segments: Gauge,
    segments_of_old_keys: Gauge,
    healthy: Gauge,
    segments_reclaimed: Counter,
    moved_bytes: Counter,
    inserts: Counter,
    inserts_in_memory: Counter,
    inserts_refused: Counter,
    lookups_given_up: Counter,
    evictions: Counter,
    evictions_over_limit: Counter,
    errors: Counter,
    corrupt: Counter,
}

impl CacheCounts {
    /// `disk_bytes_max` is the operator's bound of the store's files.
    pub(super) fn new(disk_bytes_max: u64, registry: &mut Registry) -> Self {
        let it = Self::default();
        set(&it.disk_quota_bytes, disk_bytes_max);
        for (name, help, gauge) in [
            ("entries", "Entries in the cache", &it.entries),
            ("segments", "Files of the store", &it.segments),
            (
                "segments_of_old_keys",
                "Files of the store that are not encrypted with the first key",
                &it.segments_of_old_keys,
            ),
            (
                "store_healthy",
                "1 while entries reach the disk",
                &it.healthy,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        for (name, help, gauge) in [
            (
                "payload",
                "Bytes of the entries' payloads",
                &it.payload_bytes,
            ),
            ("disk", "Bytes of the store's files", &it.disk_bytes),
            (
                "disk_quota",
                "The most bytes that the store's files may take",
                &it.disk_quota_bytes,
            ),
            (
                "pinned",
                "Bytes of the store's files that are removed but still read",
                &it.pinned_bytes,
            ),
            (
                "dead",
                "Bytes of the store's files that no lookup finds any more",
                &it.dead_bytes,
            ),
            (
                "queued",
                "Bytes of memory taken by what waits to be written",
                &it.queued_bytes,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
        registry.register_with_unit(
            "moved",
            "Bytes of entries that were written again to make room",
            Unit::Bytes,
            it.moved_bytes.clone(),
        );
        for (name, help, counter) in [
            (
                "segments_reclaimed",
                "Files of the store removed to make room",
                &it.segments_reclaimed,
            ),
            ("inserts", "Entries inserted", &it.inserts),
            (
                "inserts_in_memory",
                "Entries that went to memory as the disk was in trouble",
                &it.inserts_in_memory,
            ),
            (
                "inserts_refused",
                "Entries not stored as the disk did not keep up",
                &it.inserts_refused,
            ),
            (
                "lookups_given_up",
                "Lookups that were misses as the disk was too slow to read",
                &it.lookups_given_up,
            ),
            ("evictions", "Entries evicted", &it.evictions),
            (
                "evictions_over_limit",
                "Entries evicted as their tenant had stored more than it may",
                &it.evictions_over_limit,
            ),
            (
                "store_errors",
                "Failed operations on the store's files",
                &it.errors,
            ),
            ("store_corrupt", "Entries found damaged", &it.corrupt),
        ] {
            registry.register(name, help, counter.clone());
        }
        it
    }

    pub(super) fn set(&self, stats: &Stats) {
        set(&self.entries, stats.entries);
        set(&self.payload_bytes, stats.payload_bytes);
        set(&self.disk_bytes, stats.disk_bytes);
        set(&self.pinned_bytes, stats.pinned_bytes);
        set(&self.dead_bytes, stats.dead_bytes);
        set(&self.queued_bytes, stats.queued_bytes);
        set(&self.segments, stats.segments);
        set(&self.segments_of_old_keys, stats.segments_of_old_keys);
        set(&self.healthy, u64::from(stats.healthy));
        raise(&self.segments_reclaimed, stats.segments_reclaimed);
        raise(&self.moved_bytes, stats.moved_bytes);
        raise(&self.inserts, stats.inserts);
        raise(&self.inserts_in_memory, stats.inserts_in_memory);
        raise(&self.inserts_refused, stats.inserts_refused);
        raise(&self.lookups_given_up, stats.lookups_given_up);
        raise(&self.evictions, stats.evictions);
        raise(&self.evictions_over_limit, stats.evictions_over_bounds);
        raise(&self.errors, stats.store_errors);
        raise(&self.corrupt, stats.corrupt);
    }
}

pub(super) fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Takes over a count that is kept elsewhere. Never lowers it: of two reports at the same time, the
/// later one may have read the earlier count.
pub(super) fn raise(counter: &Counter, count: u64) {
    counter.inner().fetch_max(count, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_never_goes_back() {
        let counter = Counter::default();
        for (told, expected) in [(3, 3), (2, 3), (4, 4)] {
            raise(&counter, told);
            assert_eq!(counter.get(), expected);
        }
    }
}
