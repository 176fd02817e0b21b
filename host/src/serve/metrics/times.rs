//! How long things took, in buckets. The library's histogram takes a lock for each time, on the way of
//! each hit.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};
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

    /// The times so far.
    pub(super) fn counts(&self) -> Counts {
        let counts = self.0.counts.iter().map(|count| count.load(Relaxed));
        Counts {
            bounds: self.0.bounds,
            counts: counts.collect(),
        }
    }
}

impl TypedMetric for Times {
    const TYPE: MetricType = MetricType::Histogram;
}

/// How many times were in each bucket, up to some moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Upper bounds in seconds; the last bucket has none.
    bounds: &'static [f64],
    counts: Vec<u64>,
}

impl Counts {
    /// All times.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds times of the same buckets.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// Those that were not among the earlier ones.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        for (count, before) in since.counts.iter_mut().zip(&earlier.counts) {
            *count = count.saturating_sub(*before);
        }
        since
    }

    /// The time in seconds that this share of all times did not exceed, 0 to 1, as far as buckets
    /// tell; none without times. Within a bucket, times count as spread evenly.
    pub(crate) fn quantile(&self, share: f64) -> Option<f64> {
        let all = self.count();
        if all == 0 {
            return None;
        }
        let rank = share * all as f64;
        let (mut below, mut lower) = (0, 0.0);
        for (count, bound) in self.counts.iter().zip(self.bounds) {
            let within = below + count;
            if *count > 0 && within as f64 >= rank {
                let part = (rank - below as f64) / *count as f64;
                return Some(lower + (bound - lower) * part.clamp(0.0, 1.0));
            }
            (below, lower) = (within, *bound);
        }
        self.bounds.last().copied()
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
    fn quantiles_are_within_the_bucket_of_their_time() {
        let times = Times::new(&BOUNDS);
        assert_eq!(times.counts().quantile(0.5), None);
        for milliseconds in [100, 100, 100, 500] {
            times.observe(Duration::from_millis(milliseconds));
        }
        let check = |counts: &Counts, share, least: f64, most: f64| {
            let seconds = counts.quantile(share).expect("there are times");
            assert!(least <= seconds && seconds <= most, "{share}: {seconds}");
        };
        let before = times.counts();
        check(&before, 0.5, 1e-3, 0.25);
        check(&before, 0.99, 0.25, 1.0);
        // Over all bounds: the largest that is known.
        times.observe(Duration::from_secs(5));
        let since = times.counts().since(&before);
        assert_eq!(since.count(), 1);
        check(&since, 0.5, 1.0, 1.0);
        let mut both = before.clone();
        both.add(&since);
        assert_eq!(both, times.counts());
    }

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
