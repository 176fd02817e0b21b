//! Every counter of the daemon, named once. `/metrics` prints them in OpenMetrics' text format;
//! `docs/metrics.md` lists them.
//!
//! A hit updates atomics only: its counters are found at the start.

mod cache_counts;
mod certificates;
mod durations;
#[cfg(feature = "fleet")]
mod fleet;
mod labels;
mod price;
#[cfg(feature = "otlp")]
mod spans;
mod times;
mod upstreams;
mod verified;

pub(crate) use durations::Answered;
pub use price::Price;
#[cfg(feature = "otlp")]
pub(crate) use spans::SpanCounts;
pub(crate) use times::Counts;
pub(crate) use upstreams::{UpstreamCounts, UpstreamHealth};

use crate::cache::{Cache, Tier};
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::observer::{Outcome, RecordingObserver};
use crate::grant::{Allowance, Refusal};
use crate::serve::recent::{Kind, Recent};
use cache_counts::{CacheCounts, raise, set};
use certificates::Certificates;
use durations::Durations;
use labels::{
    ControlLabels, EdgeLabels, FromLabel, LimitLabels, OutcomeLabel, ReasonLabel, RequestLabels,
    SplitLabels, VersionLabel,
};
use price::Savings;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use reflex_llm::{Split, Usage};
use std::sync::Arc;
use std::time::Duration;
use upstreams::Upstreams;
use verified::Verified;

