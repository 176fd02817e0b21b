//! What becomes of a request whose key is known: the cache answers it, it follows another request
//! that asks the provider already, or it asks itself.

use crate::clock::Sleep;
use crate::home::Home;
use reflex_host::cache::{CacheKey, Entry, Lookup};
use reflex_host::clock::Clock;
use reflex_host::flights::{Lead, Outcome, Turn, Waiter};
use reflex_host::kept_head::KeptHead;
use reflex_llm::{Flow, Key};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Bound of the answers that are looked for when a client accepts any cached one. They are numbered
/// from 0, and the first come first.
const OTHERS_MAX: u32 = 16;

static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    CLOCK.now_ms()
}

/// What is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The key of the answer whose turn it is.
    pub(crate) key: Key,
    /// The key of the request, of which those of all its answers are made.
    pub(crate) request: Key,
    /// How many answers a request has.
    pub(crate) samples: u32,
    /// What client and operator let the request do.
    pub(crate) flow: Flow,
    /// How long it waits for another request's answer; zero is not at all.
    pub(crate) wait: Duration,
}

/// An answer of the cache that the client accepts.
#[derive(Debug)]
pub(crate) struct Hit {
    /// The entry; its metadata is the head of a whole answer.
    pub(crate) entry: Entry,
    /// Whether it was fetched while this request waited for it.
    pub(crate) is_fetched: bool,
    /// Seconds since it was stored.
    pub(crate) age_seconds: u64,
    /// Seconds until it expires; none is never.
    pub(crate) ttl_seconds: Option<u64>,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Decision {
    /// The cache answers.
    Hit(Hit),
    /// The provider is asked, perhaps for others as well.
    Ask(Option<Lead>),
    /// The provider is not to be asked.
    Absent,
}

/// A decision that may take time. Dropped, the request leads and follows no more.
pub(crate) type Deciding = Pin<Box<dyn Future<Output = Decision>>>;

/// An answer that is in memory, without waiting.
pub(crate) fn now(home: &Home, key: &Key, flow: &Flow) -> Option<Hit> {
    let now_ms = now_ms();
    let found = home.cache.lookup_now(&home.key(key), now_ms)?;
    accepted(found, flow, now_ms)
}

/// Decides. It may wait for the disk, a quarter of a second at most, and for another request, as long
/// as `wanted` says.
pub(crate) async fn decide(home: Arc<Home>, wanted: Wanted) -> Decision {
    let flow = wanted.flow;
    let key = home.key(&wanted.key);
    let until = Instant::now() + wanted.wait;
    let mut lead = None;
    for joins in flow.looks() {
        if let Some(hit) = look(&home, &key, &flow).await {
            // Dropped here, a lead has its followers look as well.
            return Decision::Hit(hit);
        }
        if lead.is_some() || !joins || wanted.wait.is_zero() {
            break;
        }
        match home.fills.join(&key, &wanted.key.tenant) {
            Turn::Lead(leads) => lead = Some(leads),
            Turn::Alone => break,
            Turn::Wait(waiter) => match within(waiter, until).await {
                Some(Outcome::Found(entry)) => {
                    if let Some(mut hit) = accepted(Lookup::Hit(entry), &flow, now_ms()) {
                        hit.is_fetched = true;
                        return Decision::Hit(hit);
                    }
                    // The provider has just sent it; the next answer would be no fresher.
                    break;
                }
                Some(Outcome::Gone) => {}
                Some(Outcome::Unshared | Outcome::Failed(_)) => break,
                None => {
                    if let Some(hit) = look(&home, &key, &flow).await {
                        return Decision::Hit(hit);
                    }
                    break;
                }
            },
        }
    }
    if flow.takes_any_sample() && wanted.samples > 1 {
        for number in 0..wanted.samples.min(OTHERS_MAX) {
            let other = home.key(&wanted.request.sample(number));
            if let Some(hit) = look(&home, &other, &flow).await {
                return Decision::Hit(hit);
            }
        }
    }
    match flow.asks() {
        true => Decision::Ask(lead),
        false => Decision::Absent,
    }
}

async fn look(home: &Home, key: &CacheKey, flow: &Flow) -> Option<Hit> {
    let now_ms = now_ms();
    let found = home.cache.lookup_async(key, now_ms).await;
    accepted(found, flow, now_ms)
}

/// An entry that this client accepts, and that can be served as an answer. Others may be in the same
/// folder: components keep what they like, under keys of their own.
fn accepted(found: Lookup, flow: &Flow, now_ms: u64) -> Option<Hit> {
    let entry = found.hit()?;
    let age_seconds = entry.age_seconds(now_ms);
    let ttl_seconds = entry.ttl_seconds(now_ms);
    if !flow.looks_up() || !flow.accepts(age_seconds, ttl_seconds) {
        return None;
    }
    let head = KeptHead::read(entry.metadata())?;
    let is_whole =
        head.status() == 200 && head.headers().all(|(name, value)| is_header(name, value));
    is_whole.then_some(Hit {
        entry,
        is_fetched: false,
        age_seconds,
        ttl_seconds,
    })
}

/// Whether Envoy can send it. What the recorder stores came in as a header; a damaged folder may have
/// anything.
fn is_header(name: &[u8], value: &[u8]) -> bool {
    let is_token = |byte: &u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-' || *byte == b'_'
    };
    !name.is_empty()
        && name.iter().all(is_token)
        && value
            .iter()
            .all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f))
}

/// The outcome, or none if it is not there by then.
async fn within(waiter: Waiter, until: Instant) -> Option<Outcome> {
    let mut waiter = pin!(waiter);
    let mut sleep = pin!(Sleep::until(until));
    poll_fn(|context| {
        if let Poll::Ready(outcome) = waiter.as_mut().poll(context) {
            return Poll::Ready(Some(outcome));
        }
        sleep.as_mut().poll(context).map(|()| None)
    })
    .await
}

#[cfg(test)]
mod tests;
