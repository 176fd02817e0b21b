//! The key of an entry: tenant, namespace and digest.

use blake3::Hasher;
use blake3::hazmat::{ContextKey, HasherExt, hash_derive_key_context};
use std::fmt;
use std::sync::LazyLock;

const ENTRY_CONTEXT: &str = "reflex-edge entry v1";

/// Hashed once, because each lookup makes a key.
static ENTRY_CONTEXT_KEY: LazyLock<ContextKey> =
    LazyLock::new(|| hash_derive_key_context(ENTRY_CONTEXT));

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
        let mut hasher = Hasher::new_from_context_key(&ENTRY_CONTEXT_KEY);
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
    /// Without the bytes: they would reveal a guessable prompt.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or everything that was stored before would be gone.
    #[test]
    fn a_key_stays_what_it_was() {
        let mut hasher = Hasher::new_derive_key(ENTRY_CONTEXT);
        let fields: [&[u8]; 3] = [b"app", &[1; 32], &[2; 32]];
        for field in fields {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        let key = CacheKey::new("app", &[1; 32], &[2; 32]);
        assert_eq!(key.as_bytes(), hasher.finalize().as_bytes());
    }
}