/// Counters are updated where events happen; the cache's own counters are read for each report.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// Of those, the hits: found once, because finding one takes a lock and a hash.
    hits: Counter,
    durations: Durations,
    guest_failures: Family<ReasonLabel, Counter>,
    guest_refusals: Family<ReasonLabel, Counter>,
    allowance: Arc<Allowance>,
    upstream_failures: Counter,
    upstreams: Upstreams,
    edge_requests: Family<EdgeLabels, Counter>,
    bypasses: Family<ReasonLabel, Counter>,
    recordings: Family<OutcomeLabel, Counter>,
    config_reloads: Family<OutcomeLabel, Counter>,
    not_kept: Family<ReasonLabel, Counter>,
    key_splits: Family<SplitLabels, Counter>,
    client_control: Family<ControlLabels, Counter>,
    /// Texts from the cache, and from the provider.
    batch_texts: [Counter; 2],
    savings: Savings,
    purges: Counter,
    over_limit: Family<LimitLabels, Counter>,
    fills: Arc<Fills>,
    edge_waiting: Gauge,
    fill_waiters: Gauge,
    budget: Arc<Budget>,
    inflight_bytes: Gauge,
    verified: Verified,
    renewals: Family<OutcomeLabel, Counter>,
    certificates: Certificates,
    #[cfg(feature = "otlp")]
    spans: SpanCounts,
    #[cfg(feature = "fleet")]
    fleet: fleet::FleetCounts,
    cache: CacheCounts,
    recent: Arc<Recent>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Counters at zero. Of several prices for a model, the first counts; `disk_bytes_max` is the
    /// store's bound. The metrics include the followers of fills, the budget in use, and the guest's
    /// refusals.
    pub fn new(
        prices: Vec<Price>,
        disk_bytes_max: u64,
        fills: Arc<Fills>,
        budget: Arc<Budget>,
        allowance: Arc<Allowance>,
    ) -> Self {
        let mut registry = Registry::with_prefix("reflex");
        let version = VersionLabel {
            version: env!("CARGO_PKG_VERSION"),
        };
        registry.register("build", "The daemon's version", Info::new(version));
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "requests",
            "Requests by how they were answered",
            requests.clone(),
        );
        let hits = requests.get_or_create_owned(&RequestLabels {
            status: "HIT_L1_EXACT",
            detail: "",
        });
        let durations = Durations::new(&mut registry);
        let guest_failures = Family::default();
        registry.register(
            "guest_failures",
            "Requests that a guest failed to handle",
            guest_failures.clone(),
        );
        let guest_refusals = Family::default();
        registry.register(
            "guest_refusals",
            "Calls of a guest that were refused: beyond what it may do, or hold, or store",
            guest_refusals.clone(),
        );
        let upstream_failures = Counter::default();
        registry.register(
            "upstream_failures",
            "Requests without an answer of the provider",
            upstream_failures.clone(),
        );
        let upstreams = Upstreams::default();
        upstreams.register(&mut registry);
        let edge_requests = Family::default();
        registry.register(
            "edge_requests",
            "Requests of edges by method and status code",
            edge_requests.clone(),
        );
        let edge_waiting = Gauge::default();
        registry.register(
            "edge_waiting",
            "Lookups of edges that wait for a fill now",
            edge_waiting.clone(),
        );
        let bypasses = Family::default();
        registry.register(
            "bypasses",
            "Requests that went to the provider untouched, by why",
            bypasses.clone(),
        );
        let not_kept = Family::default();
        registry.register(
            "not_kept",
            "Answers that were not stored, by why",
            not_kept.clone(),
        );
        let key_splits = Family::default();
        registry.register(
            "key_splits",
            "Misses that differ from another by a part of the request that hardly counts",
            key_splits.clone(),
        );
        let client_control = Family::default();
        registry.register(
            "client_control",
            "Requests that their clients kept from the cache",
            client_control.clone(),
        );
        let recordings = Family::default();
        registry.register(
            "recordings",
            "Answers on their way into the cache",
            recordings.clone(),
        );

        let config_reloads = Family::default();
        registry.register(
            "config_reloads",
            "Reloads of the configuration; a refused one has changed nothing",
            config_reloads.clone(),
        );

        let batch_texts = Family::<FromLabel, Counter>::default();
        registry.register(
            "batch_texts",
            "Texts of batches of embeddings by where their vectors came from",
            batch_texts.clone(),
        );

        let savings = Savings::new(prices, &mut registry);

        let purges = Counter::default();
        registry.register(
            "purges",
            "Purges and removals of single entries",
            purges.clone(),
        );

        let over_limit = Family::default();
        registry.register(
            "over_limit",
            "Misses of tenants that had asked for more than they may",
            over_limit.clone(),
        );

        let fill_waiters = Gauge::default();
        registry.register(
            "fill_waiters",
            "Requests that wait for another one's answer to begin",
            fill_waiters.clone(),
        );

        let inflight_bytes = Gauge::default();
        registry.register_with_unit(
            "inflight",
            "Bytes that the requests under way hold in memory",
            Unit::Bytes,
            inflight_bytes.clone(),
        );
        let inflight_quota = Gauge::default();
        set(&inflight_quota, budget.most());
        registry.register_with_unit(
            "inflight_quota",
            "The most bytes that the requests under way may hold in memory",
            Unit::Bytes,
            inflight_quota,
        );

        let verified = Verified::default();
        verified.register(&mut registry);
        let renewals = Family::<OutcomeLabel, Counter>::default();
        for outcome in ["renewed", "failed", "skipped"] {
            drop(renewals.get_or_create(&OutcomeLabel { outcome }));
        }
        registry.register(
            "renewals",
            "Answers that were to be renewed in the background, by what became of it",
            renewals.clone(),
        );
        let certificates = Certificates::default();
        certificates.register(&mut registry);
        #[cfg(feature = "otlp")]
        let spans = SpanCounts::new(&mut registry);
        #[cfg(feature = "fleet")]
        let fleet = fleet::FleetCounts::default();
        #[cfg(feature = "fleet")]
        fleet.register(&mut registry);
        let cache = CacheCounts::new(disk_bytes_max, &mut registry);
        let texts = |from| batch_texts.get_or_create_owned(&FromLabel { from });
        let batch_texts = [texts("cache"), texts("provider")];
        Self {
            registry,
            requests,
            hits,
            durations,
            guest_failures,
            guest_refusals,
            allowance,
            upstream_failures,
            upstreams,
            edge_requests,
            edge_waiting,
            bypasses,
            recordings,
            not_kept,
            key_splits,
            client_control,
            config_reloads,
            batch_texts,
            savings,
            purges,
            over_limit,
            fills,
            fill_waiters,
            budget,
            inflight_bytes,
            cache,
            verified,
            renewals,
            certificates,
            #[cfg(feature = "otlp")]
            spans,
            #[cfg(feature = "fleet")]
            fleet,
            recent: Arc::default(),
        }
    }
}

