//! Why requests were no hits, where only several requests show it: keys that split, and clients
//! that keep all their requests from the cache. Metrics count these, and the log names each once,
//! with the setting that helps.

use crate::exchange::question::{Named, candidate};
use crate::grant::Grant;
use crate::serve::metrics::Metrics;
use http::request::Parts;
use reflex_llm::{ClientControl, Directive, Split, Splits};
use std::fmt;
use std::hash::RandomState;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Misses remembered, to compare later ones with the same question. At most 512 KiB.
const RECENT_MAX: usize = 512;

/// The misses remembered, to explain later ones.
pub(crate) struct Reasons {
    grant: Grant,
    client_control: ClientControl,
    /// Random, so that hashes cannot be guessed or compared across processes.
    seed: RandomState,
    splits: Mutex<Splits>,
    /// Whether the log has said that clients keep streams from the cache.
    has_told_of_streams: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Reasons {
    /// For requests that are handled under this grant.
    pub(crate) fn new(grant: Grant, client_control: ClientControl, metrics: Arc<Metrics>) -> Self {
        Self {
            grant,
            client_control,
            seed: RandomState::new(),
            splits: Mutex::new(Splits::new(RECENT_MAX)),
            has_told_of_streams: AtomicBool::new(false),
            metrics,
        }
    }

    /// A request that was a miss. Takes some 2 µs, and 0.4 more for each KiB of the body; bodies over
    /// 64 KiB are not compared.
    pub(crate) fn miss(&self, parts: &Parts, body: &[u8]) {
        for split in self.splits(parts, body).unwrap_or_default() {
            if split.is_new {
                tracing::warn!("{split}");
            }
            self.metrics.key_split(split);
        }
    }

    fn splits(&self, parts: &Parts, body: &[u8]) -> Option<Vec<Split>> {
        let named = Named::of(parts);
        let candidate = candidate(&named.head(), &self.grant, self.client_control).ok()?;
        let traits = candidate.prepare().traits(body, &self.seed)?;
        let mut splits = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        Some(splits.note(&traits))
    }

    /// A request that its client has kept from the cache, and whether the answer is a stream.
    pub(crate) fn controlled(&self, directive: Directive, is_stream: bool) {
        self.metrics.client_control(directive.name(), is_stream);
        if is_stream && !self.has_told_of_streams.swap(true, Ordering::Relaxed) {
            let setting = match directive {
                Directive::NoCache => "no-refresh",
                Directive::NoStore => "ignore",
            };
            tracing::warn!(
                "clients send `cache-control: {}` with streams, as some libraries always do, so that \
                 these are never answered from the cache; if they do not mean it, set \
                 client_control = \"{setting}\"",
                directive.name()
            );
        }
    }
}

impl fmt::Debug for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reasons").finish_non_exhaustive()
    }
}
