//! Entry points for the fuzz targets of `tests/fuzz`, which are outside this crate. Assertions
//! about private items are made here. Compiled with `--cfg fuzzing` only.

use super::format::{
    ALIGN, Contents, HEADER_BYTES, Header, Kind, Reject, Salt, Seal, Shape, StoreId, body_checksum,
};

const STORE: StoreId = StoreId([3; 16]);

/// Reads a record that lies at the `nth` possible place of a segment. `None`: it was refused. An
/// accepted record encodes to the same bytes, and its body has its checksum.
///
/// # Panics
///
/// If that does not hold.
pub fn read_record(bytes: &[u8], segment: u64, nth: u32) -> Option<Record> {
    let (salt, offset) = place(segment, nth);
    let header = match Header::decode(bytes, salt, offset) {
        Ok(header) => header,
        Err(Reject::Torn) => {
            assert!(bytes.len() < HEADER_BYTES, "whole, and refused as torn");
            return None;
        }
        Err(_) => return None,
    };
    assert_eq!(header.encode(salt, offset)[..], bytes[..HEADER_BYTES]);
    header.check_body(bytes).ok()?;
    let shape = header.shape();
    assert!(shape.payload().end as u64 <= shape.record_bytes());
    let (metadata, payload) = (&bytes[shape.metadata()], &bytes[shape.payload()]);
    assert_eq!(body_checksum(metadata, payload), header.body_checksum);
    Some(Record {
        is_tombstone: header.kind == Kind::Tombstone,
        sequence: header.sequence,
        stored_at_ms: header.stored_at_ms,
        expires_at_ms: header.expires_at_ms,
        key: header.key,
        tenant: header.tenant,
        metadata: metadata.to_vec(),
        payload: payload.to_vec(),
    })
}

/// The bytes of a record at the `nth` possible place of a segment, without its padding.
///
/// # Panics
///
/// If it is longer than any.
pub fn write_record(record: &Record, segment: u64, nth: u32) -> Vec<u8> {
    let (salt, offset) = place(segment, nth);
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or_else(|_| panic!("too long"));
    let header = Header {
        seal: Seal::None,
        kind: if record.is_tombstone {
            Kind::Tombstone
        } else {
            Kind::Entry
        },
        metadata_bytes: length(&record.metadata),
        payload_bytes: length(&record.payload),
        sequence: record.sequence,
        stored_at_ms: record.stored_at_ms,
        expires_at_ms: record.expires_at_ms,
        body_checksum: body_checksum(&record.metadata, &record.payload),
        previous: [0; 4],
        key: record.key,
        tenant: record.tenant,
    };
    let mut bytes = header.encode(salt, offset).to_vec();
    bytes.extend_from_slice(&record.metadata);
    bytes.extend_from_slice(&record.payload);
    bytes
}

/// The fields of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether it says that the key was removed.
    pub is_tombstone: bool,
    /// The highest wins.
    pub sequence: u64,
    /// In milliseconds since 1970.
    pub stored_at_ms: u64,
    /// In milliseconds since 1970; `u64::MAX` is never.
    pub expires_at_ms: u64,
    /// The key of the answer.
    pub key: [u8; 32],
    /// Its tenant.
    pub tenant: [u8; 32],
    /// Beside the answer.
    pub metadata: Vec<u8>,
    /// The answer.
    pub payload: Vec<u8>,
}

fn place(segment: u64, nth: u32) -> (Salt, u64) {
    (
        Salt::of_segment(&STORE, segment),
        u64::from(nth).saturating_mul(ALIGN),
    )
}

/// Reads the contents of a segment of `segment_bytes`. Accepted contents lie within the segment, in
/// order, and encode to the same bytes. Returns the number of records.
///
/// # Panics
///
/// If that does not hold.
pub fn read_contents(bytes: &[u8], segment: u64, segment_bytes: u64) -> Option<usize> {
    let listed = Contents::decode(bytes, &STORE, segment, segment_bytes).ok()?;
    let mut end = 0;
    let mut again = Contents::default();
    for (offset, header, is_sound) in &listed {
        assert!(*offset >= end, "one record in another");
        assert!(offset.is_multiple_of(ALIGN));
        assert!(offset + HEADER_BYTES as u64 <= segment_bytes);
        end = offset.saturating_add(header.shape().record_bytes());
        assert!(!is_sound || end <= segment_bytes, "behind the end");
        again.add(*offset, header, *is_sound);
    }
    let again = again.encode(&STORE, segment, segment_bytes);
    let read = Contents::decode(&again, &STORE, segment, segment_bytes);
    assert_eq!(
        read.as_ref(),
        Ok(&listed),
        "not the same when written again"
    );
    Some(listed.len())
}

/// The contents of a segment of `segment_bytes` that holds these records, one behind the other.
pub fn write_contents(records: &[Record], segment: u64, segment_bytes: u64) -> Vec<u8> {
    let mut contents = Contents::default();
    let mut offset = super::BLOCK_BYTES as u64;
    for record in records {
        let header = Header {
            seal: Seal::None,
            kind: if record.is_tombstone {
                Kind::Tombstone
            } else {
                Kind::Entry
            },
            metadata_bytes: record.metadata.len() as u32,
            payload_bytes: record.payload.len() as u32,
            sequence: record.sequence,
            stored_at_ms: record.stored_at_ms,
            expires_at_ms: record.expires_at_ms,
            body_checksum: 0,
            previous: [0; 4],
            key: record.key,
            tenant: record.tenant,
        };
        contents.add(offset, &header, true);
        offset += Shape::record_bytes(header.shape());
    }
    contents.encode(&STORE, segment, segment_bytes)
}
