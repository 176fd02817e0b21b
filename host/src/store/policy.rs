//! Which entries stay: the log that an entry goes to, the log that makes room, and what of a
//! reclaimed segment is written again. Pure: no I/O, and no notion of a segment.
//!
//! ```text
//! insert ─► small log ─► reclaimed: hit ─► main log ─► reclaimed: hit ─► main log, one hit less
//!    │                      └► not hit ─► ghost            └► not hit ─► ghost
//!    └► its ghost is there ─► main log
//! ```
//!
//! As in S3-FIFO (Yang et al., SOSP 2023), entries that are asked for once leave by the small log,
//! before they displace anything in the main log. As in ARC (Megiddo and Modha, FAST 2003), the
//! share of the small log follows the ghosts: a key that returns soon after it left the small log
//! raises the share, a key that returns after it left the main log lowers it. No entry is refused:
//! each stays for at least one turnover of the small log.
//!
//! Among tenants, half of the store is divided as max-min fairness has it: a tenant that needs less than an
//! equal share keeps all that it has, and the others divide the rest ([`fair_share`]). Entries of tenants
//! below that share are sheltered: they are written again, hit or not. The tenants above it compete for
//! the rest as the entries of one tenant do. So no tenant, whatever it stores, makes the entries of
//! a tenant below the fair share leave.

use super::ghosts::Ghosts;
use super::log::Log;

/// Hits of an entry are counted up to here. More would keep what was popular once for longer:
/// with 3, 0.2 points are gained where popularity is stable, 0.4 lost where it shifts, and more is
/// written.
pub(crate) const HITS_MAX: u8 = 2;

/// The share of the small log, of the whole, in parts of [`SHARES`].
const SMALL_MIN: u64 = 20;
const SMALL_START: u64 = 50;
const SMALL_MAX: u64 = 500;
pub(crate) const SHARES: u64 = 1000;

/// The part of the whole that may be sheltered. With half of it, segments of which a third can become
/// free are always there, at one rewriting of two thirds each.
pub(crate) const SHELTERED_SHARES: u64 = 500;

/// The fair share is computed in at most so many rounds. Fewer than it may take give a smaller share.
const FAIR_ROUNDS_MAX: usize = 8;

/// The ghosts of each log are one part in this many of the entries. Fewer forget keys that return;
/// more take keys into the main log that return by chance, which is more to write.
const GHOSTS_SHARE: [u64; 2] = [4, 3];

/// What happens to a live entry of a reclaimed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is written to the main log, with these hits.
    Stays { hits: u8 },
    /// It goes, and leaves a ghost.
    Leaves,
}

/// What is remembered of entries that left, and the share of the small log.
#[derive(Debug, Default)]
pub(crate) struct Policy {
    ghosts: Ghosts,
    /// In bytes, once an entry returned.
    small_bytes: Option<u64>,
}

impl Policy {
    /// The log for a new entry of `bytes`; `bytes_max` is the room for both logs.
    pub(crate) fn log_for(&mut self, key: &[u8; 32], bytes: u64, bytes_max: u64) -> Log {
        let [small, main] = Log::BOTH.map(|log| self.ghosts.len(log).max(1));
        let Some(left) = self.ghosts.take(key) else {
            return Log::Small;
        };
        let share = self.small_share(bytes_max);
        // The fewer ghosts that log has, the more weight a return through one of them has.
        let share = match left {
            Log::Small => share.saturating_add(bytes.saturating_mul((main / small).max(1))),
            Log::Main => share.saturating_sub(bytes.saturating_mul((small / main).max(1))),
        };
        self.small_bytes = Some(share);
        self.small_bytes = Some(self.small_share(bytes_max));
        Log::Main
    }

    /// The log whose oldest segment makes room, when the small log takes `small_bytes`.
    pub(crate) fn makes_room(&self, small_bytes: u64, bytes_max: u64) -> Log {
        match small_bytes > self.small_share(bytes_max) {
            true => Log::Small,
            false => Log::Main,
        }
    }

    /// What happens to an entry with `hits` since it was written. Where it leaves,
    /// [`note_left`](Self::note_left) follows.
    pub(crate) fn verdict(hits: u8) -> Verdict {
        match hits.checked_sub(1) {
            Some(hits) => Verdict::Stays { hits },
            None => Verdict::Leaves,
        }
    }

    /// An entry has left a log. `entries` is the number of those that are there.
    pub(crate) fn note_left(&mut self, key: &[u8; 32], log: Log, entries: u64) {
        self.ghosts
            .add(key, log, entries / GHOSTS_SHARE[log as usize]);
    }

    fn small_share(&self, bytes_max: u64) -> u64 {
        let part = |share| (u128::from(bytes_max) * u128::from(share) / u128::from(SHARES)) as u64;
        let share = self.small_bytes.unwrap_or(part(SMALL_START));
        share.clamp(part(SMALL_MIN), part(SMALL_MAX))
    }
}

/// The share below which a tenant keeps all that it has, when the tenants use so much: those below it and
/// one share for each of the others are at most `whole`. All ones where all uses fit; 0 with fewer than two
/// tenants, which need no shelter from each other.
pub(crate) fn fair_share(uses: &[u64], whole: u64) -> u64 {
    if uses.len() < 2 {
        return 0;
    }
    let mut share = whole / uses.len() as u64;
    for _ in 0..FAIR_ROUNDS_MAX {
        let each = uses.iter().copied();
        let (below, above): (Vec<u64>, Vec<u64>) = each.partition(|used| *used <= share);
        if above.is_empty() {
            return u64::MAX;
        }
        let below = below
            .iter()
            .fold(0, |sum: u64, used| sum.saturating_add(*used));
        let next = whole.saturating_sub(below) / above.len() as u64;
        if next <= share {
            break;
        }
        share = next;
    }
    share
}

#[cfg(test)]
mod tests;
