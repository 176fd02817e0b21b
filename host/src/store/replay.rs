//! Decides which record of each key counts, while the segments are read again.
//!
//! It lives only during recovery; after that the index takes over. Expiry does not matter here,
//! because an expired record still supersedes older ones.

use super::format::{Header, KEY_START_BYTES, Kind, MarksFile};
use super::index::Index;
use super::log::Log;
use super::newest::Newest;
use super::place::Place;
use super::segment::Segment;
use std::collections::HashMap;
use std::sync::Arc;

/// The newest record of each key so far.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    purged: &'a MarksFile,
    newest: Newest,
    /// The highest sequence; 0 without a record. The first record has 1.
    last: u64,
    logs: [LogEnd; 2],
    /// The most records that cannot be read in segments whose log is not known.
    hidden: u64,
    /// Records whose header was not found, by the first bytes of their key as their successor
    /// tells it, with the highest sequence.
    lost: HashMap<[u8; KEY_START_BYTES], u64>,
    /// When the newest entry was stored.
    now_ms: u64,
}

/// What is known of the end of a log.
#[derive(Clone, Copy, Debug, Default)]
struct LogEnd {
    /// Of its last record; 0 without one.
    sequence: u64,
    /// The first bytes of the key of its last record.
    key: [u8; KEY_START_BYTES],
    /// The most records that may lie behind the last one, where nothing could be read.
    hidden: u64,
}

/// The outcome of a replay.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// The highest sequence; 0 without a record.
    pub(crate) last: u64,
    /// By log, the sequence of the last record, and the beginning of its key.
    pub(crate) ends: [(u64, [u8; KEY_START_BYTES]); 2],
    /// The most records that may lie behind the last ones and cannot be read now.
    pub(crate) hidden: u64,
    /// The entries that can be served.
    pub(crate) index: Index,
    /// Keys with a record that must not be served and without a tombstone: the record that
    /// supersedes it may be reclaimed first.
    pub(crate) unburied: Vec<[u8; 32]>,
    /// When the newest entry was stored; 0 without one.
    pub(crate) now_ms: u64,
}

/// What lies before a record that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The record that was found before it.
    Record,
    /// Nothing: it is where the first record of its segment begins. Of the log's last record before
    /// that segment, the sequence.
    Nothing(u64),
    /// Bytes that are no record.
    Gap,
}

/// The part of a key that the next record repeats.
pub(crate) fn start_of(key: &[u8; 32]) -> [u8; KEY_START_BYTES] {
    let [a, b, c, d, ..] = *key;
    [a, b, c, d]
}

impl<'a> Replay<'a> {
    /// For about so many entries.
    pub(crate) fn new(purged: &'a MarksFile, entries: usize) -> Self {
        Self {
            purged,
            newest: Newest::with_room_for(entries),
            last: 0,
            logs: [LogEnd::default(); 2],
            hidden: 0,
            lost: HashMap::new(),
            now_ms: 0,
        }
    }

    /// Notes that up to `records` records may lie here, where nothing could be read. The log is none
    /// where it is not known.
    pub(crate) fn hide(&mut self, log: Option<Log>, records: u64) {
        match log {
            Some(log) => self.logs[log as usize].hidden += records,
            None => self.hidden += records,
        }
    }

    /// The sequence of the last record of a log so far: the next ones have higher ones.
    pub(crate) fn last_of(&self, log: Option<Log>) -> u64 {
        log.map_or(0, |log| self.logs[log as usize].sequence)
    }

