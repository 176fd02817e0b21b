//! The key of an exchange.

pub(crate) mod canonical;
mod hasher;

pub use hasher::KeyHasher;
pub(crate) use hasher::{Context, read_fields, write_field};

use core::fmt;

use crate::Tenant;

/// The key under which an answer is stored. Equal keys mean interchangeable answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The tenant. The digest covers it; it is kept separately so that a store can purge by it.
    pub tenant: Tenant,
    /// BLAKE3 over everything that can change the answer.
    pub digest: [u8; 32],
}

impl Key {
    /// The key of a bare prompt, for programs that use the cache as a library.
    pub fn for_prompt(tenant: &Tenant, prompt: &str) -> Self {
        let mut hasher = KeyHasher::new();
        hasher
            .field("tenant", &tenant.0)
            .field("shape", b"prompt")
            .field("prompt", prompt.as_bytes());
        Self {
            tenant: *tenant,
            digest: hasher.finish(),
        }
    }

    /// The key of a value that a program keeps under a key of its own in a bucket, as with
    /// `wasi:keyvalue`.
    pub fn for_item(tenant: &Tenant, bucket: &str, key: &str) -> Self {
        let mut hasher = KeyHasher::new();
        hasher
            .field("tenant", &tenant.0)
            .field("shape", b"item")
            .field("bucket", bucket.as_bytes())
            .field("key", key.as_bytes());
        Self {
            tenant: *tenant,
            digest: hasher.finish(),
        }
    }

    /// The key of one of several answers that are kept for one request, numbered from 0. The first
    /// has the request's own key, so that it is found whether others are kept or not.
    pub fn sample(&self, number: u32) -> Self {
        if number == 0 {
            return *self;
        }
        let mut hasher = KeyHasher::for_few(&Context::SAMPLE);
        hasher
            .field("request", &self.digest)
            .field("number", &number.to_le_bytes());
        Self {
            tenant: self.tenant,
            digest: hasher.finish(),
        }
    }
}

/// Shows nothing: with a guessable prompt, a key in a log would reveal it.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}
