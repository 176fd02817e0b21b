//! How keys are hashed for the maps in memory. These hashes never reach the disk.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes keys. A key is the output of BLAKE3, so any of its bytes are as good as a hash of all of
/// them, unless an attacker chooses them. The hash of a prompt is no secret, and 2^20 tries find
/// prompts for the same bucket. So two secret words of this process are mixed in, by one
/// multiplication, which is the whole cost.
#[derive(Clone)]
pub(crate) struct KeyState {
    secrets: [u64; 2],
}

impl KeyState {
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        Self {
            secrets: [random.hash_one(0), random.hash_one(1)],
        }
    }
}

impl BuildHasher for KeyState {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher {
            secrets: self.secrets,
            hash: 0,
        }
    }
}

pub(crate) struct KeyHasher {
    secrets: [u64; 2],
    hash: u64,
}

impl Hasher for KeyHasher {
    /// The 32 bytes of a key; the length, which comes first, is always the same.
    fn write(&mut self, bytes: &[u8]) {
        if let Some(bytes) = bytes.first_chunk::<16>() {
            let word = u128::from_le_bytes(*bytes);
            let low = word as u64 ^ self.secrets[0];
            let high = (word >> 64) as u64 ^ self.secrets[1];
            let product = u128::from(low) * u128::from(high);
            self.hash ^= product as u64 ^ (product >> 64) as u64;
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_anywhere_in_their_first_half_hash_differently() {
        let state = KeyState::new();
        let mut hashes: Vec<_> = (0..128)
            .map(|bit| {
                let mut key = *blake3::hash(b"p").as_bytes();
                key[bit / 8] ^= 1 << (bit % 8);
                state.hash_one(key)
            })
            .collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 128);
    }
}
