//! Which keys a segment may hold records of, in 4 bytes each.
//!
//! Reclaiming a segment before an older one has to know whether the older one holds a record that
//! the newer one supersedes. That is rare, and a false positive costs only a tombstone.

use super::format::Header;

/// Part of each key, sorted once there will be no more.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<u32>);

impl Keys {
    pub(crate) fn add(&mut self, header: &Header) {
        self.0.push(part_of(&header.key));
    }

    /// There will be no more.
    pub(crate) fn seal(mut self) -> Self {
        self.0.sort_unstable();
        self.0.dedup();
        self.0.shrink_to_fit();
        self
    }

    /// False: the segment has no record of this key. Only for sealed segments.
    pub(crate) fn may_hold(&self, key: &[u8; 32]) -> bool {
        self.0.binary_search(&part_of(key)).is_ok()
    }
}

/// Another part than the one that names a lost record, and than the one that maps hash.
fn part_of(key: &[u8; 32]) -> u32 {
    let [.., a, b, c, d] = *key;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::super::format::{Kind, NEVER};
    use super::*;

    #[test]
    fn it_holds_what_was_added_and_hardly_anything_else() {
        let key = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let mut keys = Keys::default();
        for number in (0..1000).chain(0..100) {
            keys.add(&Header {
                kind: Kind::Entry,
                metadata_bytes: 0,
                payload_bytes: 0,
                sequence: number,
                stored_at_ms: 0,
                expires_at_ms: NEVER,
                body_checksum: 0,
                previous: [0; 4],
                key: key(number),
                tenant: [0; 32],
            });
        }
        let keys = keys.seal();
        assert!((0..1000).all(|number| keys.may_hold(&key(number))));
        let wrong = (1000..100_000).filter(|number| keys.may_hold(&key(*number)));
        assert!(wrong.count() < 5);
    }
}
