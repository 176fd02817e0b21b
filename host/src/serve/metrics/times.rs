//! How long things took, in buckets. The library's histogram takes a lock for each time, on the way of
//! each hit.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A histogram of durations. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Times(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    /// Upper bounds in seconds, in order.
    bounds: &'static [f64],
    /// How many times were within each bound and not within the one before; the last were over all of
    /// them.
    counts: Vec<AtomicU64>,
    /// All times together: half a millennium of them.
    nanoseconds: AtomicU64,
}

impl Times {
    /// None yet, for buckets with these upper bounds, in seconds and in order.
    pub(super) fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self(Arc::new(Buckets {
            bounds,
            counts,
            nanoseconds: AtomicU64::new(0),
        }))
    }

    pub(super) fn observe(&self, took: Duration) {
        let Buckets {
            bounds,
            counts,
            nanoseconds,
        } = &*self.0;
        let seconds = took.as_secs_f64();
        let bucket = bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        nanoseconds.fetch_add(took, Relaxed);
    }
}

impl EncodeMetric for Times {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let bounds = self.0.bounds.iter().chain([&f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.copied().zip(counts).collect();
        let seconds = self.0.nanoseconds.load(Relaxed) as f64 / 1e9;
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::histogram::Histogram;
    use prometheus_client::registry::Registry;

    const BOUNDS: [f64; 3] = [1e-3, 0.25, 1.0];

    #[test]
    fn it_prints_what_the_librarys_histogram_prints() {
        let (ours, theirs) = (Times::new(&BOUNDS), Histogram::new(BOUNDS));
        // Fractions of two, so that sums are exact.
        for milliseconds in [0, 125, 250, 375, 1000, 5000] {
            let took = Duration::from_millis(milliseconds);
            ours.observe(took);
            theirs.observe(took.as_secs_f64());
        }
        let print = |registry: &Registry| {
            let mut text = String::new();
            encode(&mut text, registry).expect("a string takes it");
            text
        };
        let (mut one, mut other) = (Registry::default(), Registry::default());
        one.register("times", "How long", ours);
        other.register("times", "How long", theirs);
        assert_eq!(print(&one), print(&other));
        assert!(print(&one).contains("times_bucket{le=\"0.25\"} 3"));
    }
}
