//! Misses of one worker whose keys split: counted, and told once for each name.

use reflex_llm::{Prepared, Split, Splits, Traits};

use crate::hashes::Seeded;

/// Misses that are remembered. At most 128 KiB in each worker.
const RECENT_MAX: usize = 128;

/// What a worker remembers of its misses.
#[derive(Debug)]
pub struct KeySplits {
    seed: Seeded,
    splits: Splits,
    /// Lines for the log. Names are told once, and their number is bounded.
    lines: Vec<String>,
}

impl KeySplits {
    /// Remembers no miss yet.
    pub fn new(seed: u64) -> Self {
        Self {
            seed: Seeded::new(seed),
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
