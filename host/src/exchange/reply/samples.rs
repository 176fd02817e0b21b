//! Several answers to one request, served in turn: for evaluations, which need variety.

use moka::sync::Cache;
use reflex_llm::Key;
use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Requests whose next answer is remembered: 20 MB at most. Others begin with their first answer
/// again.
const TURNS_MAX: u64 = 100_000;

/// The number of answers for one request, and which answer is next.
pub struct Samples {
    count: NonZeroU32,
    turns: Cache<[u8; 32], Arc<AtomicU32>>,
}

impl Samples {
    /// `count` answers for each request.
    pub fn new(count: NonZeroU32) -> Self {
        Self {
            count,
            turns: Cache::new(TURNS_MAX),
        }
    }

    /// The number of answers for each request.
    pub fn count(&self) -> u32 {
        self.count.get()
    }

    /// The key of the next answer; each call moves on by one.
    pub(crate) fn next(&self, key: &Key) -> Key {
        if self.count.get() == 1 {
            return *key;
        }
        let turn = self.turns.get_with(key.digest, Arc::default);
        key.sample(turn.fetch_add(1, Ordering::Relaxed) % self.count)
    }
}

impl Default for Samples {
    fn default() -> Self {
        Self::new(NonZeroU32::MIN)
    }
}

impl fmt::Debug for Samples {
    /// Without the turns: they are named by keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::Tenant;

    #[test]
    fn each_request_has_turns_of_its_own() {
        let key = |digest: u8| Key {
            tenant: Tenant([1; 32]),
            digest: [digest; 32],
        };
        let samples = Samples::new(NonZeroU32::new(3).expect("not 0"));
        let of = |digest: u8| samples.next(&key(digest)).digest;
        let first = [of(1), of(1), of(1)];
        let other = [of(2), of(2), of(2)];
        assert_eq!(first[0], [1; 32]);
        assert_eq!(first, [of(1), of(1), of(1)]);
        let mut all = [first, other].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
        let one = Samples::default();
        assert_eq!(one.next(&key(1)), one.next(&key(1)));
    }
}
