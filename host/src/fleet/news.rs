//! How an edge hears of purges and tells its own.
//!
//! ```text
//! each second, at a message, or after a purge here:
//!   bell ─► mine? │ else ledger ─► follow: begin ─► the cache drops ─► learn
//!   own beat behind? ─► a new season
//!   removals of mine ─► "removed" in place of the values ─► ledger
//!   ledger and bell ─► a message to all          own beat
//! ```
//!
//! The bell is the proof of the ledger: reading 32 bytes tells an edge that nothing has changed. Everything is
//! written as a whole by edges that may overwrite each other. What one of them knows and the engine does not,
//! that edge writes again a moment later.

use super::client::{Trouble, Write};
use super::file::{Again, Opened};
use super::generation::random;
use super::ledger::{Changes, Ledger};
use super::roster::{Beat, Id, Roster};
use super::secret::Name;
use super::state::following;
use super::{Parts, value};
use crate::cache::{Cache, CacheKey};
use crate::exchange::answer::StoredHead;
use futures_util::StreamExt as _;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

/// Between two polls.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Between two rounds that something has called for: other programs may send messages, too.
const ROUND_AFTER: Duration = Duration::from_millis(5);

/// The ledger itself is read with each so many polls, so that no engine evicts it as unused.
const LEDGER_EVERY: u64 = 16;

/// For the first news before the first request.
const FIRST_TIME_MAX: Duration = Duration::from_millis(250);

/// The file tells after a restart when this edge has last listened, give or take so much.
const KEEP_EVERY: Duration = Duration::from_secs(30);

/// A removed entry is not shared again for so long: longer than another edge may hold a write back.
const REMOVED_MS: u64 = 60_000;

/// Removals that one round tells.
const REMOVALS_A_ROUND: usize = 64;

/// A message may be lost with a connection that tells nothing.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIME_MAX: Duration = Duration::from_secs(2);
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(1);

const BEAT_MS: u64 = 24 * 3600 * 1000;
const ROSTER_MS: u64 = 600_000;
const ROSTER_EVERY: Duration = Duration::from_secs(10);
/// For each edge, so that a thousand edges do not read and write it all the time.
const ROSTER_LATER: Duration = Duration::from_millis(10);

/// Between two looks at the beats of those that have not acknowledged.
const ACKNOWLEDGED_EVERY: Duration = Duration::from_millis(20);

/// How often it is judged whether this edge has heard lately.
const JUDGE_EVERY: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct News {
    parts: Arc<Parts>,
    unheard_max: Duration,
    wait_max: Duration,
    ledger: String,
    bell: String,
    roster: (Name, String),
    id: Id,
    name: String,
    began_ms: u64,
    was_member: bool,
    /// A message has come.
    rung: Notify,
    heard: watch::Sender<Option<Instant>>,
    told: Mutex<Told>,
}

/// What this edge has written and read.
#[derive(Default)]
struct Told {
    rounds: u64,
    /// The count of the last beat that the engine has taken.
    beats: u64,
    kept: Option<Instant>,
    members: Roster,
    roster: Option<Instant>,
}

impl News {
    pub(super) fn new(
        parts: &Arc<Parts>,
        opened: &Opened,
        (wait_max, unheard_max): (Duration, Duration),
    ) -> Self {
        let named = |what: &[u8]| parts.secret.name(&[what]);
        let roster = named(b"roster");
        Self {
            ledger: parts.written(&named(b"ledger")),
            bell: parts.written(&named(b"bell")),
            roster: (roster, parts.written(&roster)),
            parts: Arc::clone(parts),
            unheard_max,
            wait_max,
            id: random(),
            name: name_of_this_edge(),
            began_ms: parts.clock.now_ms(),
            was_member: !matches!(opened, Opened::None),
            rung: Notify::new(),
            heard: watch::Sender::new(None),
            told: Mutex::default(),
        }
    }

    /// Since the last news; none before the first.
    pub(super) fn unheard(&self) -> Option<Duration> {
        self.heard.borrow().map(|heard| heard.elapsed())
    }

    /// Waits a moment for the first news.
    pub(super) async fn first(&self) {
        let mut heard = self.heard.subscribe();
        let first = heard.wait_for(Option::is_some);
        // Without it, everything is a miss for now.
        let _ = timeout(FIRST_TIME_MAX, first).await;
    }

    /// Judges, for as long as it is polled, whether this edge has heard lately. If not, entries from before
    /// are not found: they may have been purged.
    pub(super) async fn judge(&self) {
        let mut has_told = false;
        loop {
            let is_late = self.judge_now();
            if is_late != has_told {
                has_told = is_late;
                match is_late {
                    true => tracing::warn!(
                        "no news of the fleet's purges for too long: entries from before are misses"
                    ),
                    false => tracing::info!("the fleet's purges are known again"),
                }
            }
            sleep(JUDGE_EVERY).await;
        }
    }

