//! What the exchanges of one configuration share: the hot tier, the flights, what is known of the
//! daemon, and the configuration's shares in the memory of the module.

use std::collections::VecDeque;
use std::rc::Rc;

use reflex_llm::{Api, Key, Rejected, Revealed, Traits};

use crate::breaker::Breaker;
use crate::config::Config;
use crate::counts::Counts;
use crate::daemon::{Epoch, Purged, Told};
use crate::flights::Flights;
use crate::hot::Hot;
use crate::memo::Memo;
use crate::module::{BreakerSign, Budget, Module};
use crate::refreshed::Gone;
use crate::routes::Routes;
use crate::splits::KeySplits;
use crate::unread::{Full, Ticket};

/// Upper bound of the purges that are remembered. A request from before the oldest of them counts
/// as purged, which costs a miss.
const PURGES_MAX: usize = 1024;

/// A reply with at least this many purges may be cut short: the worker asks for more without delay.
const TOLD_MANY: usize = 32;

/// A moment among the purges that a worker knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(u64);

/// The state of one worker, without its exchanges.
#[derive(Debug)]
pub struct Shared {
    /// The operator's settings.
    pub config: Rc<Config>,
    /// Answers in memory.
    pub hot: Hot,
    /// Requests that had hot answers.
    pub memo: Memo,
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
    revealed: Revealed,
    /// Lines for the log, each of which is told once.
    lines: Vec<String>,
    epoch: Option<Epoch>,
    /// The newest purges, and how many there ever were.
    purged: VecDeque<Purged>,
    purges: u64,
    /// The number of calls that had been made when the epoch came.
    epoch_calls: u64,
    /// Whether a reply had another epoch, which may be older or newer than the known one.
    epoch_in_doubt: bool,
    /// How many calls have been made.
    calls: u64,
    module: Module,
    recording: Budget,
    sending: Budget,
    breaker_sign: BreakerSign,
    /// Makes the names of our fills differ from those of other workers.
    seed: u64,
    fills: u64,
}

impl Shared {
    /// An empty state. `seed` is to differ between workers, and between the configurations of one.
    pub fn new(config: Rc<Config>, seed: u64, module: &Module) -> Self {
        module.hot.borrow_mut().seed(seed);
        Self {
            hot: Hot::new(
                &module.hot,
                config.hot_bytes_max,
                config.hot_entry_bytes_max,
                config.hot_ttl_ms,
            ),
            routes: Routes::new(config.prove_routes, module.next_generation()),
            config,
            memo: Memo::new(seed, module.memo()),
            flights: Flights::new(seed),
            breaker: Breaker::default(),
            counts: Counts::default(),
            splits: KeySplits::new(seed),
            revealed: Revealed::new(),
            lines: Vec::new(),
            epoch: None,
            purged: VecDeque::new(),
            purges: 0,
            epoch_calls: 0,
            epoch_in_doubt: false,
            calls: 0,
            recording: module.recording(),
            sending: module.sending(),
            breaker_sign: module.breaker(),
            module: module.clone(),
            seed,
            fills: 0,
        }
    }

    /// The memory of recent misses.
    pub fn splits(&mut self) -> &mut KeySplits {
        &mut self.splits
    }

    /// A miss with these traits.
    pub fn missed(&mut self, traits: &Traits) {
        for split in self.splits.note(traits) {
            self.counts.key_split(split.by);
        }
    }

    /// An answer of this API was judged, and is not kept.
    pub fn rejected(&mut self, api: Api, why: Rejected) {
        self.counts.rejected(why);
        let revelation = self.revealed.note(api, why);
        self.lines.extend(revelation.map(|it| it.to_string()));
    }

    /// Lines for the log, since the last time. Each is told once by a worker.
    pub fn take_lines(&mut self) -> Vec<String> {
        let mut lines = self.splits.take_lines();
        lines.append(&mut self.lines);
        lines.extend(self.routes.take_lines());
        lines
    }

    /// Whether the daemon is to be asked now.
    pub fn asks_daemon(&mut self, now_ms: u64) -> bool {
        self.config.daemon_cluster.is_some() && self.breaker.allows(now_ms)
    }

    /// Tells the module whether the breaker is open.
    pub fn show_breaker(&mut self) {
        self.breaker_sign.set(self.breaker.is_open());
    }

    /// Whether an answer of that length may be handed to a client. If it counts until it is read,
    /// its ticket.
    pub fn hand_over(&self, bytes: usize, now_ms: u64) -> Result<Option<Ticket>, Full> {
        self.module.unread.borrow_mut().hand_over(bytes, now_ms)
    }

    /// A name for a fill that no other worker gives.
    pub fn next_fill(&mut self) -> String {
        self.fills += 1;
        format!("{:x}-{:x}", self.seed, self.fills)
    }

    /// The known purges, for a request to the daemon.
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

    /// Drops answers that other workers have replaced; without a daemon, no epoch shows that.
    pub fn let_go(&mut self, gone: &Gone) {
        match gone {
            Gone::These(digests) if digests.is_empty() => return,
            Gone::These(digests) => {
                let digests = digests.iter().copied().map(Purged::Digest);
                digests.for_each(|purged| self.purge(purged));
            }
            Gone::All => self.purge(Purged::All),
        }
        self.counts.purge();
    }

    fn purge(&mut self, purged: Purged) {
        self.hot.purge(&purged);
        self.memo.purge(&purged);
        self.flights.close(&purged);
        self.purges += 1;
        self.purged.push_back(purged);
        if self.purged.len() > PURGES_MAX {
            self.purged.pop_front();
        }
    }

    /// Takes in the epoch of the reply to the call of that number. A new epoch means a purge or a
    /// replaced answer. What that covers leaves the hot tier: the answers that the daemon lists, if
    /// its list begins at the known epoch, otherwise all.
    ///
    /// Returns whether an answer under that key, which came with the reply, may be kept. A purge
    /// that has just begun may still have to reach the answer. So it may be kept if the epoch is the
    /// known one, or if the daemon lists all purges since then and none covers the key.
    ///
    /// Epochs have no order. A call that was made after the known epoch arrived cannot bring an
    /// older one. The epoch of an earlier call changes nothing, and the daemon is asked once more.
    pub fn see_epoch(&mut self, told: &Told, call: u64, key: Option<&Key>) -> bool {
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
        if !is_first {
            self.counts.purge();
        }
        match &told.since {
            Some((since, purged)) if known.as_ref() == Some(since) => {
                purged.iter().for_each(|purged| self.purge(*purged));
                // A reply tells a bounded number, and there may be more.
                self.epoch_in_doubt |= purged.len() >= TOLD_MANY;
                key.is_some_and(|key| !purged.iter().any(|purged| purged.covers(key)))
            }
            _ => {
                self.purge(Purged::All);
                is_first
            }
        }
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
