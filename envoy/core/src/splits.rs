//! Misses of one worker whose keys split: counted, and told once for each name.

use std::hash::{BuildHasher, DefaultHasher, Hasher as _};

use reflex_llm::{Prepared, Split, Splits, Traits};

/// Misses that are remembered. At most 128 KiB in each worker.
const RECENT_MAX: usize = 128;

/// What a worker remembers of its misses.
#[derive(Debug)]
pub struct KeySplits {
    seed: Seed,
    splits: Splits,
    /// Lines for the log. Names are told once, and their number is bounded.
    lines: Vec<String>,
}

/// The standard library's random state is the same for all modules here, so this has a seed.
#[derive(Debug)]
struct Seed(u64);

impl BuildHasher for Seed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

impl KeySplits {
    /// Remembers no miss yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed: Seed(seed),
            splits: Splits::new(RECENT_MAX),
            lines: Vec::new(),
        }
    }

    /// The traits by which a miss with this body is compared.
    pub fn traits(&self, prepared: &Prepared, body: &[u8]) -> Option<Traits> {
        prepared.traits(body, &self.seed)
    }

    /// Takes in a miss, and tells by what it differs from another.
    pub fn note(&mut self, traits: &Traits) -> Vec<Split> {
        let splits = self.splits.note(traits);
        let new = splits.iter().filter(|split| split.is_new);
        self.lines.extend(new.map(Split::to_string));
        splits
    }

    /// Lines for the log, since the last time.
    pub fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
