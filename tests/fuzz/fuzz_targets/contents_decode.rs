//! Bytes as an `.idx`: with a checksum that fits, they are accepted only if they are
//! consistent; altered or cut contents of a sealed segment are refused.

#![no_main]

use libfuzzer_sys::fuzz_target;
use reflex_fuzz::bytes::Bytes;
use reflex_host::fuzzing::{Record, read_contents, write_contents};

// As docs/format.md has them.
const BLOCK_BYTES: usize = 4096;
const RECORDS: usize = 48;
const LENGTH: usize = 56;
const START: usize = 64;

const SEGMENT: u64 = 5;
const SEGMENT_BYTES: u64 = 1 << 16;

/// Contents with these bytes in place of records, and a checksum that fits.
fn sealed(records: u64, bytes: &[u8]) -> Vec<u8> {
    let mut whole = write_contents(&[], SEGMENT, SEGMENT_BYTES);
    whole.truncate(START);
    whole.extend_from_slice(bytes);
    whole.resize((whole.len() + 4).next_multiple_of(BLOCK_BYTES), 0);
    whole[RECORDS..RECORDS + 8].copy_from_slice(&records.to_le_bytes());
    whole[LENGTH..LENGTH + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    let end = whole.len() - 4;
    let checksum = crc_fast::crc32_iscsi(&whole[..end]);
    whole[end..].copy_from_slice(&checksum.to_le_bytes());
    whole
}

fuzz_target!(|input: &[u8]| {
    let mut input = Bytes(input);
    match input.byte() % 3 {
        0 => drop(read_contents(input.0, SEGMENT, SEGMENT_BYTES)),
        1 => {
            let records = input.byte();
            let bytes = sealed(records.into(), input.0);
            if let Some(read) = read_contents(&bytes, SEGMENT, SEGMENT_BYTES) {
                assert_eq!(read, usize::from(records));
            }
        }
        _ => {
            let burst: [u8; 4] = std::array::from_fn(|_| input.byte());
            let (at, cut) = (input.below(1 << 16), input.below(1 << 16));
            let mut records = Vec::new();
            while !input.is_empty() && records.len() < 200 {
                let flags = input.byte();
                let lengths = [input.below(100), input.below(100)];
                records.push(Record {
                    is_tombstone: flags & 1 != 0,
                    sequence: records.len() as u64 + u64::from(flags >> 4),
                    stored_at_ms: input.number(),
                    expires_at_ms: match flags & 2 {
                        0 => u64::MAX,
                        _ => input.number(),
                    },
                    key: std::array::from_fn(|_| input.byte()),
                    tenant: [flags & 12; 32],
                    metadata: vec![0; lengths[0]],
                    payload: vec![0; lengths[1]],
                });
            }
            let bytes = write_contents(&records, SEGMENT, SEGMENT_BYTES);
            let read = read_contents(&bytes, SEGMENT, SEGMENT_BYTES);
            assert_eq!(read, Some(records.len()));
            assert_eq!(read_contents(&bytes, SEGMENT + 1, SEGMENT_BYTES), None);
            let cut = cut % bytes.len();
            assert_eq!(read_contents(&bytes[..cut], SEGMENT, SEGMENT_BYTES), None);
            let at = at % bytes.len();
            let mut altered = bytes.clone();
            for (byte, with) in altered[at..].iter_mut().zip(burst) {
                *byte ^= with;
            }
            if altered != bytes {
                let read = read_contents(&altered, SEGMENT, SEGMENT_BYTES);
                assert_eq!(read, None, "altered at {at}");
            }
        }
    }
});
