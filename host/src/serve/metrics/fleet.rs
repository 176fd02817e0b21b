//! What the fleet has counted, for reports.

use super::cache_counts::{raise, set};
use super::labels::OutcomeLabel;
use crate::fleet::{Fleet, Looked, Shared};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// `reflex_fleet_*`.
#[derive(Debug, Default)]
pub(super) struct FleetCounts {
    /// And since when.
    fleet: OnceLock<(Arc<Fleet>, Instant)>,
    lookups: Family<OutcomeLabel, Counter>,
    shared: Family<OutcomeLabel, Counter>,
    late_fills: Counter,
    followed: Counter,
    edges: Gauge,
    open: Gauge,
    connected: Gauge,
    unheard: Gauge<f64, AtomicU64>,
}

impl FleetCounts {
    /// All series are there from the start.
    pub(super) fn register(&self, registry: &mut Registry) {
        let outcomes = [
            (&self.lookups, &Looked::ALL.map(|(_, name)| name)[..]),
            (&self.shared, &Shared::ALL.map(|(_, name)| name)[..]),
        ];
        for (family, names) in outcomes {
            for &outcome in names {
                drop(family.get_or_create(&OutcomeLabel { outcome }));
            }
        }
        registry.register(
            "fleet_lookups",
            "Lookups in the fleet by how they ended",
            self.lookups.clone(),
        );
        registry.register(
            "fleet_shared",
            "Answers for the fleet by what became of them",
            self.shared.clone(),
        );
        registry.register(
            "fleet_late_fills",
            "Answers of the fleet that came too late for their request, and are kept for the next",
            self.late_fills.clone(),
        );
        registry.register(
            "fleet_followed",
            "Purges and removals of other daemons that hold here",
            self.followed.clone(),
        );
        registry.register(
            "fleet_edges",
            "Daemons that take part, this one included",
            self.edges.clone(),
        );
        registry.register(
            "fleet_open",
            "1 while lookups go on without the fleet, because its engine does not answer in time",
            self.open.clone(),
        );
        registry.register(
            "fleet_connected",
            "1 while there is a connection to the fleet's engine",
            self.connected.clone(),
        );
        registry.register_with_unit(
            "fleet_unheard",
            "Time since the last news of the fleet's purges",
            Unit::Seconds,
            self.unheard.clone(),
        );
    }

    /// The daemon takes part in this one.
    pub(super) fn begin(&self, fleet: &Arc<Fleet>) {
        // There is one for each process.
        let _ = self.fleet.set((Arc::clone(fleet), Instant::now()));
    }

    /// None if the daemon takes part in no fleet.
    pub(super) fn fleet(&self) -> Option<&Arc<Fleet>> {
        self.fleet.get().map(|(fleet, _)| fleet)
    }

    /// Brings all up to date.
    pub(super) fn report(&self) {
        let Some((fleet, since)) = self.fleet.get() else {
            return;
        };
        let counts = fleet.counts();
        for (family, outcomes) in [
            (&self.lookups, &counts.lookups),
            (&self.shared, &counts.shared),
        ] {
            for (outcome, count) in outcomes {
                raise(&family.get_or_create(&OutcomeLabel { outcome }), *count);
            }
        }
        raise(&self.late_fills, counts.late_fills);
        raise(&self.followed, counts.followed);
        set(&self.edges, counts.edges);
        set(&self.open, counts.is_open.into());
        set(&self.connected, counts.is_connected.into());
        let unheard = counts.unheard.unwrap_or_else(|| since.elapsed());
        self.unheard.set(unheard.as_secs_f64());
    }
}
