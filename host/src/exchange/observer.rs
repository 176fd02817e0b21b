//! How recordings end, for metrics.

use reflex_llm::{Dropped, Rejected, Usage};

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the cache.
    Stored,
    /// The answer must not be served again.
    Rejected(Rejected),
    /// The answer was good, but is not in the cache.
    Dropped(Dropped),
}

/// Told how each recording ended, for metrics.
pub trait RecordingObserver: Send + Sync + 'static {
    /// A hit saved this usage.
    fn saved(&self, usage: &Usage, model: Option<&str>) {
        let _ = (usage, model);
    }

    /// Of a batch of embeddings, `known` texts were in the cache and `asked` went to the provider.
    fn batch(&self, known: usize, asked: usize) {
        let _ = (known, asked);
    }

    /// The provider was asked again for a hit: `identical`, `equal`, `different`, `failed` or
    /// `skipped`. The route is the name of the API.
    fn verified(&self, result: &'static str, model: Option<&str>, route: &'static str) {
        let _ = (result, model, route);
    }

    /// An answer was to be renewed in the background: `renewed`, `failed` (the provider failed, or its
    /// answer is not kept) or `skipped` (too many at once, or of its tenant).
    fn renewed(&self, outcome: &'static str) {
        let _ = outcome;
    }

    /// A guest failed after its response had begun: it trapped (`stream-trap`), streamed for too
    /// long (`stream-timeout`), or streamed an invalid body (`stream-body`).
    fn guest_failed(&self, reason: &'static str) {
        let _ = reason;
    }

    /// Called once per recording, on the thread that polled the body last. Called once more if data
    /// followed the terminal event of a stored answer: it belonged to the answer, which was stored
    /// again, or undid it, and the answer was removed.
    fn ended(&self, outcome: Outcome);
}

/// For hosts that do not count.
#[derive(Debug)]
pub struct NoObserver;

impl RecordingObserver for NoObserver {
    fn ended(&self, _: Outcome) {}
}
