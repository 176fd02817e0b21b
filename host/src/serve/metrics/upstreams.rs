//! Counters of the providers, by their names in the configuration.

use super::labels::{UpstreamLabel, UpstreamOutcomeLabels};
use crate::sync::lock;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::Mutex;

/// Of all providers of the running configuration.
#[derive(Debug, Default)]
pub(super) struct Upstreams {
    requests: Family<UpstreamOutcomeLabels, Counter>,
    open: Family<UpstreamLabel, Gauge>,
    all: Mutex<Vec<UpstreamCounts>>,
}

/// Of one provider. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamCounts {
    name: String,
    /// Requests that got an answer, whatever it says.
    pub(crate) answered: Counter,
    /// Requests that got none.
    pub(crate) failed: Counter,
    /// Requests that were not sent, because it had not answered lately.
    pub(crate) refused: Counter,
    open: Gauge,
    failures: Gauge,
}

/// How a provider answers, for `/health`.
#[derive(Debug, serde::Serialize)]
pub(crate) struct UpstreamHealth {
    name: String,
    /// Whether it is left alone for a while.
    open: bool,
    /// Requests without an answer in a row, up to now.
    failures: i64,
}

const OUTCOMES: [&str; 3] = ["answered", "failed", "refused"];

impl Upstreams {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_requests",
            "Requests to each provider, by whether it has answered",
            self.requests.clone(),
        );
        registry.register(
            "upstream_open",
            "Whether a provider is left alone for a while: 1 or 0",
            self.open.clone(),
        );
    }

    /// Those of a provider, there from now on.
    pub(super) fn of(&self, name: &str) -> UpstreamCounts {
        let mut all = lock(&self.all);
        if let Some(known) = all.iter().find(|counts| counts.name == name) {
            return known.clone();
        }
        let [answered, failed, refused] = OUTCOMES.map(|outcome| {
            let upstream = name.to_owned();
            let labels = UpstreamOutcomeLabels { upstream, outcome };
            self.requests.get_or_create_owned(&labels)
        });
        let upstream = name.to_owned();
        let counts = UpstreamCounts {
            name: name.to_owned(),
            answered,
            failed,
            refused,
            open: self.open.get_or_create_owned(&UpstreamLabel { upstream }),
            failures: Gauge::default(),
        };
        all.push(counts.clone());
        counts
    }

    /// Forgets all others. Requests that still run to one of those count nowhere.
    pub(super) fn only(&self, names: &[&str]) {
        lock(&self.all).retain(|counts| {
            let stays = names.contains(&counts.name.as_str());
            if !stays {
                for outcome in OUTCOMES {
                    let upstream = counts.name.clone();
                    self.requests
                        .remove(&UpstreamOutcomeLabels { upstream, outcome });
                }
                let upstream = counts.name.clone();
                self.open.remove(&UpstreamLabel { upstream });
            }
            stays
        });
    }

    pub(super) fn health(&self) -> Vec<UpstreamHealth> {
        let all = lock(&self.all);
        let health = all.iter().map(|counts| UpstreamHealth {
            name: counts.name.clone(),
            open: counts.open.get() != 0,
            failures: counts.failures.get(),
        });
        health.collect()
    }
}

impl UpstreamCounts {
    /// Shows how the provider answers.
    pub(crate) fn show(&self, is_open: bool, failures: u32) {
        self.open.set(i64::from(is_open));
        self.failures.set(i64::from(failures));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;

    #[test]
    fn a_provider_that_is_gone_has_no_series() {
        let mut registry = Registry::default();
        let upstreams = Upstreams::default();
        upstreams.register(&mut registry);
        let [a, b] = ["a", "b"].map(|name| upstreams.of(name));
        a.answered.inc();
        upstreams.of("a").answered.inc();
        b.show(true, 3);
        let text = || {
            let mut text = String::new();
            encode(&mut text, &registry).expect("a text");
            text
        };
        let series = "upstream_requests_total{upstream=\"a\",outcome=\"answered\"} 2";
        assert!(text().contains(series), "{}", text());
        assert!(text().contains("upstream_open{upstream=\"b\"} 1"));
        upstreams.only(&["a", "c"]);
        b.failed.inc();
        b.show(true, 4);
        assert!(
            text().contains(series) && !text().contains("\"b\""),
            "{}",
            text()
        );
        assert_eq!(upstreams.health().len(), 1);
        assert_eq!(upstreams.of("b").failed.get(), 0, "begun anew");
    }
}
