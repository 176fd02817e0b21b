//! Which purge the shared entries of a scope are from: a version, and a random number beside it.
//!
//! A bare counter would not do. A Redis that fails over or is restored forgets increments, and the next
//! one would name again what was purged before. The random number makes each purge's names its own.

use ring::rand::{SecureRandom as _, SystemRandom};

/// Length of a generation in bytes.
pub(super) const GENERATION_BYTES: usize = 8 + NONCE_BYTES;

const NONCE_BYTES: usize = 16;

/// The state of a scope after a purge. The default is that of a scope that was never purged. Of two, the
/// greater one counts: it has the higher version, or was drawn at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Generation {
    pub(super) version: u64,
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl Generation {
    /// After one more purge.
    pub(super) fn next(self) -> Self {
        Self {
            version: self.version.saturating_add(1),
            nonce: random(),
        }
    }

    pub(super) fn to_bytes(self) -> [u8; GENERATION_BYTES] {
        let mut bytes = [0; GENERATION_BYTES];
        let (version, nonce) = bytes.split_at_mut(8);
        version.copy_from_slice(&self.version.to_le_bytes());
        nonce.copy_from_slice(&self.nonce);
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; GENERATION_BYTES]) -> Self {
        let mut generation = Self::default();
        let (version, nonce) = bytes.split_at(8);
        for (to, from) in generation.nonce.iter_mut().zip(nonce) {
            *to = *from;
        }
        let version = version.iter().rev();
        generation.version = version.fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        generation
    }
}

/// Random bytes of the system's.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails only where the system has no random numbers at all, and then TLS fails as well. Versions
    // still differ.
    let _ = SystemRandom::new().fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_purge_has_a_greater_generation_of_its_own() {
        let first = Generation::default().next();
        let (one, other) = (first.next(), first.next());
        assert!(Generation::default() < first && first < one && first < other);
        assert_ne!(one, other);
        assert_eq!(Generation::from_bytes(one.to_bytes()), one);
    }
}
