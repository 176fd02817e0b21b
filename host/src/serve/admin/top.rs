//! `GET /v1/top`: the models, routes and tenants with most entries.
//!
//! ```text
//! request ─► tally of the last seconds ─► JSON
//!               └► none: one scan of all entries; further requests wait for it
//! ```

use super::Admin;
use super::query;
use super::refusal::{Refusal, json};
use super::route::Route;
use crate::cache::{Cache, EntryHead};
use crate::exchange::answer::StoredHead;
use crate::sync::lock;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use serde::Serialize;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Models, and tenants, that a top list counts one by one. Further ones are counted together, as `other`.
const NAMES_MAX: usize = 4096;
/// Longer names of models are cut: a tally stays in memory, at most 1 MiB.
const MODEL_BYTES_MAX: usize = 128;

/// Tallies counted at once.
const COUNTS_MAX: usize = 1;
/// How long a tally is shown: a page that asks every second must not have all metadata read each time.
const FRESH_MAX: Duration = Duration::from_secs(10);

/// The longest top list.
const LIMIT_MAX: usize = 1000;
const LIMIT: usize = 10;

/// The newest tally, kept for the requests that come soon after it.
#[derive(Debug)]
pub(super) struct Tallies {
    last: Mutex<Last>,
    counting: Semaphore,
}

#[derive(Debug, Default)]
struct Last {
    /// How often entries were changed by operators.
    changes: u64,
    /// And when it was counted.
    tally: Option<(Instant, Arc<Tally>)>,
}

impl Tallies {
    pub(super) fn new() -> Self {
        Self {
            last: Mutex::default(),
            counting: Semaphore::new(COUNTS_MAX),
        }
    }

    /// The newest tally and when it was counted. Counts if there is none, or if it is older than
    /// [`FRESH_MAX`] `now`; waits for a count that is under way.
    async fn newest(
        &self,
        now: Instant,
        count: impl Future<Output = Result<Tally, Refusal>>,
    ) -> Result<(Instant, Arc<Tally>), Refusal> {
        // It is never closed.
        let _permit = self.counting.acquire().await;
        let changes = {
            let last = lock(&self.last);
            if let Some((counted, tally)) = &last.tally
                && now.saturating_duration_since(*counted) < FRESH_MAX
            {
                return Ok((*counted, Arc::clone(tally)));
            }
            last.changes
        };
        let tally = Arc::new(count.await?);
        let counted = now.max(Instant::now());
        let mut last = lock(&self.last);
        // A count that ran beside a purge may have seen what is gone.
        if last.changes == changes {
            last.tally = Some((counted, Arc::clone(&tally)));
        }
        Ok((counted, tally))
    }

    /// An operator has changed entries, and looks at what is left.
    pub(super) fn forget(&self) {
        let mut last = lock(&self.last);
        last.changes += 1;
        last.tally = None;
    }
}

#[derive(Clone, Copy, Debug)]
enum Sort {
    Entries,
    Bytes,
}

#[derive(Serialize)]
struct Top {
    /// How long ago it was counted.
    age_seconds: u64,
    entries: u64,
    bytes: u64,
    models: Vec<Share>,
    routes: Vec<Share>,
    tenants: Vec<Share>,
}

#[derive(Clone, Serialize)]
struct Share {
    name: String,
    entries: u64,
    bytes: u64,
}

pub(super) async fn top(State(admin): State<Arc<Admin>>, uri: Uri) -> Result<Response, Refusal> {
    let (mut limit, mut sort) = (LIMIT, Sort::Entries);
    query::read(&uri, |name, value| {
        match (name, value) {
            ("limit", value) => {
                let count = value.parse().ok();
                limit = count.filter(|it| (1..=LIMIT_MAX).contains(it))?;
            }
            ("sort", "entries") => sort = Sort::Entries,
            ("sort", "bytes") => sort = Sort::Bytes,
            _ => return None,
        }
        Some(())
    })?;
    let count = async {
        let permit = admin.scan_permit()?;
        let is_over = Leaving::default();
        let stop = Arc::clone(&is_over.0);
        let cache = admin.cache.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            Tally::of(&cache, &stop)
        });
        looked.await.map_err(Refusal::failed)
    };
    let (counted, tally) = admin.tallies.newest(Instant::now(), count).await?;
    let names = admin.names();
    let none = |model: &Option<String>| model.clone().unwrap_or_else(|| "none".into());
    Ok(json(&Top {
        age_seconds: counted.elapsed().as_secs(),
        entries: tally.all.entries,
        bytes: tally.all.bytes,
        models: tally.models.shares(limit, sort, none),
        routes: tally
            .routes
            .shares(limit, sort, |route| route.name().into()),
        tenants: tally
            .tenants
            .shares(limit, sort, |tenant| names.of_tenant(tenant)),
    }))
}

/// Tells a scan that nothing waits for it any more.
#[derive(Default)]
struct Leaving(Arc<AtomicBool>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    entries: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, head: &EntryHead<'_>) {
        self.entries += 1;
        self.bytes += head.record_bytes;
    }
}

/// Sums by name, for at most [`NAMES_MAX`] names.
#[derive(Debug)]
struct Sums<K> {
    of: HashMap<K, Sum>,
    other: Sum,
}

impl<K: Eq + Hash> Sums<K> {
    fn new() -> Self {
        Self {
            of: HashMap::new(),
            other: Sum::default(),
        }
    }