    /// Adds the record at an offset of a segment, in the order of its log. `place` is none if it cannot
    /// be read; in a poisoned segment it may not be durable.
    pub(crate) fn add(
        &mut self,
        (log, before): (Option<Log>, Before),
        (segment, offset): (&Arc<Segment>, u64),
        header: &Header,
        place: Option<Place>,
    ) {
        let sequence = header.sequence;
        let mut unknown = LogEnd::default();
        let end = log.map_or(&mut unknown, |log| &mut self.logs[log as usize]);
        // A missing record is a damaged header. It may have been a tombstone or a newer answer. A
        // segment before this one that is missing was reclaimed.
        let lost = match before {
            Before::Record => None,
            Before::Gap => Some(sequence.saturating_sub(1)),
            // Not up to this record: the other log may have newer ones of the key.
            Before::Nothing(last) => Some(last).filter(|_| (1..last).contains(&end.sequence)),
        };
        if let Some(sequence) = lost {
            let lost = self.lost.entry(header.previous).or_default();
            *lost = sequence.max(*lost);
        }
        end.key = start_of(&header.key);
        if sequence > end.sequence {
            end.sequence = sequence;
            // Earlier records of the log have lower sequences.
            end.hidden = 0;
        }
        if sequence > self.last {
            self.last = sequence;
            if header.kind == Kind::Entry {
                self.now_ms = header.stored_at_ms;
            }
        }

        let is_unsure = place.is_none() && (header.kind == Kind::Entry || segment.is_poisoned());
        let place = place.filter(|place| {
            let is_purged = self.purged.covers(&header.tenant, sequence);
            if is_purged {
                place.count_dead();
            }
            !is_purged
        });
        let at = (segment, offset);
        self.newest.add(at, header, place, is_unsure);
    }

