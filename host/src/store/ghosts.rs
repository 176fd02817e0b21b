//! The keys that were evicted lately, in 8 bytes each.
//!
//! A ghost is a part of a key, the log that it left, and roughly when. Two keys that share a ghost,
//! or a lost ghost, only make a decision slightly worse.

use super::log::Log;

/// A slot: 48 bits of the key, 1 bit of the log, 15 bits of the tick. All zeros is a free slot.
type Slot = u64;

/// Slots that a key's ghost may take; one cache line.
const BUCKET: usize = 8;

/// The window is this many ticks, so that a ghost lasts to within 1.6 % of it.
const TICKS: u16 = 64;

/// The tick 0 never occurs, so that no ghost is all zeros.
const TICK_MAX: u16 = (1 << 15) - 1;

/// The table starts with as many buckets, in 8 KiB.
const BUCKETS_MIN: usize = 128;

/// The keys that left each log lately.
#[derive(Debug)]
pub(crate) struct Ghosts {
    buckets: Vec<[Slot; BUCKET]>,
    /// By log.
    logs: [Window; 2],
}

/// The ghosts of one log.
#[derive(Debug)]
struct Window {
    /// From 1 to [`TICK_MAX`], then from 1 again.
    tick: u16,
    /// Ghosts that are there, by their tick modulo [`TICKS`].
    there: [u32; TICKS as usize],
    /// The sum of these.
    len: u64,
    /// Ghosts added in this tick, those taken again included.
    added: u64,
}

impl Window {
    const EMPTY: Self = Self {
        tick: 1,
        there: [0; TICKS as usize],
        len: 0,
        added: 0,
    };

    fn advance(&mut self) {
        self.tick = self.tick % TICK_MAX + 1;
        self.added = 0;
        let oldest = &mut self.there[usize::from(self.tick % TICKS)];
        self.len -= u64::from(std::mem::take(oldest));
    }

    /// In ticks.
    fn age(&self, tick: u16) -> u16 {
        let ticks = i32::from(self.tick) - i32::from(tick);
        ticks.rem_euclid(i32::from(TICK_MAX)) as u16
    }

    fn goes(&mut self, tick: u16) {
        if self.age(tick) < TICKS {
            self.there[usize::from(tick % TICKS)] -= 1;
            self.len -= 1;
        }
    }
}

impl Default for Ghosts {
    fn default() -> Self {
        Self {
            buckets: vec![[0; BUCKET]; BUCKETS_MIN],
            logs: [Window::EMPTY; 2],
        }
    }
}

impl Ghosts {
    /// The number of ghosts of a log.
    pub(crate) fn len(&self, log: Log) -> u64 {
        self.logs[log as usize].len
    }

    /// Adds a key that left a log, of which the last `len_max` are remembered.
    pub(crate) fn add(&mut self, key: &[u8; 32], log: Log, len_max: u64) {
        self.take(key);
        // Half full, so that few buckets overflow.
        let slots = (self.buckets.len() * BUCKET) as u64;
        if self.logs.iter().map(|log| log.len).sum::<u64>() * 2 >= slots {
            self.grow();
        }
        let window = &mut self.logs[log as usize];
        if window.added >= (len_max / u64::from(TICKS)).max(1) {
            window.advance();
        }
        window.added += 1;
        let tick = window.tick;
        let part = part_of(key);
        let at = self.bucket_of(part);
        let age = |slot: Slot| match slot {
            0 => u16::MAX,
            slot => self.logs[log_of(slot) as usize].age(tick_of(slot)),
        };
        let oldest = (0..BUCKET).max_by_key(|slot| age(self.buckets[at][*slot]));
        let slot = &mut self.buckets[at][oldest.unwrap_or_default()];
        let before = std::mem::replace(slot, part << 16 | (log as u64) << 15 | u64::from(tick));
        if before != 0 {
            self.logs[log_of(before) as usize].goes(tick_of(before));
        }
        let window = &mut self.logs[log as usize];
        window.there[usize::from(tick % TICKS)] += 1;
        window.len += 1;
    }

