//! How long answers took, by outcome and tier. All series exist from the start, so that an
//! observation finds its histogram by a number.

use super::labels::DurationLabels;
use super::times::{Counts, Times};
use crate::cache::Tier;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

/// From 10 µs, which a hit in this process takes, to 10 min, after which most clients have left. One
/// set of bounds for all series, so that they can be added up.
pub(crate) const BOUNDS: [f64; 22] = [
    1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 600.0,
];

/// How a request was answered, and from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// A hit whose bytes were in memory, the system's page cache included.
    HitMemory,
    /// A hit that was read from the disk first.
    HitDisk,
    /// A hit that another daemon of the fleet had shared.
    HitFleet,
    /// A hit that a component looked up by itself.
    HitComponent,
    /// A hit of an edge.
    HitEdge,
    /// A miss of an edge, which then asks the provider itself.
    MissEdge,
    /// An expired answer, because the provider failed.
    Stale,
    /// An answer of the provider.
    Miss,
    /// The answer to another request that was asking the provider already.
    Collapsed,
    /// A batch of embeddings of which the provider was asked a part.
    Partial,
    /// A request that passed by.
    Bypass,
    /// No answer of the provider.
    Error,
}

impl Answered {
    /// Each of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 12] = [
        Self::HitMemory,
        Self::HitDisk,
        Self::HitFleet,
        Self::HitComponent,
        Self::HitEdge,
        Self::MissEdge,
        Self::Stale,
        Self::Miss,
        Self::Collapsed,
        Self::Partial,
        Self::Bypass,
        Self::Error,
    ];

    /// A hit. Without a tier, a component has looked it up.
    pub(crate) fn hit(tier: Option<Tier>) -> Self {
        match tier {
            Some(Tier::Memory) => Self::HitMemory,
            Some(Tier::Disk) => Self::HitDisk,
            Some(Tier::Fleet) => Self::HitFleet,
            None => Self::HitComponent,
        }
    }

    fn labels(self) -> DurationLabels {
        let (outcome, tier) = match self {
            Self::HitMemory => ("hit", "memory"),
            Self::HitDisk => ("hit", "disk"),
            Self::HitFleet => ("hit", "fleet"),
            Self::HitComponent => ("hit", "component"),
            Self::HitEdge => ("hit", "edge"),
            Self::MissEdge => ("miss", "edge"),
            Self::Stale => ("stale", "provider"),
            Self::Miss => ("miss", "provider"),
            Self::Collapsed => ("collapsed", "provider"),
            Self::Partial => ("partial", "provider"),
            Self::Bypass => ("bypass", "provider"),
            Self::Error => ("error", "provider"),
        };
        DurationLabels { outcome, tier }
    }
}

/// One histogram for each [`Answered`].
pub(super) struct Durations([Times; Answered::ALL.len()]);

impl Durations {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new: fn() -> Times = || Times::new(&BOUNDS);
        let family = Family::<DurationLabels, Times, _>::new_with_constructor(new);
        registry.register_with_unit(
            "request_duration",
            "Time until the response's head, by how and from where a request was answered",
            Unit::Seconds,
            family.clone(),
        );
        Self(Answered::ALL.map(|answered| family.get_or_create_owned(&answered.labels())))
    }

    pub(super) fn observe(&self, answered: Answered, took: Duration) {
        self.0[answered as usize].observe(took);
    }

    pub(super) fn counts(&self, answered: Answered) -> Counts {
        self.0[answered as usize].counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_series_of_its_own() {
        let durations = Durations::new(&mut Registry::default());
        for (number, answered) in Answered::ALL.into_iter().enumerate() {
            assert_eq!(answered as usize, number);
            durations.observe(answered, Duration::from_millis(1));
            assert_eq!(durations.counts(answered).count(), 1, "{answered:?}");
        }
        let mut labels = Answered::ALL.map(|answered| format!("{:?}", answered.labels()));
        labels.sort();
        assert!(labels.windows(2).all(|two| two[0] != two[1]));
        assert!(BOUNDS.is_sorted());
    }
}
