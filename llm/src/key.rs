//! The key of an exchange, and the only hasher that makes one.

use alloc::vec::Vec;
use core::fmt;

use crate::Tenant;

/// Under which an answer is stored. Equal keys mean interchangeable answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Whose answer it is. The digest covers it; it goes along so that a store can purge by it.
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
        let mut hasher = KeyHasher::derive("reflex-edge sample v1");
        hasher
            .field("request", &self.digest)
            .field("number", &number.to_le_bytes());
        Self {
            tenant: self.tenant,
            digest: hasher.finish(),
        }
    }
}

/// Says nothing: with a guessable prompt a key in a log would be an oracle.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(..)")
    }
}

/// Hashes named fields, each with its length in front.
///
/// A change of what keys cover bumps [`KeyHasher::VERSION`], and `tests/vectors` with it.
pub struct KeyHasher {
    hasher: blake3::Hasher,
    /// Holds less than [`BUFFER_BYTES`].
    buffer: Vec<u8>,
}

/// Fields are small and BLAKE3 likes whole chunks of 1 KiB, four at a time where SIMD is
/// 128 bits wide: it is only ever handed multiples of this.
const BUFFER_BYTES: usize = 4096;

impl KeyHasher {
    /// Stands in the derivation context, so that no key of one version equals one of another.
    pub const VERSION: u32 = 1;

    /// A hasher without fields.
    pub fn new() -> Self {
        Self::derive("reflex-edge key v1")
    }

    /// For the hashes beside the key that are made the same way.
    pub(crate) fn derive(context: &str) -> Self {
        Self {
            hasher: blake3::Hasher::new_derive_key(context),
            buffer: Vec::with_capacity(BUFFER_BYTES),
        }
    }

    /// Adds one field. Lengths go in first, so ("ab", "c") and ("a", "bc") differ.
    pub fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
        // Fields beside the body are short: there is room for most of them.
        if self.buffer.len() + name.len() + value.len() + 16 < BUFFER_BYTES {
            write_field(&mut self.buffer, name, value);
            return self;
        }
        for part in [name.as_bytes(), value] {
            self.write(&(part.len() as u64).to_le_bytes());
            self.write(part);
        }
        self
    }

    /// The digest of all fields.
    pub fn finish(mut self) -> [u8; 32] {
        self.close()
    }

    fn close(&mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        *self.hasher.finalize().as_bytes()
    }

    /// The digest with one more field, whose length is known only once it is written. It reaches
    /// to the end of the input, and the length in front of it says so: `u64::MAX`, which no
    /// other field has.
    pub(crate) fn finish_with(mut self, name: &str, write: impl FnOnce(&mut Self)) -> [u8; 32] {
        self.write(&(name.len() as u64).to_le_bytes());
        self.write(name.as_bytes());
        self.write(&u64::MAX.to_le_bytes());
        write(&mut self);
        self.close()
    }

    /// Adds one byte to the field that is being written.
    pub(crate) fn push(&mut self, byte: u8) {
        self.buffer.push(byte);
        if self.buffer.len() == BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// Adds bytes to the field that is being written.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) {
        let space = BUFFER_BYTES - self.buffer.len();
        if bytes.len() >= space {
            if space < BUFFER_BYTES {
                let (head, tail) = bytes.split_at(space);
                self.buffer.extend_from_slice(head);
                self.hasher.update(&self.buffer);
                self.buffer.clear();
                bytes = tail;
            }
            let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BUFFER_BYTES);
            self.hasher.update(whole);
            bytes = rest;
        }
        self.buffer.extend_from_slice(bytes);
    }
}

/// Writes a field as it is hashed.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), value] {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
}

impl Default for KeyHasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("KeyHasher(..)")
    }
}
