//! Every counter of the daemon, named once. `/metrics` prints them in Prometheus' text format.

mod times;
mod verified;

use crate::cache::{Cache, Stats};
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::observer::{Outcome, RecordingObserver};
use crate::grant::{Allowance, Refusal};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use reflex_llm::{Split, Usage, is_like};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use times::Times;
use verified::Verified;

/// Counters are updated where events happen; the cache's own counters are read for each report.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    /// Of those, the hits: found once, because finding one takes a lock and a hash.
    hits: OnceLock<Counter>,
    hit_seconds: Times,
    miss_seconds: Times,
    guest_failures: Family<ReasonLabel, Counter>,
    guest_refusals: Family<ReasonLabel, Gauge>,
    allowance: Arc<Allowance>,
    upstream_failures: Counter,
    edge_requests: Family<EdgeLabels, Counter>,
    bypasses: Family<ReasonLabel, Counter>,
    recordings: Family<OutcomeLabel, Counter>,
    config_reloads: Family<OutcomeLabel, Counter>,
    not_kept: Family<ReasonLabel, Counter>,
    key_splits: Family<SplitLabels, Counter>,
    client_control: Family<ControlLabels, Counter>,
    batch_texts: Family<FromLabel, Counter>,
    saved_tokens: Family<KindLabel, Counter>,
    /// Of input and of output.
    saved: OnceLock<[Counter; 2]>,
    saved_money: Family<ModelLabel, Counter<f64, AtomicU64>>,
    prices: Vec<Price>,
    fills: Arc<Fills>,
    edge_waiting: Gauge,
    fill_waiters: Gauge,
    budget: Arc<Budget>,
    inflight_bytes: Gauge,
    cache: CacheGauges,
    verified: Verified,
}

/// Prices of a model's tokens, in the operator's currency.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    /// The model's name, in which `*` stands for any text.
    pub model: String,
    /// A million tokens of requests.
    pub input_per_million: f64,
    /// A million tokens of answers.
    pub output_per_million: f64,
}

