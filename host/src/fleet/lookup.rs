//! Lookups in the fleet: each within its time, few at once, and everything verified before it is stored here.
//!
//! ```text
//! fetch ─► mark ─► view ─► place ─► task: GET ─► decode ─► insert since the mark
//!             └ waits for the task, `wait_max` at most; the task goes on, and a late answer is stored
//! ```
//!
//! The mark comes before the view: a purge after the mark refuses the insert, and one that was under way has
//! hidden the view.

use super::client::Trouble;
use super::ledger::CLOCKS_DIFFER_MS_MAX;
use super::state::View;
use super::stats::Looked;
use super::value::{Expected, Found, Value, decode};
use super::{Name, Parts};
use crate::cache::{CacheKey, Entry, Mark, NewEntry};
use crate::exchange::answer::StoredHead;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Lookups under way at once, those included whose client has gone on. None waits for a place.
const LOOKUPS_MAX: usize = 256;

/// Payloads over this length are stored on a blocking thread.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Lives shrink by up to a tenth, so that the edges do not all ask again at the same moment.
const SHRINKS_BY: u64 = 10;

pub(super) struct Lookups {
    parts: Arc<Parts>,
    wait_max: Duration,
    places: Arc<Semaphore>,
}

impl Lookups {
    pub(super) fn new(parts: &Arc<Parts>, wait_max: Duration) -> Self {
        Self {
            parts: Arc::clone(parts),
            wait_max,
            places: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// See [`Remote::fetch`](crate::cache::Remote::fetch).
    pub(super) async fn fetch(
        &self,
        key: CacheKey,
        tenant: [u8; 32],
        life_ms_max: Option<u64>,
    ) -> Option<Entry> {
        let (outcome, found) = self.look(key, tenant, life_ms_max).await;
        self.parts.stats.looked(outcome);
        found
    }

    async fn look(
        &self,
        key: CacheKey,
        tenant: [u8; 32],
        life_ms_max: Option<u64>,
    ) -> (Looked, Option<Entry>) {
        let parts = &self.parts;
        if parts.breaker.is_open() {
            return (Looked::Open, None);
        }
        if parts.cache.has_left().is_some() {
            return (Looked::Unready, None);
        }
        let since = parts.cache.purges().now();
        let line = parts.client.number();
        let Some(view) = parts.state.view_to_fetch(&key, &tenant, line) else {
            return (Looked::Unready, None);
        };
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            parts.breaker.failed("all places for lookups are taken");
            return (Looked::Busy, None);
        };
        let wanted = Wanted {
            key,
            tenant,
            view,
            line,
            since,
            life_ms_max,
        };
        let (tell, told) = tokio::sync::oneshot::channel();
        let task = Arc::clone(parts);
        // Not the client's: it goes on without it.
        tokio::spawn(async move {
            let looked = wanted.look(&task).await;
            drop(place);
            if let Err((_, Some(_))) = tell.send(looked) {
                task.stats.late_fill();
            }
        });
        match timeout(self.wait_max, told).await {
            Ok(Ok((outcome, found))) => {
                match outcome {
                    Looked::Failed => parts.breaker.failed("lookups fail"),
                    Looked::Late => parts.breaker.failed("answers come too late"),
                    _ => parts.breaker.succeeded(),
                }
                (outcome, found)
            }
            // The task has panicked, which is told by its own message.
            Ok(Err(_)) => (Looked::Failed, None),
            Err(_) => {
                parts.breaker.failed("answers come too late");
                (Looked::Late, None)
            }
        }
    }
}

/// What is looked for, and since when.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    key: CacheKey,
    tenant: [u8; 32],
    view: View,
    /// The number of the line on which the purges were heard.
    line: u64,
    since: Mark,
    life_ms_max: Option<u64>,
}

impl Wanted {
    async fn look(self, parts: &Arc<Parts>) -> (Looked, Option<Entry>) {
        let name = parts.name(&self.key, &self.view);
        let written = parts.written(&name);
        let bytes = match parts.client.get_on(self.line, &written).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return (Looked::Miss, None),
            Err(Trouble::Late) => return (Looked::Late, None),
            Err(_) => return (Looked::Failed, None),
        };
        let is_long = bytes.len() > INLINE_BYTES_MAX;
        let keeper = Arc::clone(parts);
        let keep = move || self.keep(&keeper, &name, &bytes);
        let kept = match is_long {
            false => keep(),
            true => match tokio::task::spawn_blocking(keep).await {
                Ok(kept) => kept,
                Err(_) => return (Looked::Failed, None),
            },
        };
        match kept {
            Kept::Here(entry) => (Looked::Hit, Some(entry)),
            Kept::Not => (Looked::Miss, None),
            Kept::Remove(outcome) => {
                // Another edge may write there again.
                let _ = parts.client.del(&written).await;
                (outcome, None)
            }
        }
    }

    /// Verifies a value and stores it here.
    fn keep(&self, parts: &Parts, name: &Name, bytes: &[u8]) -> Kept {
        let expected = Expected {
            key: self.key,
            tenant: self.tenant,
            generation: self.view.tenant,
        };
        let value = match decode(&parts.secret, name, &expected, bytes) {
            Ok(Found::Answer(value)) => value,
            Ok(Found::Removed | Found::Later) => return Kept::Not,
            Ok(Found::Purged) => return Kept::Remove(Looked::Miss),
            Err(_) => return Kept::Remove(Looked::Refused),
        };
        // What is no answer over HTTP could not be served.
        if StoredHead::read(value.metadata).is_none() {
            return Kept::Remove(Looked::Refused);
        }
        if is_removed(value.stored_at_ms, self.view.removed_at_ms) {
            return Kept::Remove(Looked::Miss);
        }
        let now_ms = parts.clock.now_ms();
        let Some(ttl_ms) = life(&value, now_ms, self.life_ms_max, draw()) else {
            return Kept::Not;
        };
        // A newer one may have come meanwhile.
        if parts.cache.may_contain(&self.key, now_ms) {
            return Kept::Not;
        }
        let new = NewEntry {
            key: &self.key,
            tenant: &self.tenant,
            metadata: value.metadata,
            payload: value.payload,
            now_ms: value.stored_at_ms,
            ttl_ms: ttl_ms.forever_or(),
        };
        match parts.cache.insert_now_since(new, self.since) {
            Ok(entry) => Kept::Here(entry),
            Err(_) => Kept::Not,
        }
    }
}