    /// Whether this edge has not heard for too long.
    pub(super) fn judge_now(&self) -> bool {
        let mut is_late = false;
        // Under the lock of what was heard: no earlier judgement replaces a later one.
        self.heard.send_if_modified(|heard| {
            let now_ms = self.parts.clock.now_ms();
            let most = u64::try_from(self.unheard_max.as_millis()).unwrap_or(u64::MAX);
            let since = now_ms.saturating_sub(most);
            let trusted_since = match heard {
                Some(heard) if heard.elapsed() <= self.unheard_max => 0,
                Some(_) => since,
                None if self.was_member => since.max(self.began_ms),
                // Its entries are from before it was a member.
                None => 0,
            };
            is_late = heard.is_some() && trusted_since > 0;
            if is_late {
                self.parts.state.unheard();
            }
            self.parts.cache.trust_since(trusted_since);
            false
        });
        is_late
    }

    /// All that a round tells was heard; it began on the line of that number.
    fn heard(&self, line: u64) {
        self.heard.send_replace(Some(Instant::now()));
        self.parts.state.heard(line);
        self.judge_now();
    }

    /// Keeps this edge informed, for as long as it is polled.
    pub(super) async fn catch_up(&self, opened: Opened) {
        // After a panic nothing would be heard any more.
        let _guard = Distrust(&self.parts.cache);
        self.make_again(opened).await;
        loop {
            let has_more = match self.round().await {
                Ok(has_more) => has_more,
                Err(trouble) => {
                    tracing::debug!(why = trouble.why(), "no news of the fleet");
                    false
                }
            };
            sleep(ROUND_AFTER).await;
            if !has_more {
                tokio::select! {
                    () = sleep(POLL_EVERY) => {}
                    () = self.parts.state.changed.notified() => {}
                    () = self.rung.notified() => {}
                    () = self.parts.client.connected.notified() => {}
                }
            }
        }
    }

    /// Purges once more what may not have been durable when the last process ended.
    async fn make_again(&self, opened: Opened) {
        let again = match opened {
            Opened::None => return,
            Opened::Kept(kept) => kept.again,
            Opened::Damaged => Again {
                all: true,
                tenants: Vec::new(),
            },
        };
        let changes = Changes {
            all: again.all,
            tenants: again.tenants,
            keys: Vec::new(),
        };
        self.blocking(move |parts| {
            let is_durable = following(|| drop_from(&parts.cache, &changes, 0));
            parts.state.set_durable(is_durable);
            parts.state.keep();
        })
        .await;
    }

    /// One exchange of news. Whether there is more to tell at once.
    async fn round(&self) -> Result<bool, Trouble> {
        let parts = &self.parts;
        let (state, client) = (&parts.state, &parts.client);
        if parts.cache.has_left().is_some() {
            // The process that has the folder by now is a member of its own.
            return Err(Trouble::NotConnected);
        }
        let number = self.number_of_round();
        let line = client.number();
        if state.has_unkept() {
            self.blocking(|parts| parts.state.keep()).await;
        }
        let asked = Instant::now();
        let bell = client.get(&self.bell).await?;
        if asked.elapsed() <= self.wait_max {
            parts.breaker.probed();
        }
        // Whether the engine has just what is known here.
        let is_rung = || bell.as_deref() == Some(&state.proof()[..]);
        let mut is_told = is_rung();
        let mut is_lost = false;
        if !is_told || number.is_multiple_of(LEDGER_EVERY) {
            let bytes = client.get(&self.ledger).await?;
            match bytes.as_deref().and_then(|bytes| state.decode(bytes)) {
                Some(theirs) => {
                    let lacks = state.knows_more_than(&theirs);
                    // At the start that means an older state. Later, the others overwrite each other.
                    is_lost = lacks && !state.is_ready() && self.was_member;
                    is_told &= !lacks;
                    self.follow(theirs).await;
                    is_told &= is_rung();
                }
                None => is_lost = true,
            }
        }
        if !is_lost {
            is_lost = self.is_beat_behind().await?;
        }
        if is_lost {
            tracing::info!(
                "the fleet's engine is empty or behind: what it holds is not used any more"
            );
            state.begin_season();
            is_told = false;
        }
        is_told &= !self.take_out().await?;
        let (ledger, proof) = state.encoded();
        is_told &= bell.as_deref() == Some(&proof[..]);
        if is_told {
            state.confirmed(&proof);
        } else {
            client.set(&self.ledger, &ledger, Write::Lasting).await?;
            client.set(&self.bell, &proof, Write::Lasting).await?;
            client.publish(&self.bell, &proof).await?;
        }
        self.beat().await?;
        self.heard(line);
        self.keep_in_file(is_told).await;
        self.tell_roster().await?;
        Ok(!is_told)
    }