impl Metrics {
    pub(crate) fn reloaded(&self, is_applied: bool) {
        let outcome = match is_applied {
            true => "applied",
            false => "refused",
        };
        self.config_reloads
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    /// A listener has TLS.
    pub(crate) fn tls_begun(&self, side: &'static str) {
        self.certificates.begin(side);
    }

    /// A handshake of a connection to the daemon has ended.
    pub(crate) fn tls_handshake(&self, side: &'static str, outcome: &'static str) {
        self.certificates.handshake(side, outcome);
    }

    /// Changed files of certificates were read.
    pub(crate) fn tls_reloaded(&self, side: &'static str, is_applied: bool) {
        self.certificates.reloaded(side, is_applied);
    }

    /// The end of the certificate in use, in seconds since 1970.
    pub(crate) fn certificate_expires(&self, side: &'static str, expiry: Option<u64>) {
        self.certificates.expires(side, expiry);
    }

    /// A hit, and where its bytes were; none if a component looked it up.
    pub(crate) fn hit(&self, tier: Option<Tier>, took: Duration) {
        self.hits.inc();
        self.durations.observe(Answered::hit(tier), took);
    }

    /// A hit that had expired, and where its bytes were.
    pub(crate) fn overdue(&self, tier: Option<Tier>, took: Duration) {
        self.request("HIT_STALE", "renewing");
        self.durations.observe(Answered::hit(tier), took);
    }

    /// A stale hit, because the provider failed. Its duration is the provider's.
    pub(crate) fn stale(&self, took: Duration) {
        self.request("HIT_STALE", "stale");
        self.durations.observe(Answered::Stale, took);
    }

    /// An answer of the provider: a [`Miss`](Answered::Miss), or a kind of it.
    pub(crate) fn miss(&self, kind: Answered, took: Duration) {
        let detail = match kind {
            Answered::Collapsed => "collapsed",
            Answered::Partial => "partial",
            _ => "",
        };
        self.request("MISS", detail);
        self.durations.observe(kind, took);
    }

    /// `reason` is a [`Bypass`](reflex_llm::Bypass)'s word, or `other`.
    pub(crate) fn bypass(&self, reason: &'static str, took: Duration) {
        self.request("BYPASS", reason);
        self.bypasses.get_or_create(&ReasonLabel { reason }).inc();
        self.durations.observe(Answered::Bypass, took);
        self.recent.reason(Kind::Bypass, reason);
    }

    /// An answer was not stored, for one of the reasons of `reflex-llm`.
    pub(crate) fn not_kept(&self, reason: &'static str) {
        self.not_kept.get_or_create(&ReasonLabel { reason }).inc();
        self.recent.reason(Kind::NotKept, reason);
    }

    /// A miss whose key splits. The number of names is bounded by what found it.
    pub(crate) fn key_split(&self, split: Split) {
        self.recent.split(split.by.name(), &split.name);
        let (by, name) = (split.by.name(), split.name);
        let labels = SplitLabels { by, name };
        self.key_splits.get_or_create(&labels).inc();
    }

    pub(crate) fn client_control(&self, directive: &'static str, is_stream: bool) {
        let stream = if is_stream { "true" } else { "false" };
        let labels = ControlLabels { directive, stream };
        self.client_control.get_or_create(&labels).inc();
    }

    /// The client got an error of ours.
    pub(crate) fn error(&self, took: Duration) {
        self.request("ERROR", "");
        self.durations.observe(Answered::Error, took);
    }

    /// A lookup of an edge.
    pub(crate) fn edge_lookup(&self, is_hit: bool, took: Duration) {
        let answered = match is_hit {
            true => Answered::HitEdge,
            false => Answered::MissEdge,
        };
        self.durations.observe(answered, took);
    }

    /// Entries were purged, or one was removed.
    pub(crate) fn purged(&self) {
        self.purges.inc();
    }

    pub(crate) fn upstream_failed(&self) {
        self.upstream_failures.inc();
    }

    /// Counters of a provider of this name.
    pub(crate) fn upstream(&self, name: &str) -> UpstreamCounts {
        self.upstreams.of(name)
    }

    /// These are all providers.
    pub(crate) fn only_upstreams(&self, names: &[&str]) {
        self.upstreams.only(names);
    }

    /// How each provider answers.
    pub(crate) fn upstream_health(&self) -> Vec<UpstreamHealth> {
        self.upstreams.health()
    }

    pub(crate) fn edge_request(&self, method: &'static str, code: u16) {
        let labels = EdgeLabels { method, code };
        self.edge_requests.get_or_create(&labels).inc();
    }

    /// Counts spans.
    #[cfg(feature = "otlp")]
    pub(crate) fn spans(&self) -> SpanCounts {
        self.spans.clone()
    }

    /// The daemon takes part in this fleet.
    #[cfg(feature = "fleet")]
    pub(crate) fn takes_part(&self, fleet: &Arc<crate::fleet::Fleet>) {
        self.fleet.begin(fleet);
    }

    /// The fleet that the daemon takes part in.
    #[cfg(feature = "fleet")]
    pub(crate) fn fleet(&self) -> Option<&Arc<crate::fleet::Fleet>> {
        self.fleet.fleet()
    }

    /// Counts what hits save by these prices from now on.
    pub(crate) fn price(&self, prices: Vec<Price>) {
        self.savings.price(prices);
    }

    /// Counts the refusals of the daemon's guest.
    pub(crate) fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    /// What happened lately.
    pub(crate) fn recent(&self) -> &Arc<Recent> {
        &self.recent
    }

    /// How long such requests took, since the start.
    pub(crate) fn took(&self, answered: Answered) -> Counts {
        self.durations.counts(answered)
    }

    /// Tokens that hits saved, since the start.
    pub(crate) fn saved_tokens(&self) -> u64 {
        self.savings.tokens()
    }

    /// Money that hits saved, since the start; none without prices.
    pub(crate) fn saved_money(&self) -> Option<f64> {
        self.savings.money()
    }

    /// Bytes that the requests under way hold, and the most that they may hold.
    pub(crate) fn inflight_bytes(&self) -> (u64, u64) {
        (self.budget.held(), self.budget.most())
    }

    /// Purges since the start.
    pub(crate) fn purges(&self) -> u64 {
        self.purges.get()
    }

    fn request(&self, status: &'static str, detail: &'static str) {
        self.requests
            .get_or_create(&RequestLabels { status, detail })
            .inc();
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self, cache: &Cache) -> String {
        self.cache.set(&cache.stats());
        for refusal in Refusal::ALL {
            let reason = refusal.reason();
            let refusals = self.guest_refusals.get_or_create(&ReasonLabel { reason });
            raise(&refusals, self.allowance.refused(refusal));
        }
        let over = self.fills.limits().counts();
        for (limit, action, count) in [
            ("rate", "passed", over.rate_passed),
            ("rate", "refused", over.rate_refused),
            ("fills", "passed", over.fills_passed),
        ] {
            let labels = LimitLabels { limit, action };
            raise(&self.over_limit.get_or_create(&labels), count);
        }
        #[cfg(feature = "fleet")]
        self.fleet.report();
        set(&self.fill_waiters, self.fills.waiting() as u64);
        set(&self.inflight_bytes, self.budget.held());
        set(&self.edge_waiting, self.fills.edges_waiting() as u64);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl RecordingObserver for Metrics {
    fn guest_failed(&self, reason: &'static str) {
        self.guest_failures
            .get_or_create(&ReasonLabel { reason })
            .inc();
        self.recent.reason(Kind::GuestFault, reason);
    }

    fn saved(&self, usage: &Usage, model: Option<&str>) {
        self.savings.add(usage, model);
    }

    fn batch(&self, known: usize, asked: usize) {
        for (texts, count) in self.batch_texts.iter().zip([known, asked]) {
            texts.inc_by(count as u64);
        }
    }

    fn verified(&self, result: &'static str, model: Option<&str>, route: &'static str) {
        self.verified.count(result, model, route);
    }

    fn renewed(&self, outcome: &'static str) {
        self.renewals.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    fn ended(&self, outcome: Outcome) {
        let (outcome, reason) = match outcome {
            Outcome::Stored => ("stored", None),
            Outcome::Rejected(reason) => ("rejected", Some(reason.detail())),
            Outcome::Dropped(reason) => ("dropped", Some(reason.detail())),
        };
        self.recordings
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
        if let Some(reason) = reason {
            self.not_kept(reason);
        }
    }
}
