//! Encryption at rest: metadata and payload of each record are sealed with AES-256-GCM.
//!
//! ```text
//! key of the operator ─┐
//! tenant, its secret ──┴► tenant's key ─┐
//! salt of the record ───────────────────┴► record's key ─► nonce 0: metadata, nonce 1: payload
//! ```
//!
//! *Nonces.* A record's key is made of 192 random bits of the operating system, which are drawn for each
//! write and stored in the record. It seals two messages, with the nonces 0 and 1. What is written again,
//! at another place or under another key of the operator's, is opened and sealed anew, with a new salt.
//! No counter has to survive anything: an old copy of the folder that is used again repeats no salt. With
//! 2^48 records, two have the same salt with a probability below 2^-96.
//!
//! *Forgetting.* Each tenant has a random secret in the file `tenant_secrets`. Without it, no key of the
//! operator's opens the tenant's records.
//!
//! *In place.* The tags cover the header and the place of the record. What is in the mapping stays sealed; it
//! is copied, and opened in the copy, and nothing of it is given out before both tags are right.

#[cfg(feature = "encryption")]
mod aead;
#[cfg(not(feature = "encryption"))]
#[path = "encryption/absent.rs"]
mod aead;
mod check;
mod keys;
mod secrets;
#[cfg(all(test, feature = "encryption"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;
mod vault;

pub(crate) use check::check;
pub use keys::EncryptionKeys;
pub(crate) use secrets::Secrets;
pub(crate) use vault::{Sealed, Unopened, Vault};

use std::fmt;

/// Key material. Overwritten when it is dropped.
#[derive(Clone, PartialEq, Eq)]
struct Wiped([u8; 32]);

impl Drop for Wiped {
    fn drop(&mut self) {
        aead::wipe(&mut self.0);
    }
}

impl fmt::Debug for Wiped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wiped")
    }
}
