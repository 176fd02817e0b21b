//! Spans of requests, by what became of them.

use super::labels::OutcomeLabel;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// `reflex_otlp_spans_total`. A clone counts the same.
#[derive(Clone, Debug)]
pub(crate) struct SpanCounts {
    /// The receiver has taken them.
    pub(crate) sent: Counter,
    /// It has not.
    pub(crate) failed: Counter,
    /// They found the queue full.
    pub(crate) dropped: Counter,
}

impl SpanCounts {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let spans = Family::<OutcomeLabel, Counter>::default();
        registry.register("otlp_spans", "Spans of requests", spans.clone());
        let of = |outcome| spans.get_or_create_owned(&OutcomeLabel { outcome });
        Self {
            sent: of("sent"),
            failed: of("failed"),
            dropped: of("dropped"),
        }
    }
}