    /// Forgets a key; the log that it left, if that was lately.
    pub(crate) fn take(&mut self, key: &[u8; 32]) -> Option<Log> {
        let part = part_of(key);
        let at = self.bucket_of(part);
        let slot = self.buckets[at]
            .iter_mut()
            .find(|slot| **slot != 0 && **slot >> 16 == part)?;
        let ghost = std::mem::take(slot);
        let (log, tick) = (log_of(ghost), tick_of(ghost));
        let window = &mut self.logs[log as usize];
        let is_there = window.age(tick) < TICKS;
        window.goes(tick);
        is_there.then_some(log)
    }

    /// In bytes.
    #[cfg(test)]
    fn memory(&self) -> usize {
        self.buckets.len() * size_of::<[Slot; BUCKET]>()
    }

    fn bucket_of(&self, part: u64) -> usize {
        part as usize & (self.buckets.len() - 1)
    }

    /// Doubles the buckets: what was in one goes to that and to the one as far behind it.
    fn grow(&mut self) {
        let half = self.buckets.len();
        self.buckets.resize(2 * half, [0; BUCKET]);
        for at in 0..half {
            for slot in 0..BUCKET {
                let ghost = self.buckets[at][slot];
                let to = self.bucket_of(ghost >> 16);
                if ghost != 0 && to != at {
                    self.buckets[at][slot] = 0;
                    self.buckets[to][slot] = ghost;
                }
            }
        }
    }
}

/// Another part than those that maps hash and segments list.
fn part_of(key: &[u8; 32]) -> u64 {
    let [_, _, _, _, _, _, _, _, a, b, c, d, e, f, ..] = *key;
    u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
}

fn log_of(slot: Slot) -> Log {
    match slot & 1 << 15 {
        0 => Log::Small,
        _ => Log::Main,
    }
}

fn tick_of(slot: Slot) -> u16 {
    slot as u16 & TICK_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> [u8; 32] {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    #[test]
    fn the_last_keys_of_each_log_are_remembered_and_no_others() {
        const LEN_MAX: u64 = 10_000;
        let mut ghosts = Ghosts::default();
        for number in 0..100_000 {
            let log = [Log::Small, Log::Main][(number % 2) as usize];
            ghosts.add(&key(number), log, LEN_MAX);
        }
        for log in [Log::Small, Log::Main] {
            let len = ghosts.len(log);
            assert!((LEN_MAX * 96 / 100..=LEN_MAX).contains(&len), "{len}");
        }
        assert!(ghosts.memory() <= 512 << 10, "{}", ghosts.memory());
        let mut is_there = |number: u64| {
            let log = ghosts.take(&key(number));
            assert!(log.is_none_or(|log| log as u64 == number % 2));
            log.is_some()
        };
        assert_eq!((0..79_000).filter(|number| is_there(*number)).count(), 0);
        let lately = (82_000..100_000).filter(|number| is_there(*number));
        // Buckets overflow now and then.
        assert!(lately.count() > 17_000);
        assert!((99_000..100_000).all(|number| !is_there(number)), "taken");
    }

    #[test]
    fn a_ghost_is_forgotten_however_often_the_ticks_go_round() {
        let mut ghosts = Ghosts::default();
        // The window is 64 ghosts, and each has a tick.
        for number in 0..3 * u64::from(TICK_MAX) {
            ghosts.add(&key(number), Log::Small, 1);
            assert!(ghosts.len(Log::Small) <= u64::from(TICKS));
        }
        let last = 3 * u64::from(TICK_MAX) - 1;
        assert_eq!(ghosts.take(&key(last)), Some(Log::Small));
        assert_eq!(ghosts.take(&key(last)), None);
        assert_eq!(ghosts.take(&key(last - 100)), None);
    }
}
