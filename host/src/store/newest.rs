//! The newest record of each key, while the segments are read again: the index itself, and the data
//! that the index lacks.
//!
//! The index knows where a record lies, and not its sequence. Sequences are kept once for each record, in
//! 4 bytes, because most are one higher than the one before in their segment.

use super::format::{ALIGN, Header};
use super::index::Index;
use super::place::Place;
use super::segment::Segment;
use std::collections::HashMap;
use std::sync::Arc;

/// The newest records so far.
#[derive(Debug, Default)]
pub(super) struct Newest {
    index: Index,
    /// Keys whose newest record gives no entry.
    without: HashMap<[u8; 32], Without>,
    /// By the segment's id.
    sequences: HashMap<u64, Sequences>,
}

/// The newest record of a key, which is a tombstone, purged, or damaged: it cannot be served, and neither
/// can the records that it superseded.
#[derive(Clone, Copy, Debug)]
struct Without {
    sequence: u64,
    /// It supersedes older records now, but a later read of the disk may show that it must not.
    is_unsure: bool,
}

/// The sequences of a segment's records, in their order.
#[derive(Debug, Default)]
struct Sequences {
    /// Where each record lies, in units of [`ALIGN`].
    offsets: Vec<u32>,
    /// Which records do not have the sequence behind the one before, and their sequences.
    runs: Vec<(u32, u64)>,
}

impl Sequences {
    fn note(&mut self, offset: u64, sequence: u64) {
        let number = self.offsets.len() as u32;
        let expected = self
            .runs
            .last()
            .map(|(first, start)| start + u64::from(number - first));
        if expected != Some(sequence) {
            self.runs.push((number, sequence));
        }
        self.offsets.push((offset / ALIGN) as u32);
    }

    /// Of a record that was noted; 0 otherwise.
    fn of(&self, offset: u64) -> u64 {
        let number = self.offsets.binary_search(&((offset / ALIGN) as u32));
        let Ok(number) = number.map(|number| number as u32) else {
            return 0;
        };
        let run = self.runs.partition_point(|(first, _)| *first <= number);
        let run = run.checked_sub(1).and_then(|run| self.runs.get(run));
        run.map_or(0, |(first, start)| start + u64::from(number - first))
    }
}

impl Newest {
    /// For about so many entries.
    pub(super) fn with_room_for(entries: usize) -> Self {
        Self {
            index: Index::with_room_for(entries),
            ..Self::default()
        }
    }

    /// Adds a record. In a segment, records come in their order; of two with the same sequence the later
    /// one counts. `place` is none if it cannot be served; `is_unsure`: a later read
    /// of the disk may show that it does not supersede older ones.
    pub(super) fn add(
        &mut self,
        (segment, offset): (&Arc<Segment>, u64),
        header: &Header,
        place: Option<Place>,
        is_unsure: bool,
    ) {
        let sequence = header.sequence;
        let sequences = self.sequences.entry(segment.id).or_default();
        sequences.note(offset, sequence);
        let key = &header.key;
        let mut covers = false;
        if !self.without.is_empty()
            && let Some(newest) = self.without.get(key)
        {
            if newest.sequence > sequence {
                if let Some(place) = place {
                    place.count_dead();
                }
                return;
            }
            self.without.remove(key);
            covers = true;
        }
        let is_older = |now: &Place| self.sequence_of(now) <= sequence;
        match place {
            Some(place) => {
                place.set_covers(covers);
                self.index.insert_if(key, place, is_older);
            }
            None => {
                if self.index.find(key, is_older) == Some(false) {
                    // It may be readable again, or cover something itself.
                    self.index.find(key, |now| now.set_covers(true));
                    return;
                }
                self.index.remove(key);
                let without = Without {
                    sequence,
                    is_unsure,
                };
                self.without.insert(*key, without);
            }
        }
    }

    fn sequence_of(&self, place: &Place) -> u64 {
        let sequences = self.sequences.get(&place.segment_id());
        sequences.map_or(0, |sequences| sequences.of(place.offset()))
    }

