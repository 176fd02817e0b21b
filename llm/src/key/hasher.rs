//! The only hasher that makes keys, and tenants.

use alloc::vec::Vec;
use core::fmt;

use blake3::hazmat::HasherExt as _;

/// Hashes named fields, each with its length in front.
///
/// A change of what keys cover bumps [`KeyHasher::VERSION`], and `tests/vectors` with it.
pub struct KeyHasher {
    hasher: blake3::Hasher,
    /// Holds less than [`BUFFER_BYTES`].
    buffer: Vec<u8>,
    /// All bytes that were hashed, for explanations of a key; none for a key alone.
    record: Option<Vec<u8>>,
}

/// The purpose of a hash, for BLAKE3's key derivation: no two kinds of hash are ever equal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    #[cfg(test)]
    name: &'static str,
    /// BLAKE3's hash of the name, which would be computed for each hash otherwise.
    hash: [u8; 32],
}

impl Context {
    pub(super) const KEY: Self = Self {
        #[cfg(test)]
        name: "reflex-edge key v2",
        hash: *b"\x16\x3a\x01\x90\xf7\x22\x04\x46\x10\xcb\xc4\xad\x28\x95\x0b\x52\x4f\x37\xb5\xc0\x9d\x6e\x5e\xb9\x88\x36\x9d\xf0\xef\x06\xea\x72",
    };
    pub(super) const SAMPLE: Self = Self {
        #[cfg(test)]
        name: "reflex-edge sample v1",
        hash: *b"\x9a\x33\x67\xff\x4e\xe1\x48\x98\x6e\xdd\xc4\x6d\xf8\x08\x85\x6b\xf3\x6e\x19\x7b\x5a\x20\x40\xbd\x28\x80\x6b\x2b\xe8\x3f\xe8\x75",
    };
    pub(crate) const UNTOLD: Self = Self {
        #[cfg(test)]
        name: "reflex-edge untold v1",
        hash: *b"\x84\x02\x32\x73\xff\x0f\xfd\xbe\xb6\x63\x1d\x3b\x23\x76\xbe\x82\x69\xd3\x59\xd6\xef\xd2\x0e\xad\xb5\xec\x86\xe3\x17\x8f\x00\x3e",
    };
    pub(crate) const TENANT: Self = Self {
        #[cfg(test)]
        name: "reflex-edge tenant v1",
        hash: *b"\xf0\x23\xe1\xf1\xca\x1e\xee\x36\xa5\xf3\x63\xd2\x75\x4c\x5a\x70\xfb\x6b\x73\x07\xc6\x77\x7b\x7f\xa8\x18\x56\xfe\x92\x0a\x46\x00",
    };
}

/// BLAKE3 is fastest with many whole chunks of 1 KiB at once, one for each lane of a register. It
/// only gets multiples of this, and the rest at the end.
const BUFFER_BYTES: usize = 16 << 10;

/// Room for the fields of a tenant or a sample.
const FEW_BYTES: usize = 256;

impl KeyHasher {
    /// Part of the derivation context, so that keys of different versions always differ.
    pub const VERSION: u32 = 2;

    /// A hasher without fields.
    pub fn new() -> Self {
        Self::derive(&Context::KEY, FEW_BYTES)
    }

    /// A hasher without fields, of which this many bytes are expected.
    pub(crate) fn expecting(bytes: usize) -> Self {
        Self::derive(&Context::KEY, bytes.min(BUFFER_BYTES))
    }

    /// The same for a caller that asks what was hashed, with [`into_record`](Self::into_record).
    pub(crate) fn recording(bytes: usize) -> Self {
        Self {
            record: Some(Vec::new()),
            ..Self::expecting(bytes)
        }
    }

    /// All bytes that were hashed, once the digest is made. Empty unless the hasher
    /// [records](Self::recording).
    pub(crate) fn into_record(self) -> Vec<u8> {
        self.record.unwrap_or_default()
    }

    /// For the hashes beside the key that are made the same way.
    pub(crate) fn for_few(context: &Context) -> Self {
        Self::derive(context, FEW_BYTES)
    }

    fn derive(context: &Context, room: usize) -> Self {
        Self {
            hasher: blake3::Hasher::new_from_context_key(&context.hash),
            buffer: Vec::with_capacity(room),
            record: None,
        }
    }

    /// Adds one field. Lengths go in first, so ("ab", "c") and ("a", "bc") differ.
    pub fn field(&mut self, name: &str, value: &[u8]) -> &mut Self {
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

    pub(crate) fn close(&mut self) -> [u8; 32] {
        self.flush();
        *self.hasher.finalize().as_bytes()
    }

    /// The digest with one more field, whose length is known only once it is written. It reaches
    /// to the end of the input, and the length in front of it says so: `u64::MAX`, which no
    /// other field has. Nothing may be added afterwards.
    pub(crate) fn finish_with(&mut self, name: &str, write: impl FnOnce(&mut Self)) -> [u8; 32] {
        self.write(&(name.len() as u64).to_le_bytes());
        self.write(name.as_bytes());
        self.write(&u64::MAX.to_le_bytes());
        write(self);
        self.close()
    }

    /// Adds one byte to the field that is being written.
    #[inline]
    pub(crate) fn push(&mut self, byte: u8) {
        self.buffer.push(byte);
        if self.buffer.len() == BUFFER_BYTES {
            self.flush();
        }
    }

    /// Adds bytes to the field that is being written.
    #[inline]
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if bytes.len() < BUFFER_BYTES - self.buffer.len() {
            self.buffer.extend_from_slice(bytes);
        } else {
            self.write_over(bytes);
        }
    }

    /// The same with more bytes than the buffer has space for.
    fn write_over(&mut self, mut bytes: &[u8]) {
        let space = BUFFER_BYTES - self.buffer.len();
        if space < BUFFER_BYTES {
            let (head, tail) = bytes.split_at(space);
            self.buffer.extend_from_slice(head);
            self.flush();
            bytes = tail;
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % BUFFER_BYTES);
        self.hasher.update(whole);
        if let Some(record) = &mut self.record {
            record.extend_from_slice(whole);
        }
        self.buffer.extend_from_slice(rest);
    }

    fn flush(&mut self) {
        self.hasher.update(&self.buffer);
        if let Some(record) = &mut self.record {
            record.extend_from_slice(&self.buffer);
        }
        self.buffer.clear();
    }
}

/// Writes a field as it is hashed.
pub(crate) fn write_field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 16);
    for part in [name.as_bytes(), value] {
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        out.extend_from_slice(part);
    }
}

/// The fields that were written so, by name.
pub(crate) fn read_fields(mut fields: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
    let mut next = move || {
        let (length, rest) = fields.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (part, rest) = rest.split_at_checked(length)?;
        fields = rest;
        Some(part)
    };
    core::iter::from_fn(move || {
        let name = core::str::from_utf8(next()?).ok()?;
        Some((name, next()?))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_of_contexts_are_those_of_their_names() {
        for context in [
            Context::KEY,
            Context::SAMPLE,
            Context::UNTOLD,
            Context::TENANT,
        ] {
            let hash = blake3::hazmat::hash_derive_key_context(context.name);
            assert_eq!(hash, context.hash, "{}", context.name);
        }
    }
}
