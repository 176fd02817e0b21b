//! Written bytes are read again unchanged, and no other bytes are accepted.

use super::*;

const SALT: Salt = Salt {
    header: 0x1234_5678,
    body: 0x9abc_def0_1234_5678,
};
const OFFSET: u64 = 4096;

fn header() -> Header {
    Header {
        seal: Seal::None,
        kind: Kind::Entry,
        metadata_bytes: 2,
        payload_bytes: 5,
        sequence: 7,
        stored_at_ms: 11,
        expires_at_ms: 13,
        body_checksum: body_checksum(b"ok", b"hello"),
        previous: [17; KEY_START_BYTES],
        key: [19; 32],
        tenant: [23; 32],
    }
}

fn record() -> Vec<u8> {
    let header = header();
    let mut bytes = header.encode(SALT, OFFSET).to_vec();
    bytes.extend_from_slice(b"okhello");
    bytes.extend_from_slice(header.shape().padding());
    bytes
}

#[track_caller]
fn check(bytes: &[u8], expected: Result<(), Reject>) {
    let read = Header::decode(bytes, SALT, OFFSET)
        .and_then(|header| header.check_body(bytes).map(|()| header));
    assert_eq!(read, expected.map(|()| header()));
}

#[test]
fn what_was_written_is_read_again() {
    check(&record(), Ok(()));
    assert_eq!(record().len() as u64, header().shape().record_bytes());
    assert_eq!(tenant_of(&record()), [23; 32]);
    assert_eq!(tenant_of(b"short"), [0; 32]);
    assert_eq!(
        (times_of(&record()), times_of(b"short")),
        ((11, 13), (0, 0))
    );
}

#[test]
fn every_torn_prefix_is_refused() {
    let whole = record();
    let end = header().shape().payload().end;
    for cut in 0..end {
        check(&whole[..cut], Err(Reject::Torn));
    }
    for cut in end..=whole.len() {
        check(&whole[..cut], Ok(()));
    }
}

#[test]
fn every_flipped_bit_is_refused_except_in_the_padding() {
    let whole = record();
    let end = header().shape().payload().end;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << bit;
            match at {
                0..4 => check(&flipped, Err(Reject::NotOurs)),
                _ if at < end => check(&flipped, Err(Reject::Corrupt)),
                _ => check(&flipped, Ok(())),
            }
        }
    }
}

#[test]
fn bytes_of_another_place_are_refused() {
    let here = Salt::of_segment(&StoreId([1; 16]), 1);
    let bytes = header().encode(here, OFFSET);
    let decode = |salt, offset| Header::decode(&bytes, salt, offset);
    assert_eq!(decode(here, OFFSET), Ok(header()));
    assert_eq!(decode(here, OFFSET + ALIGN), Err(Reject::Corrupt));
    let other_segment = Salt::of_segment(&StoreId([1; 16]), 2);
    assert_eq!(decode(other_segment, OFFSET), Err(Reject::Corrupt));
    let other_store = Salt::of_segment(&StoreId([2; 16]), 1);
    assert_eq!(decode(other_store, OFFSET), Err(Reject::Corrupt));
}

#[test]
fn a_tombstone_and_an_unknown_flag() {
    let tombstone = Header {
        kind: Kind::Tombstone,
        ..header()
    };
    let mut bytes = tombstone.encode(SALT, OFFSET);
    assert_eq!(Header::decode(&bytes, SALT, OFFSET), Ok(tombstone));

    put(&mut bytes, header::FLAGS, &[8]);
    put(&mut bytes, header::CHECKSUM, &[0; 4]);
    let checksum = crc32_iscsi(&bytes) ^ SALT.header_at(OFFSET);
    put(&mut bytes, header::CHECKSUM, &checksum.to_le_bytes());
    assert_eq!(
        Header::decode(&bytes, SALT, OFFSET),
        Err(Reject::Newer(RECORD_VERSION.into()))
    );
}

#[test]
fn blocks_are_read_again_and_refused_when_altered() {
    let manifest = |purge_marks| {
        [Sealing::None, Sealing::Underway, Sealing::All].map(|sealing| Manifest {
            store: StoreId([3; 16]),
            purge_marks,
            sealing,
        })
    };
    let superblock = Superblock {
        store: StoreId([3; 16]),
        segment: 5,
        segment_bytes: 1 << 20,
        log: Log::Main,
        before: 77,
        key: None,
    };
    let names = [MarksName::None, MarksName::Epochs, MarksName::PurgeMarks];
    for manifest in names.into_iter().flat_map(manifest) {
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }
    let sealed = Superblock {
        key: Some(KeyId([9; 8])),
        ..superblock
    };
    for superblock in [superblock, sealed] {
        assert_eq!(Superblock::decode(&superblock.encode()), Ok(superblock));
    }
    assert_eq!(Manifest::decode(&superblock.encode()), Err(Reject::NotOurs));

    let whole = superblock.encode();
    for cut in 0..BLOCK_BYTES {
        assert_eq!(Superblock::decode(&whole[..cut]), Err(Reject::Torn));
    }
    for at in 0..BLOCK_BYTES {
        let mut flipped = whole;
        flipped[at] ^= 0x40;
        let expected = match at {
            0..8 => Reject::NotOurs,
            _ => Reject::Corrupt,
        };
        assert_eq!(Superblock::decode(&flipped), Err(expected), "byte {at}");
    }
}

#[test]
fn a_block_of_a_later_release_says_so() {
    let later = FORMAT_VERSION + 1;
    for (at, value) in [(block::VERSION, later), (block::FEATURES, 16)] {
        let mut bytes = Manifest {
            store: StoreId([3; 16]),
            purge_marks: MarksName::None,
            sealing: Sealing::None,
        }
        .encode();
        put(&mut bytes, at, &value.to_le_bytes());
        let end = BLOCK_BYTES - block::CHECKSUM_BYTES;
        let checksum = crc32_iscsi(&bytes[..end]);
        put(&mut bytes, end, &checksum.to_le_bytes());
        assert!(matches!(Manifest::decode(&bytes), Err(Reject::Newer(_))));
    }
}
