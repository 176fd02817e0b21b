//! The key of an entry: who asks, in which namespace, for what.

use std::fmt;

const ENTRY_CONTEXT: &str = "reflex-edge entry v1";

/// The key of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    /// The key for `digest` within a namespace and a tenant. Two keys are equal only if all
    /// three are.
    ///
    /// ```
    /// use reflex_host::cache::CacheKey;
    ///
    /// let key = CacheKey::new("app", &[1; 32], &[2; 32]);
    /// assert_eq!(key, CacheKey::new("app", &[1; 32], &[2; 32]));
    /// assert_ne!(key, CacheKey::new("other", &[1; 32], &[2; 32]));
    /// ```
    pub fn new(namespace: &str, tenant: &[u8; 32], digest: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ENTRY_CONTEXT);
        for field in [namespace.as_bytes(), tenant, digest] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// A key made elsewhere, uniformly random like the output of a hash.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    /// Without the bytes: with a guessable prompt they would give it away.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}
