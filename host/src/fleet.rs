//! The fleet: daemons that share what any of them has fetched, on a Redis or Valkey that runs already.
//! `docs/fleet.md` describes it.
//!
//! ```text
//! L1 ─► disk ─► fleet: view ─► GET ─► value: proven? of this key, tenant, purge? ─► cache, client
//!                         └ not heard, a purge under way, breaker open, all places taken ─► provider
//! recorded ─► queue, bounded ─► SET, only where nothing is
//! purge ─► state ─► news: ledger merged, written, told ─► the other edges' news ─► their caches
//! ```
//!
//! Only values that never change are shared. Nothing of the fleet is the client's trouble: whatever fails
//! or takes longer than `fleet_wait_max` is a miss.

mod address;
mod breaker;
mod client;
mod dial;
mod file;
mod generation;
mod ledger;
mod lookup;
mod news;
mod roster;
mod secret;
mod sharing;
mod state;
mod stats;
mod value;

pub(crate) use address::Address;
pub(crate) use dial::Files;
pub(crate) use secret::Secret;
pub(crate) use stats::{Looked, Shared};

use crate::cache::{Cache, CacheKey, Entry, Remote};
use crate::clock::Clock;
use breaker::Breaker;
use client::Client;
use dial::Dialler;
use lookup::Lookups;
use news::News;
use secret::Name;
use sharing::Sharing;
use state::{State, View};
use stats::{Counts, Stats};
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// How an edge takes part.
#[derive(Clone)]
pub(crate) struct FleetOptions {
    pub(crate) address: Address,
    pub(crate) files: Files,
    pub(crate) secret: Secret,
    /// What all names in Redis begin with.
    pub(crate) prefix: String,
    /// How long a lookup waits.
    pub(crate) wait_max: Duration,
    /// How long entries count without news of purges.
    pub(crate) unheard_max: Duration,
    /// Where the data folder is.
    pub(crate) data_dir: PathBuf,
}

/// This edge's part of the fleet. It takes part for as long as this lives.
pub(crate) struct Fleet {
    parts: Arc<Parts>,
    sharing: Sharing,
    lookups: Lookups,
    news: Arc<News>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

/// What all parts of a fleet use.
#[derive(Debug)]
struct Parts {
    cache: Cache,
    clock: Clock,
    client: Client,
    breaker: Breaker,
    state: Arc<State>,
    stats: Stats,
    secret: Secret,
    prefix: String,
}

impl Fleet {
    /// Takes part from now on. Connects in the background, and waits a moment for the first news, so that
    /// the first clients find what the fleet has.
    ///
    /// # Errors
    ///
    /// A line that names a file that cannot be used.
    pub(crate) async fn join(options: FleetOptions, cache: &Cache) -> Result<Arc<Self>, String> {
        let dialler = Dialler::new(options.address, options.files);
        dialler.check()?;
        let clock = Clock::system();
        let secret = options.secret;
        let path = options.data_dir.join(file::FILE_NAME);
        let ledger = secret.name(&[b"ledger"]);
        let (state, opened) = State::new(secret.clone(), ledger, Some(path), clock.clone());
        let parts = Arc::new(Parts {
            cache: cache.clone(),
            clock,
            client: Client::new(dialler),
            breaker: Breaker::default(),
            state: Arc::new(state),
            stats: Stats::default(),
            secret,
            prefix: options.prefix,
        });
        let times = (options.wait_max, options.unheard_max);
        let news = Arc::new(News::new(&parts, &opened, times));
        // Before the first request: what the last process had not heard of is not served.
        news.judge_now();
        cache.purges().listen(&parts.state);
        let mut tasks = JoinSet::new();
        let sharing = Sharing::start(&parts, &mut tasks);
        let keeper = Arc::clone(&parts);
        tasks.spawn(async move { keeper.client.keep().await });
        let judging = Arc::clone(&news);
        tasks.spawn(async move { judging.judge().await });
        let catching_up = Arc::clone(&news);
        tasks.spawn(async move { catching_up.catch_up(opened).await });
        let listening = Arc::clone(&news);
        tasks.spawn(async move { listening.listen().await });
        news.first().await;
        let fleet = Arc::new(Self {
            lookups: Lookups::new(&parts, options.wait_max),
            parts,
            sharing,
            news,
            _tasks: tasks,
        });
        cache.share_with(&fleet);
        Ok(fleet)
    }

    /// Tells the others that this edge ends, so that nobody waits for it.
    pub(crate) async fn leave(&self) {
        self.news.leave().await;
    }

    /// What was counted so far.
    pub(crate) fn counts(&self) -> Counts {
        self.parts.stats.counts(
            self.parts.breaker.is_open(),
            self.parts.client.is_connected(),
            self.news.unheard(),
        )
    }

    /// Waits until all other edges that live have followed all purges that were made here, at most `most`.
    /// Returns the names of those that have not.
    pub(crate) async fn acknowledged(&self, most: Duration) -> Result<(), Vec<String>> {
        self.news.acknowledged(most).await
    }
}

impl Parts {
    /// The name of a key's entry under these generations. Not of its tenant's: a removal knows the key alone.
    /// The value has that one.
    fn name(&self, key: &CacheKey, view: &View) -> Name {
        let (all, season) = (view.all.to_bytes(), view.season.to_bytes());
        self.secret.name(&[b"entry", &all, &season, key.as_bytes()])
    }

    fn written(&self, name: &Name) -> String {
        name.written(&self.prefix)
    }
}

impl Remote for Fleet {
    fn fetch<'r>(
        &'r self,
        key: &CacheKey,
        tenant: &[u8; 32],
        life_ms_max: Option<u64>,
    ) -> Pin<Box<dyn Future<Output = Option<Entry>> + Send + 'r>> {
        let (key, tenant) = (*key, *tenant);
        Box::pin(self.lookups.fetch(key, tenant, life_ms_max))
    }

    fn share(&self, key: &CacheKey, tenant: &[u8; 32]) {
        self.sharing.share(key, tenant);
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").finish_non_exhaustive()
    }
}

impl fmt::Debug for FleetOptions {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetOptions")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
