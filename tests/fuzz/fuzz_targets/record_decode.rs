//! Bytes as a record of a segment: an accepted record encodes to the same bytes, and a record
//! that was altered, cut or moved is refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::bytes::Bytes;
use reflex_host::fuzzing::{Record, read_record, write_record};

/// The header's own checksum, as docs/format.md has it.
const CHECKSUM: std::ops::Range<usize> = 32..36;

/// Bits of a sequence, which no store uses up.
const SEQUENCE_BITS: u32 = 56;

/// Bits of a time; as an expiry, all of them set is never.
const TIME_BITS: u32 = 48;

fn time(number: u64) -> u64 {
    number >> (u64::BITS - TIME_BITS)
}

fn expiry(number: u64) -> u64 {
    match time(number) {
        0xffff_ffff_ffff => u64::MAX,
        time => time,
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Bytes(input);
    let is_raw = input.byte() % 2 == 0;
    let segment = input.number() >> 32;
    let nth = input.number() as u32;
    if is_raw {
        // As found on a disk: what it asserts is in there.
        let _ = read_record(input.0, segment, nth);
        return;
    }
    let burst: [u8; 4] = std::array::from_fn(|_| input.byte());
    let (at, cut) = (input.below(1 << 16), input.below(1 << 16));
    let record = Record {
        is_tombstone: input.byte() % 4 == 0,
        sequence: input.number() >> (u64::BITS - SEQUENCE_BITS),
        stored_at_ms: time(input.number()),
        expires_at_ms: expiry(input.number()),
        key: std::array::from_fn(|_| input.byte()),
        tenant: std::array::from_fn(|_| input.byte()),
        metadata: {
            let length = input.below(64);
            input.piece(length).to_vec()
        },
        payload: input.0.to_vec(),
    };
    let bytes = write_record(&record, segment, nth);
    assert_eq!(read_record(&bytes, segment, nth), Some(record.clone()));
    let mut longer = bytes.clone();
    longer.extend_from_slice(&burst);
    assert_eq!(read_record(&longer, segment, nth), Some(record));

    let cut = cut % bytes.len();
    assert_eq!(
        read_record(&bytes[..cut], segment, nth),
        None,
        "cut at {cut}"
    );
    assert_eq!(
        read_record(&bytes, segment ^ 1, nth),
        None,
        "another segment"
    );
    assert_eq!(read_record(&bytes, segment, nth ^ 1), None, "another place");
    // No checksum misses so little; but only where all of it is on one side of the checksum.
    let at = at % bytes.len();
    let end = (at + burst.len()).min(bytes.len());
    let mut altered = bytes.clone();
    for (byte, with) in altered[at..end].iter_mut().zip(burst) {
        *byte ^= with;
    }
    let apart = end <= CHECKSUM.start || at >= CHECKSUM.end;
    if altered != bytes && (apart || at >= CHECKSUM.start && end <= CHECKSUM.end) {
        assert_eq!(read_record(&altered, segment, nth), None, "altered at {at}");
    }
});
