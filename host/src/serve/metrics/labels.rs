//! The labels of the counters. Every label has a bounded number of values.

use prometheus_client::encoding::EncodeLabelSet;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct KindLabel {
    /// `input` or `output`.
    pub(super) kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct FromLabel {
    /// `cache` or `provider`.
    pub(super) from: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ModelLabel {
    /// As the operator's prices spell it: what clients send has no bound.
    pub(super) model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct RequestLabels {
    /// `HIT_L1_EXACT`, `MISS`, `BYPASS`, or `ERROR` where the provider gave no answer.
    pub(super) status: &'static str,
    /// The reason of a bypass; `collapsed` for a follower; `partial` for a batch that was partly
    /// cached.
    pub(super) detail: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ReasonLabel {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SplitLabels {
    /// `header`, `cookie`, `query` or `field`.
    pub(super) by: &'static str,
    /// Of those, the first few, then `other`.
    pub(super) name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct ControlLabels {
    /// `no-cache` or `no-store`.
    pub(super) directive: &'static str,
    /// Whether the answer is a stream: `true` or `false`.
    pub(super) stream: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OutcomeLabel {
    /// What has become of it.
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct EdgeLabels {
    /// `GET`, `PUT`, `DELETE` or `other`.
    pub(super) method: &'static str,
    /// Of the reply.
    pub(super) code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct LimitLabels {
    /// `rate` or `fills`.
    pub(super) limit: &'static str,
    /// `passed` or `refused`.
    pub(super) action: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct VersionLabel {
    /// The daemon's version.
    pub(super) version: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct DurationLabels {
    /// How the request was answered, as in `Cache-Status`.
    pub(super) outcome: &'static str,
    /// Where the answer came from.
    pub(super) tier: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SideLabel {
    /// `clients`, `operators` or `provider`.
    pub(super) side: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct SideOutcomeLabels {
    /// `clients`, `operators` or `provider`.
    pub(super) side: &'static str,
    /// What has become of it.
    pub(super) outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct UpstreamLabel {
    /// A provider's name in the configuration, which has a bound on their number.
    pub(super) upstream: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct UpstreamOutcomeLabels {
    /// See [`UpstreamLabel`].
    pub(super) upstream: String,
    /// `answered`, `failed` or `refused`.
    pub(super) outcome: &'static str,
}
