//! What the module counts, and the metrics of Envoy's that it becomes. Counting is adding to a number
//! in memory: Envoy's own way takes longer than a lookup. The numbers go to Envoy on its main thread,
//! a moment later.

use crate::abi::{EnvoyConfig, Metric};
use crate::clock;
use crate::panics::take_panics;
use reflex_llm::{Bypass, Directive, Dropped, Rejected, Status, is_event_stream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter with labels.
#[derive(Debug)]
struct Family {
    /// The values of the labels; without a label, none once.
    values: Vec<Vec<&'static str>>,
    counts: Vec<AtomicU64>,
    metric: Option<Metric>,
}

impl Family {
    fn of(
        envoy: &mut EnvoyConfig<'_>,
        name: &str,
        labels: &[&str],
        values: Vec<Vec<&'static str>>,
    ) -> Self {
        Self {
            counts: values.iter().map(|_| AtomicU64::new(0)).collect(),
            values,
            metric: envoy.define_counter(name, labels),
        }
    }

    fn add(&self, values: &[&str]) {
        let at = self.values.iter().position(|it| *it == values);
        if let Some(count) = at.and_then(|at| self.counts.get(at)) {
            count.fetch_add(1, Relaxed);
        }
        clock::note_counts();
    }

    fn hand_over(&self, envoy: &mut EnvoyConfig<'_>) {
        // The module works without a metric that Envoy refuses.
        let Some(metric) = self.metric else { return };
        for (values, count) in self.values.iter().zip(&self.counts) {
            let more = count.swap(0, Relaxed);
            if more > 0 {
                envoy.add(metric, values, more);
            }
        }
    }
}

/// The numbers of one configuration.
#[derive(Debug)]
pub(crate) struct Counts {
    hits: Family,
    misses: Family,
    collapsed: Family,
    inserts: Family,
    bypasses: Family,
    not_kept: Family,
    controls: Family,
    panics: Option<Metric>,
}

impl Counts {
    /// Defines the metrics.
    pub(crate) fn new(envoy: &mut EnvoyConfig<'_>) -> Self {
        let alone = || vec![vec![]];
        let why = Bypass::ALL.iter().map(|why| vec![why.detail()]);
        let rejected = Rejected::ALL.iter().map(|why| vec![why.detail()]);
        let dropped = Dropped::ALL.iter().map(|why| vec![why.detail()]);
        let not_kept = rejected.chain(dropped).collect();
        let controls = [Directive::NoCache, Directive::NoStore].map(Directive::name);
        let controls = controls
            .iter()
            .flat_map(|directive| ["false", "true"].map(|stream| vec![*directive, stream]));
        let tiers = vec![vec!["memory"], vec!["disk"]];
        Self {
            hits: Family::of(envoy, "reflex_hits", &["tier"], tiers),
            misses: Family::of(envoy, "reflex_misses", &[], alone()),
            collapsed: Family::of(envoy, "reflex_collapsed", &[], alone()),
            inserts: Family::of(envoy, "reflex_inserts", &[], alone()),
            bypasses: Family::of(envoy, "reflex_bypasses_total", &["reason"], why.collect()),
            not_kept: Family::of(envoy, "reflex_not_kept_total", &["reason"], not_kept),
            controls: Family::of(
                envoy,
                "reflex_client_control_total",
                &["directive", "stream"],
                controls.collect(),
            ),
            panics: envoy.define_counter("reflex_panics_total", &["hook"]),
        }
    }

    /// Hands all numbers over to Envoy, which begin anew.
    pub(crate) fn hand_over(&self, envoy: &mut EnvoyConfig<'_>) {
        for family in [
            &self.hits,
            &self.misses,
            &self.collapsed,
            &self.inserts,
            &self.bypasses,
            &self.not_kept,
            &self.controls,
        ] {
            family.hand_over(envoy);
        }
        if let Some(metric) = self.panics {
            for (hook, more) in take_panics() {
                envoy.add(metric, &[hook], more);
            }
        }
    }

    /// An answer of the cache.
    pub(crate) fn hit(&self, tier: &str) {
        self.hits.add(&[tier]);
    }

    /// An answer of the provider to a request that may be answered from the cache.
    pub(crate) fn miss(&self) {
        self.misses.add(&[]);
    }

    /// An answer of the provider to another request for the same.
    pub(crate) fn collapsed(&self) {
        self.collapsed.add(&[]);
    }

    /// A request that bypasses the cache.
    pub(crate) fn bypass(&self, why: Bypass) {
        self.bypasses.add(&[why.detail()]);
    }

    /// An answer was stored.
    pub(crate) fn insert(&self) {
        self.inserts.add(&[]);
    }

    /// An answer that must not be served again.
    pub(crate) fn rejected(&self, why: Rejected) {
        self.not_kept.add(&[why.detail()]);
    }

    /// A good answer that is not stored.
    pub(crate) fn dropped(&self, why: Dropped) {
        self.not_kept.add(&[why.detail()]);
    }

    /// The head of an answer to a request of that status, which its client may have kept from the
    /// cache.
    pub(crate) fn controlled(&self, status: Status, headers: &[(&str, &[u8])]) {
        let Some(directive) = status.directive() else {
            return;
        };
        let mut types = headers.iter().filter(|(name, _)| *name == "content-type");
        let is_stream = types.any(|(_, value)| is_event_stream(value));
        let stream = if is_stream { "true" } else { "false" };
        self.controls.add(&[directive.name(), stream]);
    }
}