    fn number_of_round(&self) -> u64 {
        let mut told = self.told();
        told.rounds += 1;
        told.rounds
    }

    /// Drops what others have purged, and knows it from then on.
    async fn follow(&self, theirs: Ledger) {
        let changes = self.parts.state.begin(&theirs);
        self.blocking(move |parts| {
            let now_ms = parts.clock.now_ms();
            let is_durable = following(|| drop_from(&parts.cache, &changes, now_ms));
            parts.state.learn(&theirs, is_durable);
            let single = changes.tenants.len() + changes.keys.len();
            let count = u64::from(changes.all) + single as u64;
            parts.stats.followed(count);
        })
        .await;
    }

    /// Whether the engine has forgotten a beat of this edge that it had taken.
    async fn is_beat_behind(&self) -> Result<bool, Trouble> {
        let beats = self.told().beats;
        if beats == 0 {
            return Ok(false);
        }
        let beat = self.beat_of(&self.id).await?;
        Ok(beat.is_none_or(|beat| beat.count < beats))
    }

    async fn beat(&self) -> Result<(), Trouble> {
        let beat = Beat {
            count: self.told().beats + 1,
            ledger: self.parts.state.proof(),
        };
        let (name, written) = self.beat_name(&self.id);
        let bytes = beat.encode(&self.parts.secret, &name);
        self.parts
            .client
            .set(&written, &bytes, Write::Over(BEAT_MS))
            .await?;
        self.told().beats = beat.count;
        Ok(())
    }

    async fn beat_of(&self, id: &Id) -> Result<Option<Beat>, Trouble> {
        let (name, written) = self.beat_name(id);
        let bytes = self.parts.client.get(&written).await?;
        Ok(bytes.and_then(|bytes| Beat::decode(&self.parts.secret, &name, &bytes)))
    }

    fn beat_name(&self, id: &Id) -> (Name, String) {
        let name = self.parts.secret.name(&[b"beat", id]);
        (name, self.parts.written(&name))
    }

    /// Takes what was removed here out of the engine. Whether there was something.
    async fn take_out(&self) -> Result<bool, Trouble> {
        let parts = &self.parts;
        let keys = parts.state.to_take_out(REMOVALS_A_ROUND);
        // Not under the generation of a tenant: the name has none.
        let view = parts.state.view_for_removal();
        for key in &keys {
            let name = parts.name(key, &view);
            let bytes = value::removed(&parts.secret, &name);
            let written = parts.written(&name);
            parts
                .client
                .set(&written, &bytes, Write::Over(REMOVED_MS))
                .await?;
        }
        parts.state.taken_out(&keys);
        Ok(!keys.is_empty())
    }

    /// Writes the file after a change, and now and then.
    async fn keep_in_file(&self, is_told: bool) {
        let is_due = {
            let told = self.told();
            !is_told || told.kept.is_none_or(|kept| kept.elapsed() > KEEP_EVERY)
        };
        if !is_due {
            return;
        }
        self.blocking(|parts| {
            // Otherwise the next start makes them again.
            if parts.cache.sync().is_ok() {
                parts.state.set_durable(true);
            }
            parts.state.keep();
        })
        .await;
        self.told().kept = Some(Instant::now());
    }

    async fn tell_roster(&self) -> Result<(), Trouble> {
        let parts = &self.parts;
        let is_due = {
            let told = self.told();
            let count = u32::try_from(told.members.len()).unwrap_or(u32::MAX);
            let every = ROSTER_EVERY + ROSTER_LATER.saturating_mul(count);
            told.roster.is_none_or(|at| at.elapsed() > every)
        };
        if !is_due {
            return Ok(());
        }
        let mut members = self.read_roster().await?;
        members.see(self.id, &self.name, parts.clock.now_ms());
        self.write_roster(&members).await?;
        let mut told = self.told();
        told.members = members;
        told.roster = Some(Instant::now());
        parts.stats.edges(told.members.len() as u64);
        Ok(())
    }

    /// The edges that live, as far as this one has read.
    async fn read_roster(&self) -> Result<Roster, Trouble> {
        let parts = &self.parts;
        let bytes = parts.client.get(&self.roster.1).await?;
        let read = bytes.and_then(|bytes| Roster::decode(&parts.secret, &self.roster.0, &bytes));
        let mut members = self.told().members.clone();
        members.merge(read.unwrap_or_default(), parts.clock.now_ms());
        Ok(members)
    }

