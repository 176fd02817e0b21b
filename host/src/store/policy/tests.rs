//! The policy alone, on the requests of `cargo xtask bench compare eviction`: logs are queues of
//! keys, and a segment is a number of keys.

use super::*;
use std::collections::{HashMap, VecDeque};

#[path = "../../../../tests/compare/src/trace.rs"]
mod trace;

use trace::Trace;

/// Room for 8,192 entries of equal size, in 64 segments.
const ENTRIES: u64 = 8192;
const SEGMENT: u64 = 128;

/// Free at least, for what is written again of a segment before its room is free.
const SPARE: u64 = SEGMENT;

const BYTES: u64 = 1024;

#[derive(Default)]
struct Logs {
    policy: Policy,
    /// The segment of each key, and its hits.
    places: HashMap<u64, (u64, u8)>,
    /// By log; the last segment is written to.
    segments: [VecDeque<(u64, Vec<u64>)>; 2],
    segments_made: u64,
    written: u64,
    inserted: u64,
}

impl Logs {
    fn look_up(&mut self, number: u64) -> bool {
        let Some((_, hits)) = self.places.get_mut(&number) else {
            return false;
        };
        *hits = (*hits + 1).min(HITS_MAX);
        true
    }

    fn insert(&mut self, number: u64) {
        self.inserted += 1;
        let log = self.policy.log_for(&key(number), BYTES, ENTRIES * BYTES);
        self.write(number, log, 0);
        while self.len(Log::Small) + self.len(Log::Main) + SPARE > ENTRIES {
            self.reclaim();
        }
    }

    fn write(&mut self, number: u64, log: Log, hits: u8) {
        let segments = &mut self.segments[log as usize];
        if segments
            .back()
            .is_none_or(|(_, keys)| keys.len() as u64 == SEGMENT)
        {
            self.segments_made += 1;
            segments.push_back((self.segments_made, Vec::new()));
        }
        if let Some((segment, keys)) = segments.back_mut() {
            keys.push(number);
            self.places.insert(number, (*segment, hits));
        }
        self.written += 1;
    }

    fn len(&self, log: Log) -> u64 {
        let segments = &self.segments[log as usize];
        segments.iter().map(|(_, keys)| keys.len() as u64).sum()
    }

    fn reclaim(&mut self) {
        let small_bytes = self.len(Log::Small) * BYTES;
        let log = self.policy.makes_room(small_bytes, ENTRIES * BYTES);
        let log = match self.segments[log as usize].len() {
            0 | 1 => log.other(),
            _ => log,
        };
        let Some((segment, keys)) = self.segments[log as usize].pop_front() else {
            panic!("nothing to reclaim");
        };
        for number in keys {
            let Some((_, hits)) = self.places.get(&number).filter(|place| place.0 == segment)
            else {
                continue;
            };
            match Policy::verdict(*hits) {
                Verdict::Stays { hits } => self.write(number, Log::Main, hits),
                Verdict::Leaves => {
                    self.places.remove(&number);
                    let entries = self.places.len() as u64;
                    self.policy.note_left(&key(number), log, entries);
                }
            }
        }
    }
}

fn key(number: u64) -> [u8; 32] {
    *blake3::hash(&number.to_le_bytes()).as_bytes()
}

/// Hits in parts of ten thousand of all but the first fifth, and entries written for a hundred
/// inserted.
fn run(keys: &[u64]) -> (u64, u64) {
    let mut logs = Logs::default();
    let counted_from = keys.len() / 5;
    let mut hits = 0;
    for (at, number) in keys.iter().enumerate() {
        match logs.look_up(*number) {
            true => hits += u64::from(at >= counted_from),
            false => logs.insert(*number),
        }
    }
    let counted = (keys.len() - counted_from) as u64;
    (hits * 10_000 / counted, logs.written * 100 / logs.inserted)
}

