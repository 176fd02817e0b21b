//! What the exchanges of one worker share: the hot tier, who waits for whom, what is known of the
//! daemon, and the bounds on memory that only all of them together can keep.

use std::rc::Rc;

use crate::breaker::Breaker;
use crate::config::Config;
use crate::counts::Counts;
use crate::daemon::Epoch;
use crate::flights::Flights;
use crate::hot::Hot;

/// What recordings under way may take in one worker. A module that runs into Envoy's 1 GiB ends,
/// and takes every request in it along.
const RECORDING_BYTES_MAX: usize = 256 << 20;

/// What answers on their way to the daemon may take in one worker.
const SENDING_BYTES_MAX: usize = 64 << 20;

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
    epoch: Option<Epoch>,
    recording: Budget,
    sending: Budget,
    /// Makes the names of our fills differ from those of other workers.
    seed: u64,
    fills: u64,
}

impl Shared {
    /// An empty state. `seed` is to differ between workers.
    pub fn new(config: Rc<Config>, seed: u64) -> Self {
        Self {
            hot: Hot::new(
                config.hot_bytes_max,
                config.hot_entry_bytes_max,
                config.hot_ttl_ms,
            ),
            config,
            flights: Flights::default(),
            breaker: Breaker::default(),
            counts: Counts::default(),
            epoch: None,
            recording: Budget::new(RECORDING_BYTES_MAX),
            sending: Budget::new(SENDING_BYTES_MAX),
            seed,
            fills: 0,
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

    /// The daemon has told its epoch. If it is another, there was a purge, and what is here goes.
    /// Returns whether it is the one that was known.
    pub fn see_epoch(&mut self, epoch: &Epoch) -> bool {
        if self.epoch.as_ref() == Some(epoch) {
            return true;
        }
        let is_first = self.epoch.is_none();
        self.epoch = Some(Rc::clone(epoch));
        self.hot.clear();
        if !is_first {
            self.counts.purge();
        }
        is_first
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
    left: usize,
}

impl Budget {
    fn new(bytes: usize) -> Self {
        Self { left: bytes }
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