/// Whether an answer may be from before its key was removed: another edge has written it late, or the engine
/// has lost the mark of the removal. Clocks differ.
fn is_removed(stored_at_ms: u64, removed_at_ms: Option<u64>) -> bool {
    removed_at_ms.is_some_and(|at| stored_at_ms < at.saturating_add(CLOCKS_DIFFER_MS_MAX))
}

/// What became of a value.
enum Kept {
    Here(Entry),
    Not,
    /// It is of no use there.
    Remove(Looked),
}

/// How long an entry lives here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// From when it was made.
    Ms(u64),
    Forever,
}

impl Life {
    fn forever_or(self) -> Option<u64> {
        match self {
            Self::Ms(ms) => Some(ms),
            Self::Forever => None,
        }
    }
}

/// How long a value lives here, counted from when it was made: never longer than it does elsewhere, nor than
/// `most`. `random` is from 0 to 1,000,000. None if it is over, or was made later than now: its age is
/// unknown.
fn life(value: &Value<'_>, now_ms: u64, most: Option<u64>, random: u64) -> Option<Life> {
    let age = now_ms.checked_sub(value.stored_at_ms)?;
    let stated = match value.expires_at_ms {
        Some(at) => Some(at.checked_sub(value.stored_at_ms)?),
        None => None,
    };
    let Some(whole) = [stated, most].into_iter().flatten().min() else {
        return Some(Life::Forever);
    };
    let left = whole.checked_sub(age).filter(|left| *left > 0)?;
    let share = u128::from(left) * u128::from(random.min(MILLION));
    let less = share / u128::from(MILLION * SHRINKS_BY);
    // A tenth of `left` fits.
    Some(Life::Ms(whole - u64::try_from(less).unwrap_or(0)))
}

const MILLION: u64 = 1_000_000;

fn draw() -> u64 {
    RandomState::new().hash_one(0) % (MILLION + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::generation::Generation;

    fn value(expires_at_ms: Option<u64>) -> Value<'static> {
        Value {
            key: CacheKey::from_bytes([1; 32]),
            tenant: [2; 32],
            generation: Generation::default(),
            stored_at_ms: 1000,
            expires_at_ms,
            metadata: b"",
            payload: b"",
        }
    }

    #[test]
    fn an_answer_from_before_its_removal_is_refused_whatever_the_clocks_say() {
        let check = |stored_at_ms, removed_at_ms, expected| {
            assert_eq!(is_removed(stored_at_ms, removed_at_ms), expected);
        };
        check(0, None, false);
        check(99_999, Some(100_000), true);
        check(100_000 + CLOCKS_DIFFER_MS_MAX - 1, Some(100_000), true);
        check(100_000 + CLOCKS_DIFFER_MS_MAX, Some(100_000), false);
        check(u64::MAX - 1, Some(u64::MAX), true);
    }

    #[test]
    fn lives_shrink_by_a_tenth_at_most_and_never_grow() {
        let check = |expires, now, most, random, expected| {
            assert_eq!(life(&value(expires), now, most, random), expected);
        };
        let ms = |ms| Some(Life::Ms(ms));
        check(Some(2000), 1000, None, 0, ms(1000));
        check(Some(2000), 1000, None, MILLION, ms(900));
        check(Some(2000), 1500, None, MILLION, ms(950));
        // It ends, whatever was drawn.
        check(Some(2000), 1999, None, MILLION, ms(1000));
        check(Some(2000), 2000, None, 0, None);
        check(Some(2000), 999, None, 0, None);
        check(Some(500), 1000, None, 0, None);
        check(None, 1000, None, MILLION, Some(Life::Forever));
        check(None, 1500, Some(1000), 0, ms(1000));
        check(Some(9000), 1500, Some(1000), MILLION, ms(950));
        check(Some(9000), 2000, Some(1000), 0, None);
        check(
            Some(u64::MAX - 1),
            1000,
            Some(u64::MAX),
            0,
            ms(u64::MAX - 1001),
        );
        for _ in 0..1000 {
            assert!(draw() <= MILLION);
        }
    }
}