/// The better of TinyLFU and LRU, and the bytes written for a hundred inserted with one log, whose
/// oldest segment goes: `docs/figures.md`.
#[test]
fn on_each_trace_it_finds_as_much_as_the_best_and_writes_less_than_one_log() {
    let others = [
        (6540, 144),
        (7710, 153),
        (9270, 166),
        (4950, 119),
        (7040, 152),
        (1230, 116),
    ];
    let mut better = 0;
    for (trace, (hits_least, written_max)) in Trace::all().iter().zip(others) {
        let (hits, written) = run(&trace.keys);
        println!("{}: {hits} hits, {written} written", trace.name);
        assert!(hits + 20 >= hits_least, "{}: {hits}", trace.name);
        assert!(written <= written_max, "{}: {written}", trace.name);
        better += u32::from(hits > hits_least);
    }
    assert!(better >= 4, "{better} of six");
}

#[test]
fn every_entry_stays_for_a_turnover_of_the_small_log() {
    let mut logs = Logs::default();
    for number in 0..10 * ENTRIES {
        logs.insert(number);
        let least = ENTRIES * SMALL_MIN / SHARES - SEGMENT;
        assert!(number < least || logs.places.contains_key(&(number - least)));
    }
    // Nothing was hit, so nothing else is there.
    assert_eq!(logs.len(Log::Main), 0);
}

#[test]
fn the_share_of_the_small_log_follows_the_ghosts_and_keeps_its_bounds() {
    const WHOLE: u64 = 1_000_000;
    let mut policy = Policy::default();
    let start = policy.small_share(WHOLE);
    let returns = |policy: &mut Policy, log, numbers: std::ops::Range<u64>| {
        for number in numbers {
            policy.note_left(&key(number), log, 10_000);
            assert_eq!(policy.log_for(&key(number), BYTES, WHOLE), Log::Main);
            assert_eq!(policy.log_for(&key(number), BYTES, WHOLE), Log::Small);
        }
        policy.small_share(WHOLE)
    };
    assert_eq!(returns(&mut policy, Log::Small, 0..1), start + BYTES);
    assert_eq!(returns(&mut policy, Log::Main, 1..2), start);
    assert_eq!(returns(&mut policy, Log::Main, 2..5000), WHOLE * 2 / 100);
    assert_eq!(policy.makes_room(WHOLE * 2 / 100 + 1, WHOLE), Log::Small);
    assert_eq!(policy.makes_room(WHOLE * 2 / 100, WHOLE), Log::Main);
    assert_eq!(returns(&mut policy, Log::Small, 0..5000), WHOLE / 2);
    // A store whose quota was made smaller.
    assert_eq!(policy.small_share(WHOLE / 10), WHOLE / 20);
}

#[test]
fn the_fair_share_leaves_the_small_ones_what_they_have() {
    assert_eq!(fair_share(&[], 100), 0);
    assert_eq!(fair_share(&[100], 100), 0);
    assert_eq!(fair_share(&[60, 40], 100), u64::MAX);
    assert_eq!(fair_share(&[60, 41], 100), 59);
    assert_eq!(fair_share(&[1000, 10], 100), 90);
    assert_eq!(fair_share(&[1000, 1000], 100), 50);
    assert_eq!(fair_share(&[1000, 1000, 10, 20], 100), 35);
    // What is at or below the share, and one share for each of the others, fits.
    let mut random = crate::store::sim_disk::Random(3);
    for _ in 0..1000 {
        let uses: Vec<u64> = (0..2 + random.below(50))
            .map(|_| 1 + random.below(1000) * random.below(1000))
            .collect();
        let whole = 1 + random.below(1_000_000);
        let share = fair_share(&uses, whole);
        let taken: u64 = uses.iter().map(|used| (*used).min(share)).sum();
        assert!(taken <= whole, "{uses:?} {whole} {share}");
        assert!(share >= whole / uses.len() as u64);
    }
}