    pub(crate) fn finish(self) -> Replayed {
        let is_lost = |key: &[u8; 32], sequence| {
            let lost = self.lost.get(&start_of(key));
            lost.is_some_and(|lost| *lost > sequence)
        };
        let (index, unburied) = self.newest.finish(!self.lost.is_empty(), is_lost);
        Replayed {
            last: self.last,
            ends: self.logs.map(|end| (end.sequence, end.key)),
            hidden: self.logs.iter().map(|end| end.hidden).sum::<u64>() + self.hidden,
            index,
            unburied,
            now_ms: self.now_ms,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::disk::{Disk, RealDisk};
    use super::super::format::{ALIGN, NEVER, Salt, Seal};
    use super::super::segment::Segment;
    use super::*;
    use tempfile::TempDir;

    const SIZE: u64 = 4096;

    fn segment(dir: &TempDir, id: (u64, Log)) -> Arc<Segment> {
        let file = RealDisk.create(&dir.path().join("a")).unwrap();
        file.set_len(SIZE).unwrap();
        let mapping = file.map(SIZE).unwrap();
        let disk_use = Arc::default();
        let opened = (file, mapping);
        Segment::new(id, Salt::NONE, opened, (0, &disk_use), true)
    }

    fn header(kind: Kind, sequence: u64, key: u8, previous: [u8; KEY_START_BYTES]) -> Header {
        Header {
            seal: Seal::None,
            kind,
            metadata_bytes: 0,
            payload_bytes: 0,
            sequence,
            stored_at_ms: sequence,
            expires_at_ms: NEVER,
            body_checksum: 0,
            previous,
            key: [key; 32],
            tenant: [0; 32],
        }
    }

    /// Adds records as `(sequence, key, kind)`, each with the key of the record before it in
    /// `sequence`, as the store writes them. Then checks which sequences can be served. A kind of
    /// `None` is a record that was written but is not found any more.
    #[track_caller]
    fn check(written: &[(u64, u8, Option<Kind>)], served: &[u64]) {
        let dir = tempfile::tempdir().unwrap();
        let segment = segment(&dir, (1, Log::Small));
        let purged = MarksFile::default();
        let mut replay = Replay::new(&purged, written.len());
        let mut previous = [0; KEY_START_BYTES];
        let mut before = Before::Nothing(0);
        for (offset, (sequence, key, kind)) in (0..).step_by(ALIGN as usize).zip(written) {
            let kind_or_entry = kind.unwrap_or(Kind::Entry);
            let header = header(kind_or_entry, *sequence, *key, previous);
            previous = [*key; KEY_START_BYTES];
            if let Some(kind) = kind {
                let place = Place::new(&segment, offset, &header);
                let place = (*kind == Kind::Entry).then_some(place);
                replay.add(
                    (Some(Log::Small), before),
                    (&segment, offset),
                    &header,
                    place,
                );
                before = Before::Record;
            } else {
                before = Before::Gap;
            }
        }
        let replayed = replay.finish();
        for (offset, (sequence, key, _)) in (0..).step_by(ALIGN as usize).zip(written) {
            let is_it = |place: &Place| place.offset() == offset;
            let is_served = replayed.index.find(&[*key; 32], is_it) == Some(true);
            assert_eq!(is_served, served.contains(sequence), "{sequence}");
        }
    }

    #[test]
    fn the_highest_sequence_of_a_key_counts() {
        const ENTRY: Option<Kind> = Some(Kind::Entry);
        const TOMBSTONE: Option<Kind> = Some(Kind::Tombstone);
        check(&[], &[]);
        check(&[(1, 1, ENTRY), (2, 2, ENTRY), (3, 1, ENTRY)], &[2, 3]);
        check(&[(3, 1, ENTRY), (1, 1, ENTRY), (2, 2, ENTRY)], &[2, 3]);
        check(&[(1, 1, ENTRY), (2, 1, TOMBSTONE)], &[]);
        check(&[(1, 1, TOMBSTONE), (2, 1, ENTRY)], &[2]);
        // The records before the first one were reclaimed; that is no loss.
        check(&[(8, 1, ENTRY), (9, 2, ENTRY)], &[8, 9]);
        // A lost record may have been a tombstone, so nothing older of its key is served.
        check(&[(1, 1, ENTRY), (2, 1, None), (3, 2, ENTRY)], &[3]);
        check(&[(1, 1, ENTRY), (2, 3, None), (3, 2, ENTRY)], &[1, 3]);
        check(
            &[(1, 1, ENTRY), (2, 1, None), (3, 2, ENTRY), (4, 1, ENTRY)],
            &[3, 4],
        );
        // A lost last record leaves no gap, as if it had never been written.
        check(&[(1, 1, ENTRY), (2, 1, None)], &[1]);
    }

    /// The last record of a log's first segment is lost: it had key 7 and sequence 3. The next segment
    /// of that log says so, and was begun when the other log had got more records. Checks whether one
    /// there, of key 7 with this sequence, is served.
    #[track_caller]
    fn check_lost_end(sequence: u64, is_served: bool) {
        let dir = tempfile::tempdir().unwrap();
        let [first, main, next] =
            [(1, Log::Small), (2, Log::Main), (3, Log::Small)].map(|id| segment(&dir, id));
        let purged = MarksFile::default();
        let mut replay = Replay::new(&purged, 4);
        for (segment, before, sequence, key, previous) in [
            (&first, Before::Nothing(0), 1, 8, [0; 4]),
            (&main, Before::Nothing(0), sequence, 7, [0; 4]),
            (&next, Before::Nothing(3), 6, 9, [7; 4]),
        ] {
            let header = header(Kind::Entry, sequence, key, previous);
            let place = Place::new(segment, 0, &header);
            let at = (Some(segment.log), before);
            replay.add(at, (segment, 0), &header, Some(place));
        }
        let Replayed {
            index, unburied, ..
        } = replay.finish();
        assert_eq!(index.find(&[7; 32], |_| ()).is_some(), is_served);
        assert_eq!(unburied.contains(&[7; 32]), !is_served);
        assert_eq!(index.len(), 2 + u64::from(is_served));
    }

    #[test]
    fn a_lost_end_of_a_log_costs_what_is_older_in_either_log_and_nothing_newer() {
        check_lost_end(2, false);
        check_lost_end(4, true);
        check_lost_end(5, true);
    }
}
