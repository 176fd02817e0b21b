//! The hashers of this module's maps. The standard library's is slow for such short names, and its seed
//! is the same in every module here: `wasm32-unknown-unknown` has no source of random bytes.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::{FoldHasher, SeedableRandomState};

/// A map by numbers that Envoy, or the worker, counts up. Clients do not choose them.
pub type CountedMap<N, T> = HashMap<N, T, BuildHasherDefault<Counted>>;

/// A map by names that clients may choose, as digests are: they can make those of many requests and
/// send the requests whose places collide.
pub type ChosenMap<N, T> = HashMap<N, T, Seeded>;

/// A map by hashes that are made with a seed already.
pub type HashedMap<T> = HashMap<u64, T, BuildHasherDefault<Hashed>>;

/// An odd number whose bits look random: the golden ratio of 2^64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixed with the seed of each map.
static SHARED: SharedSeed = SharedSeed::from_u64(GOLDEN);

/// Spreads one number.
#[derive(Debug, Default)]
pub struct Counted(u64);

impl Hasher for Counted {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(GOLDEN);
    }

    fn finish(&self) -> u64 {
        // Maps take the highest and the lowest bits; the lowest of a product are the worst.
        self.0.rotate_left(32)
    }
}

/// Takes a hash as it is.
#[derive(Debug, Default)]
pub struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashers with a seed that clients do not know.
#[derive(Clone)]
pub struct Seeded(SeedableRandomState);

impl Seeded {
    /// `seed` is to be hard to guess.
    pub fn new(seed: u64) -> Self {
        Self(SeedableRandomState::with_seed(seed, &SHARED))
    }
}

impl Default for Seeded {
    fn default() -> Self {
        Self::new(0)
    }
}

impl BuildHasher for Seeded {
    type Hasher = FoldHasher<'static>;

    fn build_hasher(&self) -> Self::Hasher {
        self.0.build_hasher()
    }
}

/// Without the seed.
impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::Hash;

    use super::*;

    fn of<T: Hash>(hasher: &impl BuildHasher, what: T) -> u64 {
        hasher.hash_one(what)
    }

    #[test]
    fn numbers_in_a_row_differ_in_the_bits_that_maps_look_at() {
        let hasher = BuildHasherDefault::<Counted>::default();
        let low: HashSet<u64> = (0..4096_u32).map(|it| of(&hasher, it) & 0xfff).collect();
        let high: HashSet<u64> = (0..4096_u32).map(|it| of(&hasher, it) >> 57).collect();
        assert!(low.len() > 2048, "{}", low.len());
        assert_eq!(high.len(), 128);
    }

    #[test]
    fn a_seed_decides_where_a_digest_stands() {
        let digest = [7_u8; 32];
        let places: HashSet<u64> = (0..64).map(|seed| of(&Seeded::new(seed), digest)).collect();
        assert_eq!(places.len(), 64);
        assert_eq!(of(&Seeded::new(1), digest), of(&Seeded::new(1), digest));
        assert_ne!(of(&Seeded::new(1), digest), of(&Seeded::new(1), [8_u8; 32]));
        assert_eq!(format!("{:?}", Seeded::new(77)), "Seeded(..)");
    }
}
