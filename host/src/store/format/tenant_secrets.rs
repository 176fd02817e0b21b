//! The bytes of the file `tenant_secrets`: a random secret for each tenant, without which the tenant's
//! records cannot be opened.
//!
//! A block, and then slots of 128 bytes. A slot is written in place, and lies within one sector: the
//! slots beside it stay whole. A slot of zeros is free.

use super::{BLOCK_BYTES, Reject, StoreId, close, open, put, take};

const MAGIC: [u8; 8] = *b"RFXTSECR";
const STORE_ID: usize = 16;

/// Bound of the tenants with a secret of their own: 8 MiB on disk. Further ones share one.
pub(crate) const SECRETS_MAX: usize = 1 << 16;

pub(crate) const SLOT_BYTES: usize = 128;

/// The slot of the secret that tenants share.
pub(crate) const COMMON_SLOT: u32 = 0;

/// The longest such file.
pub(crate) const SECRETS_BYTES_MAX: usize = BLOCK_BYTES + (SECRETS_MAX + 1) * SLOT_BYTES;

const TENANT: usize = 0;
const SECRET: usize = 32;
const CHECKSUM: usize = 64;

const _: () = assert!(512 % SLOT_BYTES == 0 && BLOCK_BYTES.is_multiple_of(512));

/// What a slot holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Free,
    /// A tenant, and its secret.
    Taken([u8; 32], [u8; 32]),
    /// It was torn, or altered.
    Damaged,
}

/// The block before the slots.
pub(crate) fn secrets_head(store: &StoreId) -> [u8; BLOCK_BYTES] {
    let mut bytes = [0; BLOCK_BYTES];
    put(&mut bytes, STORE_ID, &store.0);
    close(&mut bytes, MAGIC, 0);
    bytes
}

/// Where a slot begins in the file.
pub(crate) fn slot_at(number: u32) -> u64 {
    (BLOCK_BYTES + number as usize * SLOT_BYTES) as u64
}

pub(crate) fn encode_slot(
    store: &StoreId,
    number: u32,
    tenant: &[u8; 32],
    secret: &[u8; 32],
) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    put(&mut bytes, TENANT, tenant);
    put(&mut bytes, SECRET, secret);
    let checksum = checksum(store, number, &bytes);
    put(&mut bytes, CHECKSUM, &checksum.to_le_bytes());
    bytes
}

/// Salted with the store and the place, and never that of zeros.
fn checksum(store: &StoreId, number: u32, slot: &[u8; SLOT_BYTES]) -> u64 {
    let mut bytes = [0; 16 + 4 + CHECKSUM];
    put(&mut bytes, 0, &store.0);
    put(&mut bytes, 16, &number.to_le_bytes());
    put(&mut bytes, 20, &slot[..CHECKSUM]);
    crc_fast::crc64_nvme(&bytes)
}

/// The slots of a file of this very store. A slot that is cut at the end of the file is damaged.
pub(crate) fn slots_of(bytes: &[u8], store: &StoreId) -> Result<Vec<Slot>, Reject> {
    if bytes.len() < BLOCK_BYTES {
        return Err(Reject::Torn);
    }
    let (head, slots) = bytes.split_at(BLOCK_BYTES);
    open(head, MAGIC, 0)?;
    if take::<16>(head, STORE_ID) != store.0 {
        return Err(Reject::NotOurs);
    }
    let slots = slots.chunks(SLOT_BYTES).take(SECRETS_MAX + 1);
    Ok((0..).zip(slots).map(|it| slot_of(it, store)).collect())
}

fn slot_of((number, bytes): (u32, &[u8]), store: &StoreId) -> Slot {
    if bytes.iter().all(|byte| *byte == 0) {
        return Slot::Free;
    }
    let Some(bytes) = bytes.first_chunk::<SLOT_BYTES>() else {
        return Slot::Damaged;
    };
    let (tenant, secret) = (take(bytes, TENANT), take(bytes, SECRET));
    match encode_slot(store, number, &tenant, &secret) == *bytes {
        true => Slot::Taken(tenant, secret),
        false => Slot::Damaged,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([3; 16]);

    fn file() -> Vec<u8> {
        let mut bytes = secrets_head(&STORE).to_vec();
        bytes.extend_from_slice(&[0; SLOT_BYTES]);
        for number in 1..5 {
            let (tenant, secret) = ([number as u8; 32], [number as u8 + 100; 32]);
            bytes.extend_from_slice(&encode_slot(&STORE, number, &tenant, &secret));
        }
        bytes
    }

    #[test]
    fn what_was_written_is_read_again() {
        let slots = slots_of(&file(), &STORE).unwrap();
        assert_eq!(slots.len(), 5);
        assert_eq!(slots[0], Slot::Free);
        for number in 1..5 {
            let expected = Slot::Taken([number; 32], [number + 100; 32]);
            assert_eq!(slots[number as usize], expected);
        }
        assert_eq!(
            slots_of(&file(), &StoreId([4; 16])).unwrap_err(),
            Reject::NotOurs
        );
        assert!(file().len() < SECRETS_BYTES_MAX);
        assert_eq!(slot_at(5), file().len() as u64);
    }

    #[test]
    fn a_flipped_byte_or_a_cut_costs_one_slot_or_the_file_and_gives_no_other_secret() {
        let whole = file();
        let expected = slots_of(&whole, &STORE).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            for bytes in [&flipped[..], &whole[..at]] {
                let Ok(slots) = slots_of(bytes, &STORE) else {
                    assert!(at <= BLOCK_BYTES, "byte {at}");
                    continue;
                };
                assert!(at >= BLOCK_BYTES, "byte {at}");
                for (slot, expected) in slots.iter().zip(&expected) {
                    assert!(slot == expected || *slot == Slot::Damaged, "byte {at}");
                }
                let damaged = slots.iter().filter(|slot| **slot == Slot::Damaged);
                assert!(damaged.count() <= 1, "byte {at}");
            }
        }
    }

    /// Bytes of another slot are no slot.
    #[test]
    fn a_slot_counts_in_its_place_alone() {
        let mut bytes = file();
        let (from, to) = (slot_at(1) as usize, slot_at(2) as usize);
        bytes.copy_within(from..from + SLOT_BYTES, to);
        assert_eq!(slots_of(&bytes, &STORE).unwrap()[2], Slot::Damaged);
    }
}
