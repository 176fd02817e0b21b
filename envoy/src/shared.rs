//! What the exchanges of one worker share: the hot tier, who waits for whom, what is known of the
//! daemon, and the bounds on memory that only all of them together can keep.

use std::collections::VecDeque;
use std::rc::Rc;

use reflex_llm::{Key, Traits};

use crate::breaker::Breaker;
use crate::config::Config;
use crate::counts::Counts;
use crate::daemon::{Epoch, Purged, Told};
use crate::flights::Flights;
use crate::hot::Hot;
use crate::routes::Routes;
use crate::splits::KeySplits;

/// What recordings under way may take in one worker. A module that runs into Envoy's 1 GiB ends,
/// and takes every request in it along.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// What answers on their way to the daemon may take in one worker.
const SENDING_BYTES_MAX: usize = 64 << 20;

/// So many purges are remembered. Whatever was begun before the oldest of them counts as purged:
/// that costs a miss.
const PURGES_MAX: usize = 1024;

/// A moment among the purges that a worker has heard of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The state of one worker, but for its exchanges.
#[derive(Debug)]
pub struct Shared {
    /// What the operator wants.
    pub config: Rc<Config>,
    /// Answers in memory.
    pub hot: Hot,
    /// Answers under way.
    pub flights: Flights,
    /// Whether to ask the daemon.
    pub breaker: Breaker,
    /// For Envoy's statistics.
    pub counts: Counts,
    /// What is known of the routes that requests come by.
    pub routes: Routes,
    /// For the log.
    splits: KeySplits,
    epoch: Option<Epoch>,
    /// The newest purges, and how many there ever were.
    purged: VecDeque<Purged>,
    purges: u64,
    /// How many calls had been made when it was heard of.
    epoch_calls: u64,
    /// Whether there was a reply with another one, of which nobody knows whether it is newer.
    epoch_in_doubt: bool,
    /// How many calls have been made.
    calls: u64,
    recording: Budget,
    sending: Budget,
    /// Makes the names of our fills differ from those of other workers.
    seed: u64,
    fills: u64,
}

impl Shared {
    /// An empty state. `seed` is to differ between workers; `generation` counts the configurations
    /// that this module has had.
    pub fn new(config: Rc<Config>, seed: u64, generation: u64) -> Self {
        Self {
            hot: Hot::new(
                config.hot_bytes_max,
                config.hot_entry_bytes_max,
                config.hot_ttl_ms,
            ),
            routes: Routes::new(config.prove_routes, generation),
            config,
            flights: Flights::default(),
            breaker: Breaker::default(),
            counts: Counts::default(),
            splits: KeySplits::new(seed),
            epoch: None,
            purged: VecDeque::new(),
            purges: 0,
            epoch_calls: 0,
            epoch_in_doubt: false,
            calls: 0,
            recording: Budget::new(RECORDING_BYTES_MAX),
            sending: Budget::new(SENDING_BYTES_MAX),
            seed,
            fills: 0,
        }
    }

    /// What remembers misses.
    pub fn splits(&mut self) -> &mut KeySplits {
        &mut self.splits
    }

    /// A miss with these traits.
    pub fn missed(&mut self, traits: &Traits) {
        for split in self.splits.note(traits) {
            self.counts.key_split(split.by);
        }
    }

    /// Whether the daemon is to be asked now.
    pub fn asks_daemon(&mut self, now_ms: u64) -> bool {
        self.config.daemon_cluster.is_some() && self.breaker.allows(now_ms)
    }

    /// A name for a fill that nobody else gives.
    pub fn next_fill(&mut self) -> String {
        self.fills += 1;
        format!("{:x}-{:x}", self.seed, self.fills)
    }

    /// Which purges are known of.
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_ref()
    }

    /// The number of a call that is made now, for [`see_epoch`](Self::see_epoch).
    pub fn next_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    /// Now, for [`was_purged`](Self::was_purged).
    pub fn mark(&self) -> Mark {
        Mark(self.purges)
    }

    /// Whether a key is among what was purged since.
    pub fn was_purged(&self, key: &Key, since: Mark) -> bool {
        let newer = usize::try_from(self.purges - since.0).unwrap_or(usize::MAX);
        newer > self.purged.len()
            || self
                .purged
                .iter()
                .rev()
                .take(newer)
                .any(|it| it.covers(key))
    }

    fn purge(&mut self, purged: Purged) {
        self.hot.purge(&purged);
        self.flights.close(&purged);
        self.purges += 1;
        self.purged.push_back(purged);
        if self.purged.len() > PURGES_MAX {
            self.purged.pop_front();
        }
    }

    /// The daemon has told its epoch in reply to the call of that number. If it is another, there
    /// was a purge, and what it covers goes: what the daemon says it was, if it says so of all
    /// since the known epoch, or else everything. Returns whether it is the one that was known: only
    /// then an answer that came with it may be kept, since a purge that has just begun may not
    /// have come to it yet.
    ///
    /// Epochs have no order that could be read from them. But a call that was made after the
    /// known one was heard of cannot bring an older one. Any other may, and changes nothing; then
    /// the daemon is asked once more.
    pub fn see_epoch(&mut self, told: &Told, call: u64) -> bool {
        let epoch = &told.epoch;
        if self.epoch.as_ref() == Some(epoch) {
            return true;
        }
        let is_first = self.epoch.is_none();
        if !is_first && call <= self.epoch_calls {
            self.epoch_in_doubt = true;
            return false;
        }
        let known = self.epoch.replace(Rc::clone(epoch));
        self.epoch_calls = self.calls;
        match &told.since {
            Some((since, purged)) if known.as_ref() == Some(since) => {
                purged.iter().for_each(|purged| self.purge(*purged));
            }
            _ => self.purge(Purged::All),
        }
        if !is_first {
            self.counts.purge();
        }
        is_first
    }

    /// Whether the epoch is to be asked for without delay; this says so once.
    pub fn take_epoch_doubt(&mut self) -> bool {
        std::mem::take(&mut self.epoch_in_doubt)
    }

    /// Room for bytes that are being recorded.
    pub fn recording(&mut self) -> &mut Budget {
        &mut self.recording
    }

    /// Room for bytes on their way to the daemon.
    pub fn sending(&mut self) -> &mut Budget {
        &mut self.sending
    }
}

/// A number of bytes that many take from.
#[derive(Debug)]
pub struct Budget {
    whole: usize,
    left: usize,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self {
            whole: bytes,
            left: bytes,
        }
    }

    /// Whether nobody holds any of it.
    pub fn is_whole(&self) -> bool {
        self.left == self.whole
    }

    /// What can still be taken.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Takes so many bytes, if there are as many left.
    pub fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, bytes: usize) {
        self.left += bytes;
    }
}