    fn add(&mut self, name: K, head: &EntryHead<'_>) {
        let is_full = self.of.len() >= NAMES_MAX;
        match self.of.get_mut(&name) {
            Some(sum) => sum.add(head),
            None if is_full => self.other.add(head),
            None => self.of.entry(name).or_default().add(head),
        }
    }

    fn shares(&self, limit: usize, sort: Sort, name: impl Fn(&K) -> String) -> Vec<Share> {
        let share = |(key, sum): (&K, &Sum)| Share {
            name: name(key),
            entries: sum.entries,
            bytes: sum.bytes,
        };
        let mut shares: Vec<Share> = self.of.iter().map(share).collect();
        shares.sort_by(|a, b| {
            let order = match sort {
                Sort::Entries => b.entries.cmp(&a.entries),
                Sort::Bytes => b.bytes.cmp(&a.bytes),
            };
            order.then_with(|| a.name.cmp(&b.name))
        });
        let mut other = self.other;
        for share in shares.drain(limit.min(shares.len())..) {
            other.entries += share.entries;
            other.bytes += share.bytes;
        }
        if other.entries > 0 {
            shares.push(Share {
                name: "other".into(),
                entries: other.entries,
                bytes: other.bytes,
            });
        }
        shares
    }
}

#[derive(Debug)]
struct Tally {
    all: Sum,
    /// `None`: the answer names no model.
    models: Sums<Option<String>>,
    routes: Sums<Route>,
    tenants: Sums<[u8; 32]>,
}

impl Tally {
    fn of(cache: &Cache, stop: &AtomicBool) -> Self {
        let mut tally = Self {
            all: Sum::default(),
            models: Sums::new(),
            routes: Sums::new(),
            tenants: Sums::new(),
        };
        cache.for_each_head(|head| {
            let stored = StoredHead::read(head.metadata);
            let model = stored.as_ref().and_then(|stored| stored.model);
            tally.all.add(head);
            let model = model.map(|model| &model[..model.floor_char_boundary(MODEL_BYTES_MAX)]);
            tally.models.add(model.map(str::to_owned), head);
            tally.routes.add(Route::of(stored.as_ref()), head);
            tally.tenants.add(head.tenant, head);
            match stop.load(Relaxed) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::CacheOptions;
    use std::sync::atomic::AtomicU32;
    use tokio::sync::Notify;

    /// Counts the counts.
    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Counter {
        fn count(&self) -> Result<Tally, Refusal> {
            self.0.fetch_add(1, Relaxed);
            let cache = Cache::in_memory(&CacheOptions::default());
            Ok(Tally::of(&cache, &AtomicBool::new(false)))
        }

        fn times(&self) -> u32 {
            self.0.load(Relaxed)
        }
    }

    async fn newest(tallies: &Tallies, now: Instant, counter: &Counter) -> Instant {
        let newest = tallies.newest(now, async { counter.count() }).await;
        newest.expect("a tally").0
    }

    #[tokio::test]
    async fn a_tally_is_shown_for_some_seconds_unless_an_operator_changes_entries() {
        let (tallies, counter) = (Tallies::new(), Counter::default());
        let first = newest(&tallies, Instant::now(), &counter).await;
        let last = first + FRESH_MAX - Duration::from_millis(1);
        assert_eq!(newest(&tallies, last, &counter).await, first);
        assert_eq!(counter.times(), 1);
        let second = newest(&tallies, first + FRESH_MAX, &counter).await;
        assert!(second > first);
        assert_eq!(counter.times(), 2);
        tallies.forget();
        newest(&tallies, second, &counter).await;
        assert_eq!(counter.times(), 3);
    }

    #[tokio::test]
    async fn requests_at_the_same_time_have_entries_read_once() {
        let (tallies, counter, go) = (Tallies::new(), Counter::default(), Notify::new());
        let now = Instant::now();
        let slow = tallies.newest(now, async {
            go.notified().await;
            counter.count()
        });
        let others = async {
            let others = [(); 8].map(|()| newest(&tallies, now, &counter));
            // They come while the first one counts.
            go.notify_one();
            for other in others {
                other.await;
            }
        };
        let (slow, ()) = tokio::join!(slow, others);
        slow.expect("a tally");
        assert_eq!(counter.times(), 1);
    }

    #[tokio::test]
    async fn a_count_beside_a_purge_and_one_that_fails_are_not_kept() {
        let (tallies, counter) = (Tallies::new(), Counter::default());
        let now = Instant::now();
        let beside = async {
            tallies.forget();
            counter.count()
        };
        tallies.newest(now, beside).await.expect("a tally");
        newest(&tallies, now, &counter).await;
        assert_eq!(counter.times(), 2);
        tallies.forget();
        let busy = async { Err(Refusal::busy("a test")) };
        assert!(tallies.newest(now, busy).await.is_err());
        newest(&tallies, now, &counter).await;
        assert_eq!(counter.times(), 3);
    }

    #[test]
    fn names_past_the_bound_are_counted_together() {
        let mut sums = Sums::new();
        let head = EntryHead {
            key: crate::cache::CacheKey::from_bytes([0; 32]),
            tenant: [0; 32],
            metadata: &[],
            payload_bytes: 1,
            record_bytes: 1,
            stored_at_ms: 0,
            expires_at_ms: None,
        };
        for name in 0..NAMES_MAX + 5 {
            sums.add(name, &head);
        }
        let shares = sums.shares(1, Sort::Entries, ToString::to_string);
        let counts: Vec<_> = shares.iter().map(|it| (&*it.name, it.entries)).collect();
        assert_eq!(counts, [("0", 1), ("other", NAMES_MAX as u64 + 4)]);
    }
}
