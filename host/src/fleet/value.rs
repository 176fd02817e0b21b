//! A shared entry as bytes. Each value proves by itself whose it is, and that a member of the fleet has
//! written it, whole, under this name.
//!
//! ```text
//! version u8 = 1 | kind u8 = 1 | key 32 | tenant 32 | tenant's generation 24
//!     | stored at u64 | expires at u64 | metadata u32 | payload u32 | metadata | payload | proof 32
//! version u8 = 1 | kind u8 = 2 | proof 32                       an entry that was removed lately
//! ```
//!
//! Integers are little-endian, times in milliseconds since 1970, and `u64::MAX` is never. The proof is over
//! the name and all bytes before it. The decoder accepts any bytes.

use super::generation::{GENERATION_BYTES, Generation};
use super::secret::{Name, PROOF_BYTES, Secret};
use crate::cache::CacheKey;

const VERSION: u8 = 1;
const ANSWER: u8 = 1;
const REMOVED: u8 = 2;

const HEAD_BYTES: usize = 2 + 32 + 32 + GENERATION_BYTES + 8 + 8 + 4 + 4;
const NEVER: u64 = u64::MAX;

/// What a value adds to metadata and payload.
pub(super) const OVERHEAD_BYTES: usize = HEAD_BYTES + PROOF_BYTES;

/// A shared entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'b> {
    pub(super) key: CacheKey,
    pub(super) tenant: [u8; 32],
    /// The tenant's, when the entry was shared.
    pub(super) generation: Generation,
    pub(super) stored_at_ms: u64,
    /// None: never.
    pub(super) expires_at_ms: Option<u64>,
    pub(super) metadata: &'b [u8],
    pub(super) payload: &'b [u8],
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) key: CacheKey,
    pub(super) tenant: [u8; 32],
    pub(super) generation: Generation,
}

/// What was found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'b> {
    Answer(Value<'b>),
    /// An edge has removed the entry; it is not to be shared for now.
    Removed,
    /// From before a purge of the tenant that is known here.
    Purged,
    /// From after a purge of the tenant of which this edge has not heard yet.
    Later,
}

/// Why bytes are no value of the fleet's under this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reject {
    /// More or fewer bytes than the value says, or another version.
    Shape,
    /// No member has written these bytes under this name.
    Proof,
    /// They are of another key or tenant.
    Foreign,
}

impl Value<'_> {
    /// The bytes to write under that name.
    pub(super) fn encode(&self, secret: &Secret, name: &Name) -> Vec<u8> {
        let length = OVERHEAD_BYTES + self.metadata.len() + self.payload.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend([VERSION, ANSWER]);
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.tenant);
        bytes.extend(self.generation.to_bytes());
        bytes.extend(self.stored_at_ms.to_le_bytes());
        bytes.extend(self.expires_at_ms.unwrap_or(NEVER).to_le_bytes());
        // Both are far below 4 GiB: `BYTES_MAX`.
        bytes.extend((self.metadata.len() as u32).to_le_bytes());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend(self.metadata);
        bytes.extend(self.payload);
        let proof = secret.proof(name, &bytes);
        bytes.extend(proof);
        bytes
    }
}

/// The bytes that stand for an entry that was removed.
pub(super) fn removed(secret: &Secret, name: &Name) -> Vec<u8> {
    let mut bytes = vec![VERSION, REMOVED];
    let proof = secret.proof(name, &bytes);
    bytes.extend(proof);
    bytes
}