    /// The index, and the keys that need a tombstone. `lost` tells of a key and a sequence whether a newer
    /// record of the key may have been lost; it says so of none if `has_lost` is false.
    pub(super) fn finish(
        self,
        has_lost: bool,
        lost: impl Fn(&[u8; 32], u64) -> bool,
    ) -> (Index, Vec<[u8; 32]>) {
        let without = self
            .without
            .iter()
            .filter(|(key, newest)| newest.is_unsure || has_lost && lost(key, newest.sequence));
        let mut unburied: Vec<_> = without.map(|(key, _)| *key).collect();
        if has_lost {
            let is_lost = |key: &[u8; 32], place: &Place| lost(key, self.sequence_of(place));
            unburied.extend(self.index.remove_keys_where(is_lost));
        }
        (self.index, unburied)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::disk::{Disk, RealDisk};
    use super::super::format::{Kind, NEVER, Salt, Seal};
    use super::super::log::Log;
    use super::super::sim_disk::Random;
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn segment(dir: &tempfile::TempDir, id: u64) -> Arc<Segment> {
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.set_len(SIZE).unwrap();
        let mapping = file.map(SIZE).unwrap();
        let opened = (file, mapping);
        let disk_use = Arc::default();
        Segment::new((id, Log::Small), Salt::NONE, opened, (0, &disk_use), true)
    }

    /// The order in which segments are read does not matter, nor do gaps between their sequences.
    #[test]
    fn the_highest_sequence_of_a_key_is_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        for seed in 0..200 {
            let mut random = Random(seed);
            let segments: Vec<_> = (1..4).map(|id| segment(&dir, id)).collect();
            // Each segment's records, with sequences that rise within it.
            let mut records = vec![Vec::new(); segments.len()];
            for sequence in 1..200_u64 {
                let at = random.below(3) as usize;
                records[at].push((sequence, random.below(20), random.below(4)));
            }
            let mut newest = Newest::with_room_for(20);
            let mut model: HashMap<u64, (u64, u64, u64)> = HashMap::new();
            let mut order = [0, 1, 2];
            order.rotate_left((seed % 3) as usize);
            for at in order {
                for (number, (sequence, key, kind)) in records[at].iter().enumerate() {
                    let offset = 4096 + number as u64 * 128;
                    let header = Header {
                        seal: Seal::None,
                        kind: Kind::Entry,
                        metadata_bytes: 0,
                        payload_bytes: 0,
                        sequence: *sequence,
                        stored_at_ms: 0,
                        expires_at_ms: NEVER,
                        body_checksum: 0,
                        previous: [0; 4],
                        key: [*key as u8; 32],
                        tenant: [0; 32],
                    };
                    let segment = &segments[at];
                    let place = (*kind > 0).then(|| Place::new(segment, offset, &header));
                    newest.add((segment, offset), &header, place, false);
                    let now = model.entry(*key).or_default();
                    *now = (*now).max((*sequence, *kind, offset));
                }
            }
            // Key 7 lost all that is newer than sequence 100.
            let lost = |key: &[u8; 32], sequence| key[0] == 7 && sequence < 100;
            let (index, unburied) = newest.finish(true, lost);
            let mut entries = 0;
            for (key, (sequence, kind, offset)) in model {
                let is_lost = key == 7 && sequence < 100;
                let found = index.find(&[key as u8; 32], Place::offset);
                let expected = (kind > 0 && !is_lost).then_some(offset);
                assert_eq!(found, expected, "seed {seed} key {key}");
                assert_eq!(unburied.contains(&[key as u8; 32]), is_lost);
                entries += u64::from(expected.is_some());
            }
            assert_eq!(index.len(), entries);
            let dead: u64 = segments.iter().map(|segment| segment.dead_bytes()).sum();
            let places = records.iter().flatten().filter(|(.., kind)| *kind > 0);
            assert_eq!(dead, (places.count() as u64 - entries) * 112);
        }
    }
}
