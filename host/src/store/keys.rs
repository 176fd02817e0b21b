//! Which keys a segment may hold records of, in 4 bytes each.
//!
//! Reclaiming a segment before an older one has to know whether the older one holds a record that
//! the newer one supersedes. That is rare, and a false positive costs only a tombstone.

use super::format::Header;
use std::collections::HashSet;

/// Part of each key in a segment that may get more.
#[derive(Debug, Default)]
pub(crate) struct NewKeys(HashSet<u32>);

impl NewKeys {
    pub(crate) fn add(&mut self, header: &Header) {
        self.0.insert(part_of(&header.key));
    }

    /// There will be no more.
    pub(crate) fn seal(self) -> Keys {
        let mut keys: Vec<u32> = self.0.into_iter().collect();
        keys.sort_unstable();
        Keys(keys)
    }

    /// False: the segment has no record of this key.
    pub(crate) fn may_hold(&self, key: &[u8; 32]) -> bool {
        self.0.contains(&part_of(key))
    }
}

/// Part of each key in a sealed segment, sorted.
#[derive(Debug)]
pub(crate) struct Keys(Vec<u32>);

impl Keys {
    /// False: the segment has no record of this key.
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
    use super::super::format::{Kind, NEVER, Seal};
    use super::*;

    #[test]
    fn it_holds_what_was_added_and_hardly_anything_else() {
        let key = |number: u64| *blake3::hash(&number.to_le_bytes()).as_bytes();
        let mut keys = NewKeys::default();
        for number in (0..1000).chain(0..100) {
            keys.add(&Header {
                seal: Seal::None,
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
        assert!((0..1000).all(|number| keys.may_hold(&key(number))));
        let keys = keys.seal();
        assert!((0..1000).all(|number| keys.may_hold(&key(number))));
        let wrong = (1000..100_000).filter(|number| keys.may_hold(&key(*number)));
        assert!(wrong.count() < 5);
    }
}
