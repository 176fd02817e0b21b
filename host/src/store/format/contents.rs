//! The bytes of `.idx`: the contents of a sealed segment, so that opening a store need not
//! read all of it.
//!
//! Each record is encoded as its differences from the record before it, in numbers of 7 bits a
//! byte: some 43 bytes for a record of one tenant among few, where a fixed entry takes 104. The
//! contents are derived from the segment.

use super::{
    ALIGN, BLOCK_BYTES, HEADER_BYTES, Header, KEY_START_BYTES, Kind, NEVER, Reject, Seal, StoreId,
    close, open, put, take,
};
use std::collections::HashMap;

const MAGIC: [u8; 8] = *b"RFXINDEX";

const STORE_ID: usize = 16;
const SEGMENT_ID: usize = 32;
const SEGMENT_BYTES: usize = 40;
const RECORDS: usize = 48;
/// How many bytes all records take in here.
const LENGTH: usize = 56;
/// Here the records begin, one behind the other.
const START: usize = 64;
const CHECKSUM_BYTES: usize = 4;

const FLAG_TOMBSTONE: u8 = 1;
/// The record's body was found to be damaged.
const FLAG_DAMAGED: u8 = 2;
const FLAG_NEVER: u8 = 4;
/// The sequence is not one higher than that of the record before: the other log has those between.
const FLAG_GAP: u8 = 8;
/// The record is the first, or does not begin where the one before ends. The first bytes of the key
/// before it follow.
const FLAG_APART: u8 = 16;
const FLAGS: u8 = FLAG_TOMBSTONE | FLAG_DAMAGED | FLAG_NEVER | FLAG_GAP | FLAG_APART;

/// A record in the contents: its offset, its header without the body's checksum, and whether its
/// body was sound when last looked at.
pub(crate) type Listed = (u64, Header, bool);

/// No contents are longer than their segment and a block: a record here takes fewer bytes than
/// its header there.
pub(crate) fn contents_bytes_max(segment_bytes: u64) -> u64 {
    segment_bytes.saturating_add(BLOCK_BYTES as u64)
}

/// The state that the next record's differences refer to.
#[derive(Clone, Copy, Debug)]
struct Before {
    end: u64,
    sequence: u64,
    stored_at_ms: u64,
    ttl_ms: u64,
}

impl Before {
    const FIRST: Self = Self {
        end: BLOCK_BYTES as u64,
        sequence: 0,
        stored_at_ms: 0,
        ttl_ms: 0,
    };

    fn after(offset: u64, header: &Header) -> Self {
        Self {
            end: offset.saturating_add(header.shape().record_bytes()),
            sequence: header.sequence,
            stored_at_ms: header.stored_at_ms,
            ttl_ms: header.expires_at_ms.wrapping_sub(header.stored_at_ms),
        }
    }
}

/// Contents while they grow, record by record.
#[derive(Debug)]
pub(crate) struct Contents {
    bytes: Vec<u8>,
    records: u64,
    tenants: HashMap<[u8; 32], u64>,
    tombstones: Vec<[u8; 32]>,
    before: Before,
}

impl Default for Contents {
    fn default() -> Self {
        Self {
            bytes: vec![0; START],
            records: 0,
            tenants: HashMap::new(),
            tombstones: Vec::new(),
            before: Before::FIRST,
        }
    }
}

impl Contents {
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// The length of the whole file, had it `more` bytes of records.
    pub(crate) fn file_bytes(&self, more: u64) -> u64 {
        (self.bytes.len() as u64 + more + CHECKSUM_BYTES as u64)
            .next_multiple_of(BLOCK_BYTES as u64)
    }

    /// The keys of the tombstones so far.
    pub(crate) fn take_tombstones(&mut self) -> Vec<[u8; 32]> {
        std::mem::take(&mut self.tombstones)
    }

