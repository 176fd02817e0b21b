//! What the operator decided about HTTP answers.

use crate::cache::{Cache, L1_BYTES_MAX};
use crate::exchange::body::budget::Budget;
use crate::exchange::fills::Fills;
use crate::exchange::observer::{NoObserver, RecordingObserver};
use crate::exchange::reply::pace::Replay;
use crate::exchange::reply::samples::Samples;
use reflex_llm::{ClientControl, Limits, ProviderControl, Renewals};
use std::sync::Arc;
use std::time::Duration;

/// What the operator decided about HTTP answers, beyond the [`Grant`](crate::grant::Grant).
pub struct HttpPolicy {
    /// Whether an answer that ran into the client's own token limit may be stored.
    pub allow_length: bool,
    /// Which parts of a request's `Cache-Control` and `x-reflex-ttl` are obeyed.
    pub client_control: ClientControl,
    /// Which parts of an answer's `Cache-Control`, `Expires` and `Vary` are obeyed.
    pub provider_control: ProviderControl,
    /// How replays go.
    pub replay: Replay,
    /// How many answers are kept for one request.
    pub samples: Samples,
    /// How long a follower waits for the leader's answer to begin.
    pub fill_wait_max: Duration,
    /// For how long after its expiry an entry is served when the provider fails; zero is not at
    /// all. [`CacheOptions::stale_seconds_max`], or [`Cache::keep_expired`], must keep entries as long.
    ///
    /// [`CacheOptions::stale_seconds_max`]: crate::cache::CacheOptions::stale_seconds_max
    /// [`Cache::keep_expired`]: crate::cache::Cache::keep_expired
    pub stale_if_error_max: Duration,
    /// Which answers are renewed in the background shortly before or after their end, and served
    /// meanwhile. What is said of `stale_if_error_max` holds for its times after the end, too.
    pub renewals: Arc<Renewals>,
    /// The fills under way: [`Fills::new`] of the same cache, one for all its users.
    pub fills: Arc<Fills>,
    /// Upper bound of the memory of all requests; one for the whole process.
    pub budget: Arc<Budget>,
    /// Upper bound of the memory for requests that are known by their bytes; 0 is none. Each native
    /// flow has as much.
    pub l1_bytes_max: u64,
    /// Clients get the provider's answers only: what would have been a hit is looked up and counted,
    /// and asked of the provider all the same.
    pub is_shadow: bool,
    /// The share of hits for which the provider is asked again in the background, to compare: 0
    /// to 1. Needs the feature `serve`.
    pub verify_fraction: f64,
    /// Told how recordings end.
    pub observer: Arc<dyn RecordingObserver>,
}

impl HttpPolicy {
    /// The policy of a daemon without a configuration, with fills of its own and without metrics.
    /// All users of one cache should have the same policy, or the same [`fills`](Self::fills).
    pub fn new(cache: &Cache) -> Self {
        Self {
            allow_length: false,
            provider_control: ProviderControl::Ignore,
            client_control: ClientControl::Obey,
            replay: Replay::Instant,
            samples: Samples::default(),
            // Longer than a model takes to begin, as a rule.
            fill_wait_max: Duration::from_secs(60),
            stale_if_error_max: Duration::ZERO,
            renewals: Arc::default(),
            fills: Fills::new(cache),
            budget: Budget::new(INFLIGHT_BYTES_MAX),
            l1_bytes_max: L1_BYTES_MAX,
            is_shadow: false,
            verify_fraction: 0.0,
            observer: Arc::new(NoObserver),
        }
    }

    /// The limits of a recording: of one answer, or of a batch that is stored text by text.
    pub(crate) fn limits(&self, cache: &Cache, is_batch: bool) -> Limits {
        let entry_bytes_max = usize::try_from(cache.entry_bytes_max()).unwrap_or(usize::MAX);
        Limits {
            body_bytes_max: match is_batch {
                true => BATCH_BYTES_MAX.max(entry_bytes_max),
                false => entry_bytes_max,
            },
            allow_length: self.allow_length,
            provider_control: self.provider_control,
        }
    }
}

impl std::fmt::Debug for HttpPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpPolicy")
            .field("allow_length", &self.allow_length)
            .finish_non_exhaustive()
    }
}

/// 256 MiB: sixteen of the longest answers that are kept, or a few hundred of the longest requests
/// that are read, at once. Most requests and answers have a few kilobytes.
pub(crate) const INFLIGHT_BYTES_MAX: u64 = 256 << 20;

/// The longest answer to a batch that is taken apart, in bytes. Each of its parts is an entry, with
/// an entry's bound. The whole is held in memory while it arrives, once to be read and once for the
/// requests that share it. OpenAI's longest, 2,048 vectors of 1,536 numbers, has some 45 MB as
/// numbers and 17 MB in base64.
pub(crate) const BATCH_BYTES_MAX: usize = 64 << 20;