    async fn write_roster(&self, members: &Roster) -> Result<(), Trouble> {
        let bytes = members.encode(&self.parts.secret, &self.roster.0);
        let how = Write::Over(ROSTER_MS);
        self.parts
            .client
            .set(&self.roster.1, &bytes, how)
            .await
            .map(drop)
    }

    /// Takes this edge off the roster, so that nobody waits for it.
    pub(super) async fn leave(&self) {
        let leaving = async {
            let mut members = self.read_roster().await?;
            members.leave(&self.id);
            self.write_roster(&members).await?;
            self.parts.client.del(&self.beat_name(&self.id).1).await
        };
        if let Err(trouble) = leaving.await {
            tracing::debug!(
                why = trouble.why(),
                "the fleet was not told that this edge ends"
            );
        }
    }

    /// See [`Fleet::acknowledged`](super::Fleet::acknowledged).
    pub(super) async fn acknowledged(&self, most: Duration) -> Result<(), Vec<String>> {
        let deadline = Instant::now() + most;
        let mut waits_for = vec!["the fleet's engine".to_owned()];
        while Instant::now() < deadline {
            if self.parts.state.is_confirmed() {
                match self.behind().await {
                    Ok(behind) if behind.is_empty() => return Ok(()),
                    Ok(behind) => waits_for = behind,
                    Err(_) => waits_for = vec!["the fleet's engine".to_owned()],
                }
            }
            sleep(ACKNOWLEDGED_EVERY).await;
        }
        Err(waits_for)
    }

    /// The names of the edges that do not know what this one does.
    async fn behind(&self) -> Result<Vec<String>, Trouble> {
        let members = self.read_roster().await?;
        let mut behind = Vec::new();
        for (id, name) in members.members() {
            let beat = self.beat_of(&id).await?;
            if beat.is_none_or(|beat| beat.ledger != self.parts.state.proof()) {
                behind.push(name);
            }
        }
        Ok(behind)
    }

    /// Listens for messages, for as long as it is polled. Polls find what is missed.
    pub(super) async fn listen(&self) {
        loop {
            match self.parts.client.listen(&self.bell).await {
                Ok(ear) => {
                    // What was told before is not told again.
                    self.rung.notify_one();
                    let (mut sink, mut messages) = ear.split();
                    loop {
                        match timeout(PING_EVERY, messages.next()).await {
                            Ok(Some(_)) => self.rung.notify_one(),
                            Ok(None) => break,
                            Err(_) => {
                                let ping = sink.ping::<redis::Value>();
                                if !matches!(timeout(PING_TIME_MAX, ping).await, Ok(Ok(_))) {
                                    break;
                                }
                            }
                        }
                    }
                }
                Err(why) => tracing::debug!(why, "no messages of the fleet"),
            }
            sleep(LISTEN_AGAIN_AFTER).await;
        }
    }

    async fn blocking(&self, work: impl FnOnce(&Parts) + Send + 'static) {
        let parts = Arc::clone(&self.parts);
        if let Err(error) = tokio::task::spawn_blocking(move || work(&parts)).await {
            tracing::warn!(%error, "following the fleet's purges failed");
        }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops entries from the cache; whether that is durable. Waits for the disk.
pub(super) fn drop_from(cache: &Cache, changes: &Changes, now_ms: u64) -> bool {
    if changes.all {
        return cache.purge_all().is_ok();
    }
    let mut is_durable = true;
    for tenant in &changes.tenants {
        is_durable &= cache.purge_tenant(tenant).is_ok();
    }
    for key in &changes.keys {
        let key = CacheKey::from_bytes(*key);
        let entry = cache.peek(&key, now_ms);
        let head = entry
            .as_ref()
            .and_then(|entry| StoredHead::read(entry.metadata()));
        // Edges of this daemon drop that one, and not all that they have.
        match head.and_then(|head| head.digest.copied()) {
            Some(digest) => cache.remove_named(&key, &digest),
            None => cache.remove(&key),
        };
    }
    is_durable && (changes.keys.is_empty() || cache.sync().is_ok())
}

/// After a panic, entries cannot be trusted: no news would come any more.
struct Distrust<'c>(&'c Cache);

impl Drop for Distrust<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.trust_since(u64::MAX);
        }
    }
}

/// The host's name and the process's number, for people.
fn name_of_this_edge() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.as_deref().map_or("edge", str::trim);
    format!("{host}:{}", std::process::id())
}
