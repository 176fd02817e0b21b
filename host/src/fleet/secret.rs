//! The fleet's secret: names that say nothing, and proofs that a member wrote what is read.
//!
//! Other programs may read and write in the same Redis. A name there is a keyed hash, so it neither tells
//! a prompt nor can be guessed for one. A value carries a keyed hash over its name and all its bytes.

use blake3::Hasher;
use std::fmt;

const ROOT: &str = "reflex-edge fleet secret v1";
const NAMES: &str = "reflex-edge fleet names v1";
const PROOFS: &str = "reflex-edge fleet proofs v1";

/// Length of a proof in bytes.
pub(super) const PROOF_BYTES: usize = 32;

/// The keys of one fleet.
#[derive(Clone)]
pub(crate) struct Secret {
    names: [u8; 32],
    proofs: [u8; 32],
}

/// A name within the fleet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Name(pub(super) [u8; 32]);

impl Secret {
    /// All edges with the same text are one fleet.
    pub(crate) fn of(text: &[u8]) -> Self {
        let root = blake3::derive_key(ROOT, text);
        Self {
            names: blake3::derive_key(NAMES, &root),
            proofs: blake3::derive_key(PROOFS, &root),
        }
    }

    /// The name of what these parts describe.
    pub(super) fn name(&self, parts: &[&[u8]]) -> Name {
        Name(*keyed(&self.names, parts).as_bytes())
    }

    /// The proof that a member of the fleet has written these bytes under that name.
    pub(super) fn proof(&self, name: &Name, bytes: &[u8]) -> [u8; PROOF_BYTES] {
        *keyed(&self.proofs, &[&name.0, bytes]).as_bytes()
    }

    /// Whether that is so. Takes the same time wherever the proofs differ.
    pub(super) fn proves(&self, name: &Name, bytes: &[u8], proof: &[u8; PROOF_BYTES]) -> bool {
        keyed(&self.proofs, &[&name.0, bytes]) == *proof
    }
}

/// Lengths go in first, so ("ab", "c") and ("a", "bc") differ.
fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = Hasher::new_keyed(key);
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

impl Name {
    /// As it is written in Redis.
    pub(super) fn written(&self, prefix: &str) -> String {
        let mut text = format!("{prefix}:v1:");
        for byte in self.0 {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }
}

impl fmt::Debug for Secret {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for Name {
    /// Without the bytes: they belong to a prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Name(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_proofs_belong_to_one_fleet() {
        let (ours, theirs) = (Secret::of(b"ours"), Secret::of(b"theirs"));
        let name = ours.name(&[b"ab", b"c"]);
        assert!(name == Secret::of(b"ours").name(&[b"ab", b"c"]));
        assert!(name != ours.name(&[b"a", b"bc"]));
        assert!(name != theirs.name(&[b"ab", b"c"]));
        let proof = ours.proof(&name, b"bytes");
        assert!(ours.proves(&name, b"bytes", &proof));
        assert!(!ours.proves(&name, b"bytez", &proof));
        assert!(!ours.proves(&ours.name(&[b"other"]), b"bytes", &proof));
        assert!(!theirs.proves(&name, b"bytes", &proof));
    }

    #[test]
    fn a_name_is_written_as_the_prefix_the_version_and_64_digits() {
        let written = Name([0xa5; 32]).written("reflex");
        assert_eq!(written, format!("reflex:v1:{}", "a5".repeat(32)));
    }
}
