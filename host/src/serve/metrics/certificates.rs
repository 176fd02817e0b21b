//! Counters of TLS.

use super::labels::{SideLabel, SideOutcomeLabels};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

/// Handshakes, reads of certificate files, and when certificates expire.
#[derive(Debug, Default)]
pub(super) struct Certificates {
    handshakes: Family<SideOutcomeLabels, Counter>,
    reloads: Family<SideOutcomeLabels, Counter>,
    expiry: Family<SideLabel, Gauge>,
}

impl Certificates {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes",
            "Handshakes of connections to the daemon",
            self.handshakes.clone(),
        );
        registry.register(
            "tls_reloads",
            "Changed files of certificates that were read; refused ones have changed nothing",
            self.reloads.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_expiry_timestamp",
            "When the certificate in use expires, since 1970",
            Unit::Seconds,
            self.expiry.clone(),
        );
    }

    /// Has a listener's series there from the start.
    pub(super) fn begin(&self, side: &'static str) {
        for outcome in ["applied", "refused"] {
            let labels = SideOutcomeLabels { side, outcome };
            drop(self.reloads.get_or_create(&labels));
        }
        for outcome in ["done", "refused", "unfinished"] {
            let labels = SideOutcomeLabels { side, outcome };
            drop(self.handshakes.get_or_create(&labels));
        }
    }

    pub(super) fn handshake(&self, side: &'static str, outcome: &'static str) {
        let labels = SideOutcomeLabels { side, outcome };
        self.handshakes.get_or_create(&labels).inc();
    }

    pub(super) fn reloaded(&self, side: &'static str, is_applied: bool) {
        let outcome = match is_applied {
            true => "applied",
            false => "refused",
        };
        let labels = SideOutcomeLabels { side, outcome };
        self.reloads.get_or_create(&labels).inc();
    }

    /// In seconds since 1970; none if there is no certificate, or it does not tell.
    pub(super) fn expires(&self, side: &'static str, expiry: Option<u64>) {
        let labels = SideLabel { side };
        match expiry {
            Some(end) => {
                let end = i64::try_from(end).unwrap_or(i64::MAX);
                self.expiry.get_or_create(&labels).set(end);
            }
            None => {
                self.expiry.remove(&labels);
            }
        }
    }
}