    /// Adds a record, which lies behind the last one added.
    pub(crate) fn add(&mut self, offset: u64, header: &Header, is_sound: bool) {
        let before = self.before;
        let is_gap = header.sequence != before.sequence.wrapping_add(1);
        let is_apart = self.records == 0 || offset != before.end;
        let mut flags = 0;
        for (flag, is_set) in [
            (FLAG_TOMBSTONE, header.kind == Kind::Tombstone),
            (FLAG_DAMAGED, !is_sound),
            (FLAG_NEVER, header.expires_at_ms == NEVER),
            (FLAG_GAP, is_gap),
            (FLAG_APART, is_apart),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        self.bytes.push(flags);
        self.number(offset.wrapping_sub(before.end) / ALIGN);
        self.number(header.metadata_bytes.into());
        self.number(header.payload_bytes.into());
        if is_gap {
            self.number(header.sequence.wrapping_sub(before.sequence));
        }
        if is_apart {
            self.bytes.extend_from_slice(&header.previous);
        }
        self.difference(before.stored_at_ms, header.stored_at_ms);
        let after = Before::after(offset, header);
        self.before = after;
        match header.expires_at_ms {
            NEVER => self.before.ttl_ms = before.ttl_ms,
            _ => self.difference(before.ttl_ms, after.ttl_ms),
        }
        let known = self.tenants.len() as u64;
        let tenant = *self.tenants.entry(header.tenant).or_insert(known);
        self.number(tenant);
        if tenant == known {
            self.bytes.extend_from_slice(&header.tenant);
        }
        self.bytes.extend_from_slice(&header.key);
        if header.kind == Kind::Tombstone {
            self.tombstones.push(header.key);
        }
        self.records += 1;
    }

    /// The whole file.
    pub(crate) fn encode(mut self, store: &StoreId, segment: u64, segment_bytes: u64) -> Vec<u8> {
        let length = (self.bytes.len() - START) as u64;
        let whole = (self.bytes.len() + CHECKSUM_BYTES).next_multiple_of(BLOCK_BYTES);
        self.bytes.resize(whole, 0);
        let bytes = &mut self.bytes;
        put(bytes, STORE_ID, &store.0);
        for (at, number) in [
            (SEGMENT_ID, segment),
            (SEGMENT_BYTES, segment_bytes),
            (RECORDS, self.records),
            (LENGTH, length),
        ] {
            put(bytes, at, &number.to_le_bytes());
        }
        close(bytes, MAGIC, 0);
        self.bytes
    }

    /// Reads the contents of this very segment.
    pub(crate) fn decode(
        bytes: &[u8],
        store: &StoreId,
        segment: u64,
        segment_bytes: u64,
    ) -> Result<Vec<Listed>, Reject> {
        if bytes.len() < BLOCK_BYTES || !bytes.len().is_multiple_of(BLOCK_BYTES) {
            return Err(Reject::Torn);
        }
        open(bytes, MAGIC, 0)?;
        let number = |at| u64::from_le_bytes(take(bytes, at));
        if take::<16>(bytes, STORE_ID) != store.0
            || number(SEGMENT_ID) != segment
            || number(SEGMENT_BYTES) != segment_bytes
        {
            return Err(Reject::NotOurs);
        }
        let end = usize::try_from(number(LENGTH))
            .ok()
            .and_then(|length| START.checked_add(length))
            .filter(|end| *end <= bytes.len() - CHECKSUM_BYTES)
            .ok_or(Reject::Corrupt)?;
        let mut reader = Reader {
            left: &bytes[START..end],
            is_first: true,
            tenants: Vec::new(),
            before: Before::FIRST,
            segment_bytes,
        };
        let mut records = Vec::new();
        while !reader.left.is_empty() {
            records.push(reader.record().ok_or(Reject::Corrupt)?);
        }
        if records.len() as u64 == number(RECORDS) {
            Ok(records)
        } else {
            Err(Reject::Corrupt)
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    /// Small when the two are close, whichever is larger.
    fn difference(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.number(((difference << 1) ^ (difference >> 63)) as u64);
    }
}

/// The records that are left to be read.
struct Reader<'a> {
    left: &'a [u8],
    is_first: bool,
    tenants: Vec<[u8; 32]>,
    before: Before,
    segment_bytes: u64,
}

impl Reader<'_> {
    /// `None` for bytes that no [`Contents`] wrote.
    fn record(&mut self) -> Option<Listed> {
        let before = self.before;
        let [flags] = self.bytes()?;
        if flags & !FLAGS != 0 {
            return None;
        }
        let gap = self.number()?.checked_mul(ALIGN)?;
        let offset = before.end.checked_add(gap)?;
        let metadata_bytes = u32::try_from(self.number()?).ok()?;
        let payload_bytes = u32::try_from(self.number()?).ok()?;
        let risen = match flags & FLAG_GAP {
            0 => 1,
            _ => self.number()?,
        };
        let sequence = before.sequence.wrapping_add(risen);
        let is_apart = std::mem::take(&mut self.is_first) || gap != 0;
        if is_apart != (flags & FLAG_APART != 0) {
            return None;
        }
        let previous = match is_apart {
            false => [0; KEY_START_BYTES],
            true => self.bytes()?,
        };
        let stored_at_ms = self.difference(before.stored_at_ms)?;
        let expires_at_ms = match flags & FLAG_NEVER {
            0 => stored_at_ms.wrapping_add(self.difference(before.ttl_ms)?),
            _ => NEVER,
        };
        let tenant = usize::try_from(self.number()?).ok()?;
        if tenant == self.tenants.len() {
            let new = self.bytes()?;
            self.tenants.push(new);
        }
        let header = Header {
            seal: Seal::None,
            kind: match flags & FLAG_TOMBSTONE {
                0 => Kind::Entry,
                _ => Kind::Tombstone,
            },
            metadata_bytes,
            payload_bytes,
            sequence,
            stored_at_ms,
            expires_at_ms,
            body_checksum: 0,
            previous,
            tenant: *self.tenants.get(tenant)?,
            key: self.bytes()?,
        };
        let after = Before::after(offset, &header);
        // Of a damaged record, the segment may hold no more than the header.
        let least = match flags & FLAG_DAMAGED {
            0 => after.end,
            _ => offset.checked_add(HEADER_BYTES as u64)?,
        };
        if least > self.segment_bytes {
            return None;
        }
        self.before = after;
        if expires_at_ms == NEVER {
            self.before.ttl_ms = before.ttl_ms;
        }
        Some((offset, header, flags & FLAG_DAMAGED == 0))
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.bytes()?;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn difference(&mut self, from: u64) -> Option<u64> {
        let number = self.number()?;
        let difference = (number >> 1) as i64 ^ -((number & 1) as i64);
        Some(from.wrapping_add(difference as u64))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, left) = self.left.split_first_chunk()?;
        self.left = left;
        Some(*bytes)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([3; 16]);
    const SEGMENT: u64 = 5;
    const SEGMENT_BYTES: u64 = 1 << 20;

    fn records() -> Vec<Listed> {
        let mut offset = BLOCK_BYTES as u64;
        let mut records = Vec::new();
        for (number, sequence, ttl) in [
            (0u8, 8, Some(3_600_000)),
            (1, 9, Some(3_600_000)),
            (2, 10, None),
            (3, 12, Some(0)),
            (4, u64::MAX, Some(5)),
            (5, 0, Some(1)),
        ] {
            let stored_at_ms = 1_700_000_000_000 + 1000 * u64::from(number % 3);
            let is_gap = ![9, 10, 0].contains(&sequence);
            let header = Header {
                seal: Seal::None,
                kind: if number == 2 {
                    Kind::Tombstone
                } else {
                    Kind::Entry
                },
                metadata_bytes: 3 * u32::from(number),
                payload_bytes: 600 * u32::from(number),
                sequence,
                stored_at_ms,
                expires_at_ms: ttl.map_or(NEVER, |ttl| stored_at_ms + ttl),
                body_checksum: 0,
                previous: [if is_gap { number } else { 0 }; KEY_START_BYTES],
                key: [number; 32],
                tenant: [number / 2; 32],
            };
            records.push((offset, header, number != 3));
            offset += header.shape().record_bytes() + ALIGN * u64::from(number);
        }
        records
    }

    fn encoded(records: &[Listed]) -> Vec<u8> {
        let mut contents = Contents::default();
        for (offset, header, is_sound) in records {
            contents.add(*offset, header, *is_sound);
        }
        assert_eq!(contents.records(), records.len() as u64);
        contents.encode(&STORE, SEGMENT, SEGMENT_BYTES)
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Listed>, Reject> {
        Contents::decode(bytes, &STORE, SEGMENT, SEGMENT_BYTES)
    }

    #[test]
    fn what_was_written_is_read_again() {
        for records in [records(), Vec::new()] {
            assert_eq!(decoded(&encoded(&records)), Ok(records));
        }
        let bytes = encoded(&records());
        for (store, segment, segment_bytes) in [
            (StoreId([4; 16]), SEGMENT, SEGMENT_BYTES),
            (STORE, SEGMENT + 1, SEGMENT_BYTES),
            (STORE, SEGMENT, SEGMENT_BYTES + 1),
        ] {
            let other = Contents::decode(&bytes, &store, segment, segment_bytes);
            assert_eq!(other, Err(Reject::NotOurs));
        }
    }

    #[test]
    fn a_usual_record_takes_few_bytes() {
        let mut contents = Contents::default();
        let (_, header, _) = records()[0];
        let mut offset = BLOCK_BYTES as u64;
        for number in 0..1000 {
            let header = Header {
                sequence: number + 1,
                payload_bytes: 4000 + (number % 100) as u32,
                stored_at_ms: header.stored_at_ms + number * 30,
                expires_at_ms: header.expires_at_ms + number * 30,
                ..header
            };
            contents.add(offset, &header, true);
            offset += header.shape().record_bytes();
        }
        assert!(contents.bytes.len() < 44 * 1000, "{}", contents.bytes.len());
    }

    #[test]
    fn every_altered_byte_and_every_cut_is_refused() {
        let whole = encoded(&records());
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(decoded(&flipped).is_err(), "byte {at}");
            assert!(decoded(&whole[..at]).is_err(), "cut {at}");
        }
    }

    /// Such contents would name a record before it that is not the one read before it.
    #[test]
    fn a_record_that_says_it_lies_apart_and_does_not_is_refused() {
        let (offset, first, _) = records()[0];
        let mut contents = Contents::default();
        contents.add(offset, &first, true);
        let flags = contents.bytes.len();
        let second = Header {
            sequence: first.sequence + 1,
            ..first
        };
        contents.add(offset + first.shape().record_bytes(), &second, true);
        // Behind the flags, the gap and the two lengths, a byte each.
        let previous = flags + 4;
        contents.bytes[flags] |= FLAG_APART;
        contents
            .bytes
            .splice(previous..previous, [7; KEY_START_BYTES]);
        let bytes = contents.encode(&STORE, SEGMENT, SEGMENT_BYTES);
        assert_eq!(decoded(&bytes), Err(Reject::Corrupt));
    }

    /// As above, with a checksum that fits, as another program might write it.
    #[test]
    fn whatever_it_says_reading_it_never_panics() {
        let whole = encoded(&records());
        for at in STORE_ID..600 {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                close(&mut flipped, MAGIC, 0);
                if let Ok(records) = decoded(&flipped) {
                    let sound = records.iter().filter(|(.., is_sound)| *is_sound);
                    for (offset, header, _) in sound {
                        assert!(offset + header.shape().record_bytes() <= SEGMENT_BYTES);
                    }
                    assert_eq!(decoded(&encoded(&records)), Ok(records), "byte {at}");
                }
            }
        }
    }
}
