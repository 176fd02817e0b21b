//! The value of an entry in the store. Other programs may write there, so the checksum covers all
//! of it, the name included.

use reflex_llm::{Key, KeyHasher};

/// Opens every record; its number changes with the layout.
const MAGIC: [u8; 8] = *b"reflexk1";

const CHECKSUM_AT: usize = MAGIC.len();
const STORED_AT: usize = CHECKSUM_AT + 32;
const EXPIRES_AT: usize = STORED_AT + 8;
const METADATA_LENGTH_AT: usize = EXPIRES_AT + 8;
const METADATA_AT: usize = METADATA_LENGTH_AT + 8;

/// One entry. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was stored.
    pub stored_at: u64,
    /// When it expires.
    pub expires_at: u64,
    /// The guest's metadata.
    pub metadata: Vec<u8>,
    /// The answer.
    pub payload: Vec<u8>,
}

/// The store's key of the entry.
pub fn name_of(key: &Key) -> String {
    let mut hasher = KeyHasher::new();
    hasher
        .field("keyvalue-tenant", &key.tenant.0)
        .field("digest", &key.digest);
    let mut name = String::from("reflex-");
    for byte in hasher.finish() {
        for digit in [byte >> 4, byte & 15] {
            name.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    name
}

impl Record {
    /// The bytes of the record, for the entry of this name.
    pub fn encode(&self, name: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([0; 32]);
        bytes.extend(self.stored_at.to_le_bytes());
        bytes.extend(self.expires_at.to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        bytes.extend(&self.metadata);
        bytes.extend(&self.payload);
        let checksum = checksum(name, &bytes[STORED_AT..]);
        bytes[CHECKSUM_AT..STORED_AT].copy_from_slice(&checksum);
        bytes
    }

    /// The record in these bytes, if they are whole, unaltered, and of this name.
    pub fn decode(name: &str, bytes: &[u8]) -> Option<Self> {
        let checked = bytes.get(STORED_AT..)?;
        if !bytes.starts_with(&MAGIC) || bytes[CHECKSUM_AT..STORED_AT] != checksum(name, checked) {
            return None;
        }
        let length = usize::try_from(number(bytes, METADATA_LENGTH_AT)?).ok()?;
        let (metadata, payload) = bytes.get(METADATA_AT..)?.split_at_checked(length)?;
        Some(Self {
            stored_at: number(bytes, STORED_AT)?,
            expires_at: number(bytes, EXPIRES_AT)?,
            metadata: metadata.to_vec(),
            payload: payload.to_vec(),
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

fn checksum(name: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hasher = KeyHasher::new();
    hasher
        .field("keyvalue-record", name.as_bytes())
        .field("bytes", bytes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_not_otherwise() {
        let record = Record {
            stored_at: 1,
            expires_at: 2,
            metadata: b"text/plain".to_vec(),
            payload: b"Once".to_vec(),
        };
        let bytes = record.encode("one");
        assert_eq!(Record::decode("one", &bytes), Some(record));
        assert_eq!(Record::decode("two", &bytes), None);
        for end in 0..bytes.len() {
            assert_eq!(Record::decode("one", &bytes[..end]), None, "cut at {end}");
        }
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(Record::decode("one", &altered), None, "altered at {at}");
        }
    }
}