/// Reads what is under a name.
pub(super) fn decode<'b>(
    secret: &Secret,
    name: &Name,
    expected: &Expected,
    bytes: &'b [u8],
) -> Result<Found<'b>, Reject> {
    let (bytes, proof) = bytes.split_last_chunk().ok_or(Reject::Shape)?;
    // First of all, so that nothing that follows reads what others wrote.
    if !secret.proves(name, bytes, proof) {
        return Err(Reject::Proof);
    }
    let mut rest = bytes;
    let [version, kind] = take(&mut rest)?;
    match (version, kind) {
        (VERSION, ANSWER) => {}
        (VERSION, REMOVED) if rest.is_empty() => return Ok(Found::Removed),
        _ => return Err(Reject::Shape),
    }
    let key = CacheKey::from_bytes(take(&mut rest)?);
    let tenant = take(&mut rest)?;
    let generation = Generation::from_bytes(take(&mut rest)?);
    let stored_at_ms = u64::from_le_bytes(take(&mut rest)?);
    let expires_at_ms = u64::from_le_bytes(take(&mut rest)?);
    let metadata = u32::from_le_bytes(take(&mut rest)?) as usize;
    let payload = u32::from_le_bytes(take(&mut rest)?) as usize;
    if metadata.checked_add(payload) != Some(rest.len()) {
        return Err(Reject::Shape);
    }
    if key != expected.key || tenant != expected.tenant {
        return Err(Reject::Foreign);
    }
    let (metadata, payload) = rest.split_at(metadata);
    if generation != expected.generation {
        return Ok(match generation > expected.generation {
            true => Found::Later,
            false => Found::Purged,
        });
    }
    Ok(Found::Answer(Value {
        key,
        tenant,
        generation,
        stored_at_ms,
        expires_at_ms: Some(expires_at_ms).filter(|at| *at != NEVER),
        metadata,
        payload,
    }))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Reject> {
    let (head, tail) = rest.split_first_chunk().ok_or(Reject::Shape)?;
    *rest = tail;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey::from_bytes([1; 32]);

    fn secret() -> Secret {
        Secret::of(b"fleet")
    }

    fn name(of: u8) -> Name {
        secret().name(&[&[of]])
    }

    fn expected() -> Expected {
        Expected {
            key: KEY,
            tenant: [2; 32],
            generation: Generation {
                version: 3,
                nonce: [4; 16],
            },
        }
    }

    fn value() -> Value<'static> {
        Value {
            key: KEY,
            tenant: [2; 32],
            generation: expected().generation,
            stored_at_ms: 5,
            expires_at_ms: Some(6),
            metadata: b"head",
            payload: b"the answer",
        }
    }

    fn read(bytes: &[u8]) -> Result<Found<'_>, Reject> {
        decode(&secret(), &name(1), &expected(), bytes)
    }

    #[test]
    fn what_was_shared_comes_back() {
        let check = |value: Value<'_>| {
            let bytes = value.encode(&secret(), &name(1));
            let length = OVERHEAD_BYTES + value.metadata.len() + value.payload.len();
            assert_eq!(bytes.len(), length);
            assert_eq!(read(&bytes), Ok(Found::Answer(value)));
        };
        check(value());
        check(Value {
            expires_at_ms: None,
            metadata: b"",
            payload: b"",
            ..value()
        });
        assert_eq!(read(&removed(&secret(), &name(1))), Ok(Found::Removed));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        for whole in [
            value().encode(&secret(), &name(1)),
            removed(&secret(), &name(1)),
        ] {
            for at in 0..whole.len() {
                for bit in 0..8 {
                    let mut bytes = whole.clone();
                    bytes[at] ^= 1 << bit;
                    assert_eq!(read(&bytes), Err(Reject::Proof), "bit {bit} of byte {at}");
                }
            }
        }
    }

    #[test]
    fn every_cut_and_every_tail_is_refused() {
        let whole = value().encode(&secret(), &name(1));
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
        assert!(read(&[&whole[..], b"x"].concat()).is_err());
        assert!(read(&[&whole[..], &whole[..]].concat()).is_err());
    }

    #[test]
    fn a_value_is_worth_nothing_under_another_name_or_in_another_fleet() {
        let whole = value().encode(&secret(), &name(1));
        let elsewhere = decode(&secret(), &name(2), &expected(), &whole);
        assert_eq!(elsewhere, Err(Reject::Proof));
        let other = Secret::of(b"other");
        assert_eq!(
            decode(&other, &name(1), &expected(), &whole),
            Err(Reject::Proof)
        );
        let removed = removed(&secret(), &name(2));
        assert_eq!(read(&removed), Err(Reject::Proof));
    }

    #[test]
    fn a_value_of_another_key_tenant_or_purge_is_no_answer() {
        let check = |value: Value<'_>, found| {
            let bytes = value.encode(&secret(), &name(1));
            assert_eq!(read(&bytes), found);
        };
        let key = CacheKey::from_bytes([9; 32]);
        check(Value { key, ..value() }, Err(Reject::Foreign));
        let tenant = [9; 32];
        check(Value { tenant, ..value() }, Err(Reject::Foreign));
        let generation = Generation::default();
        check(
            Value {
                generation,
                ..value()
            },
            Ok(Found::Purged),
        );
        let generation = expected().generation.next();
        check(
            Value {
                generation,
                ..value()
            },
            Ok(Found::Later),
        );
    }

    /// Members of another release may write anything.
    #[test]
    fn proven_bytes_of_another_shape_are_refused() {
        let check = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let proof = secret().proof(&name(1), &bytes);
            bytes.extend(proof);
            assert_eq!(read(&bytes), Err(Reject::Shape));
        };
        check(b"");
        check(&[VERSION]);
        check(&[VERSION, REMOVED, 0]);
        check(&[VERSION, 3]);
        check(&[2, ANSWER]);
        let whole = value().encode(&secret(), &name(1));
        let bare = &whole[..whole.len() - PROOF_BYTES];
        for cut in 2..bare.len() {
            check(&bare[..cut]);
        }
        check(&[bare, b"x"].concat());
        // Lengths whose sum overflows 32 bits.
        let mut bytes = bare.to_vec();
        bytes[HEAD_BYTES - 8..HEAD_BYTES].fill(0xff);
        check(&bytes);
    }
}