impl Price {
    fn of(&self, usage: &Usage) -> f64 {
        let cost = |tokens: u64, per_million: f64| tokens as f64 / 1e6 * per_million;
        cost(usage.input_tokens, self.input_per_million)
            + cost(usage.output_tokens, self.output_per_million)
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    /// `input` or `output`.
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FromLabel {
    /// `cache` or `provider`.
    from: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabel {
    /// As the operator's prices spell it: what clients send has no bound.
    model: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    /// `HIT_L1_EXACT`, `MISS`, `BYPASS`, or `ERROR` where the provider gave no answer.
    status: &'static str,
    /// The reason of a bypass; `collapsed` for a follower; `partial` for a batch that was partly
    /// cached.
    detail: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SplitLabels {
    /// `header`, `cookie`, `query` or `field`.
    by: &'static str,
    /// Of those, the first few, then `other`.
    name: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControlLabels {
    /// `no-cache` or `no-store`.
    directive: &'static str,
    /// Whether the answer is a stream: `true` or `false`.
    stream: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    /// Of a recording: `stored`, `rejected` or `dropped`. Of a reload: `applied` or `refused`.
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EdgeLabels {
    /// `GET`, `PUT`, `DELETE` or `other`.
    method: &'static str,
    /// Of the reply.
    code: u16,
}

#[derive(Default)]
struct CacheGauges {
    entries: Gauge,
    payload_bytes: Gauge,
    disk_bytes: Gauge,
    pinned_bytes: Gauge,
    dead_bytes: Gauge,
    queued_bytes: Gauge,
    segments: Gauge,
    segments_reclaimed: Gauge,
    inserts: Gauge,
    inserts_in_memory: Gauge,
    inserts_refused: Gauge,
    lookups_given_up: Gauge,
    evictions: Gauge,
    errors: Gauge,
    corrupt: Gauge,
    healthy: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// From 10 µs, which a hit in this process takes, to 10 s.
const HIT_BUCKETS: [f64; 10] = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];
/// From 1 ms to 10 min: providers' times until their first byte.
const MISS_BUCKETS: [f64; 10] = [1e-3, 1e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

impl Metrics {
    /// Counters at zero. Of several prices for a model, the first counts. The metrics include the
    /// followers of fills, the budget in use, and the guest's refusals.
    pub fn new(
        prices: Vec<Price>,
        fills: Arc<Fills>,
        budget: Arc<Budget>,
        allowance: Arc<Allowance>,
    ) -> Self {
        let mut registry = Registry::with_prefix("reflex");
        let requests = Family::default();
        registry.register(
            "requests",
            "Requests by how they were answered",
            requests.clone(),
        );
        let hit_seconds = Times::new(&HIT_BUCKETS);
        registry.register(
            "hit_seconds",
            "Time to the response's head, hits",
            hit_seconds.clone(),
        );
        let miss_seconds = Times::new(&MISS_BUCKETS);
        registry.register(
            "miss_seconds",
            "Time to the response's head, misses",
            miss_seconds.clone(),
        );
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

        let batch_texts = Family::default();
        registry.register(
            "batch_texts",
            "Texts of batches of embeddings by where their vectors came from",
            batch_texts.clone(),
        );

        let saved_tokens = Family::default();
        registry.register(
            "saved_tokens",
            "Tokens of answers from the cache, as they were counted when new",
            saved_tokens.clone(),
        );
        let saved_money = Family::default();
        registry.register(
            "saved_money",
            "What these cost by the configuration's prices",
            saved_money.clone(),
        );

        let fill_waiters = Gauge::default();
        registry.register(
            "fill_waiters",
            "Requests that wait for another one's answer to begin",
            fill_waiters.clone(),
        );

        let inflight_bytes = Gauge::default();
        registry.register(
            "inflight_bytes",
            "Bytes that the requests under way hold in memory",
            inflight_bytes.clone(),
        );

        let verified = Verified::default();
        verified.register(&mut registry);
        let cache = CacheGauges::default();
        for (name, help, gauge) in [
            ("entries", "Entries in the cache", &cache.entries),
            (
                "payload_bytes",
                "Bytes of their payloads",
                &cache.payload_bytes,
            ),
            (
                "disk_bytes",
                "Bytes of the store's files",
                &cache.disk_bytes,
            ),
            (
                "pinned_bytes",
                "Bytes of the store's files that are removed but still read",
                &cache.pinned_bytes,
            ),
            (
                "dead_bytes",
                "Bytes of the store's files that no lookup finds any more",
                &cache.dead_bytes,
            ),
            (
                "queued_bytes",
                "Bytes of memory taken by what waits to be written",
                &cache.queued_bytes,
            ),
            ("segments", "Files of the store", &cache.segments),
            (
                "segments_reclaimed",
                "Files of the store removed to make room, since the start",
                &cache.segments_reclaimed,
            ),
            (
                "inserts",
                "Entries inserted since the start",
                &cache.inserts,
            ),
            (
                "inserts_in_memory",
                "Entries that went to memory as the disk was in trouble, since the start",
                &cache.inserts_in_memory,
            ),
            (
                "inserts_refused",
                "Entries not stored as the disk did not keep up, since the start",
                &cache.inserts_refused,
            ),
            (
                "lookups_given_up",
                "Lookups that were misses as the disk was too slow to read, since the start",
                &cache.lookups_given_up,
            ),
            (
                "evictions",
                "Entries evicted since the start",
                &cache.evictions,
            ),
            (
                "store_errors",
                "Failed operations on the store's files since the start",
                &cache.errors,
            ),
            (
                "store_corrupt",
                "Entries found damaged since the start",
                &cache.corrupt,
            ),
            (
                "store_healthy",
                "1 while entries reach the disk",
                &cache.healthy,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self {
            registry,
            requests,
            hits: OnceLock::new(),
            hit_seconds,
            miss_seconds,
            guest_failures,
            guest_refusals,
            allowance,
            upstream_failures,
            edge_requests,
            edge_waiting,
            bypasses,
            recordings,
            not_kept,
            key_splits,
            client_control,
            config_reloads,
            batch_texts,
            saved_tokens,
            saved: OnceLock::new(),
            saved_money,
            prices,
            fills,
            fill_waiters,
            budget,
            inflight_bytes,
            cache,
            verified,
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

    pub(crate) fn hit(&self, took: Duration) {
        let labels = RequestLabels {
            status: "HIT_L1_EXACT",
            detail: "",
        };
        let hits = self
            .hits
            .get_or_init(|| self.requests.get_or_create(&labels).clone());
        hits.inc();
        self.hit_seconds.observe(took);
    }

    /// A stale hit, because the provider failed. Its duration is the provider's.
    pub(crate) fn stale(&self) {
        self.request("HIT_STALE", "stale");
    }

    /// `detail` is the kind of miss, empty for a plain one.
    pub(crate) fn miss(&self, detail: &'static str, took: Duration) {
        self.request("MISS", detail);
        self.miss_seconds.observe(took);
    }

    /// `reason` is a [`Bypass`](reflex_llm::Bypass)'s word, or `other`.
    pub(crate) fn bypass(&self, reason: &'static str) {
        self.request("BYPASS", reason);
        self.bypasses.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// An answer was not stored, for one of the reasons of `reflex-llm`.
    pub(crate) fn not_kept(&self, reason: &'static str) {
        self.not_kept.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A miss whose key splits. The number of names is bounded by what found it.
    pub(crate) fn key_split(&self, split: Split) {
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
    pub(crate) fn error(&self) {
        self.request("ERROR", "");
    }

    pub(crate) fn upstream_failed(&self) {
        self.upstream_failures.inc();
    }

    pub(crate) fn edge_request(&self, method: &'static str, code: u16) {
        let labels = EdgeLabels { method, code };
        self.edge_requests.get_or_create(&labels).inc();
    }

    /// Counts the refusals of the daemon's guest.
    pub(crate) fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
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
            let refused = i64::try_from(self.allowance.refused(refusal)).unwrap_or(i64::MAX);
            self.guest_refusals
                .get_or_create(&ReasonLabel { reason })
                .set(refused);
        }
        let waiting = i64::try_from(self.fills.waiting()).unwrap_or(i64::MAX);
        self.fill_waiters.set(waiting);
        let held = i64::try_from(self.budget.held()).unwrap_or(i64::MAX);
        self.inflight_bytes.set(held);
        let waiting = i64::try_from(self.fills.edges_waiting()).unwrap_or(i64::MAX);
        self.edge_waiting.set(waiting);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl CacheGauges {
    fn set(&self, stats: &Stats) {
        let set = |gauge: &Gauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.entries, stats.entries);
        set(&self.payload_bytes, stats.payload_bytes);
        set(&self.disk_bytes, stats.disk_bytes);
        set(&self.pinned_bytes, stats.pinned_bytes);
        set(&self.dead_bytes, stats.dead_bytes);
        set(&self.queued_bytes, stats.queued_bytes);
        set(&self.segments, stats.segments);
        set(&self.segments_reclaimed, stats.segments_reclaimed);
        set(&self.inserts, stats.inserts);
        set(&self.inserts_in_memory, stats.inserts_in_memory);
        set(&self.inserts_refused, stats.inserts_refused);
        set(&self.lookups_given_up, stats.lookups_given_up);
        set(&self.evictions, stats.evictions);
        set(&self.errors, stats.store_errors);
        set(&self.corrupt, stats.corrupt);
        set(&self.healthy, u64::from(stats.healthy));
    }
}

impl RecordingObserver for Metrics {
    fn guest_failed(&self, reason: &'static str) {
        self.guest_failures
            .get_or_create(&ReasonLabel { reason })
            .inc();
    }

    fn saved(&self, usage: &Usage, model: Option<&str>) {
        let counter = |kind| self.saved_tokens.get_or_create(&KindLabel { kind }).clone();
        let saved = self.saved.get_or_init(|| ["input", "output"].map(counter));
        for (saved, tokens) in saved.iter().zip([usage.input_tokens, usage.output_tokens]) {
            saved.inc_by(tokens);
        }
        let priced = |price: &&Price| model.is_some_and(|model| is_like(&price.model, model));
        if let Some(price) = self.prices.iter().find(priced) {
            let label = ModelLabel {
                model: price.model.clone(),
            };
            self.saved_money
                .get_or_create(&label)
                .inc_by(price.of(usage));
        }
    }

    fn batch(&self, known: usize, asked: usize) {
        for (from, count) in [("cache", known), ("provider", asked)] {
            self.batch_texts
                .get_or_create(&FromLabel { from })
                .inc_by(count as u64);
        }
    }

    fn verified(&self, result: &'static str, model: Option<&str>, route: &'static str) {
        self.verified.count(result, model, route);
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
