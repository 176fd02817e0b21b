//! Lookups and fills, without Envoy: several workers are several tasks.

use super::*;
use reflex_host::cache::{Cache, CacheOptions, NewEntry};
use reflex_host::kept_head::{Notes, encode_head};
use reflex_llm::{Control, Tenant};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Wake, Waker};

#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// A request that is being decided about, as a stream has it.
struct Asks {
    deciding: Deciding,
    woken: Arc<Woken>,
}

impl Asks {
    fn poll(&mut self) -> Option<Decision> {
        let waker = Waker::from(Arc::clone(&self.woken));
        match self
            .deciding
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
        {
            Poll::Ready(decision) => Some(decision),
            Poll::Pending => None,
        }
    }
}

fn home() -> Arc<Home> {
    Arc::new(Home::around(Cache::in_memory(&CacheOptions::default())))
}

fn key(prompt: &str) -> Key {
    Key::for_prompt(&Tenant::of_group("us"), prompt)
}

fn wanted(prompt: &str) -> Wanted {
    Wanted {
        key: key(prompt),
        request: key(prompt),
        samples: 1,
        flow: Flow::of(&Control::of(&[])),
        wait: Duration::from_secs(3600),
    }
}

fn saying(prompt: &str, said: &str) -> Wanted {
    let control = Control::of(&[("cache-control", said.as_bytes())]);
    Wanted {
        flow: Flow::of(&control),
        ..wanted(prompt)
    }
}

fn asks(home: &Arc<Home>, wanted: Wanted) -> Asks {
    Asks {
        deciding: Box::pin(decide(Arc::clone(home), wanted)),
        woken: Arc::default(),
    }
}

fn store_with(home: &Home, key: &Key, metadata: &[u8]) -> Entry {
    let new = NewEntry {
        key: &home.key(key),
        tenant: &key.tenant.0,
        metadata,
        payload: b"an answer",
        now_ms: now_ms(),
        ttl_ms: None,
    };
    home.cache.insert_now(new).expect("room")
}

fn store(home: &Home, key: &Key) -> Entry {
    let headers = [("content-type".to_owned(), b"text/plain".to_vec())];
    store_with(home, key, &encode_head(200, &headers, &Notes::default()))
}

fn lead(decision: Option<Decision>) -> Lead {
    match decision {
        Some(Decision::Ask(Some(lead))) => lead,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_many_the_first_leads_and_all_get_its_answer() {
    let home = home();
    let leads = lead(asks(&home, wanted("a")).poll());
    let mut followers: Vec<_> = (0..100).map(|_| asks(&home, wanted("a"))).collect();
    for follower in &mut followers {
        assert!(follower.poll().is_none());
    }
    let entry = store(&home, &key("a"));
    leads.end(|| Outcome::Found(entry));
    for follower in &mut followers {
        assert_eq!(follower.woken.0.load(SeqCst), 1);
        assert!(matches!(follower.poll(), Some(Decision::Hit(hit)) if hit.is_fetched));
    }
    let after = asks(&home, wanted("a")).poll();
    assert!(matches!(after, Some(Decision::Hit(hit)) if !hit.is_fetched));
}

#[test]
fn when_the_leader_is_gone_one_follower_leads() {
    let home = home();
    let leads = lead(asks(&home, wanted("a")).poll());
    let (mut one, mut other) = (asks(&home, wanted("a")), asks(&home, wanted("a")));
    assert!(one.poll().is_none() && other.poll().is_none());
    drop(leads);
    let next = lead(one.poll());
    assert!(other.poll().is_none());
    next.end(|| Outcome::Unshared);
    assert!(matches!(other.poll(), Some(Decision::Ask(None))));
}

#[test]
fn a_follower_waits_no_longer_than_it_may() {
    let home = home();
    let _leads = lead(asks(&home, wanted("a")).poll());
    let none = Wanted {
        wait: Duration::ZERO,
        ..wanted("a")
    };
    assert!(matches!(
        asks(&home, none).poll(),
        Some(Decision::Ask(None))
    ));
    let mut short = asks(
        &home,
        Wanted {
            wait: Duration::from_nanos(1),
            ..wanted("a")
        },
    );
    assert!(matches!(short.poll(), Some(Decision::Ask(None))));
}

#[test]
fn nobody_follows_a_request_from_before_a_purge() {
    let home = home();
    let _leads = lead(asks(&home, wanted("a")).poll());
    home.cache.purge_all().expect("in memory");
    lead(asks(&home, wanted("a")).poll());
}

#[test]
fn clients_have_their_say() {
    let home = home();
    let absent = asks(&home, saying("a", "only-if-cached")).poll();
    assert!(matches!(absent, Some(Decision::Absent)));
    store(&home, &key("a"));
    let hit = asks(&home, saying("a", "only-if-cached")).poll();
    assert!(matches!(hit, Some(Decision::Hit(_))));
    let refresh = asks(&home, saying("a", "no-cache")).poll();
    assert!(matches!(refresh, Some(Decision::Ask(None))));
    assert!(now(&home, &key("a"), &saying("a", "no-cache").flow).is_none());
}

#[test]
fn any_of_several_answers_does_for_a_client_that_takes_only_cached_ones() {
    let home = home();
    store(&home, &key("a").sample(2));
    let mut several = saying("a", "only-if-cached");
    several.samples = 3;
    assert!(matches!(
        asks(&home, several).poll(),
        Some(Decision::Hit(_))
    ));
    several.samples = 2;
    assert!(matches!(
        asks(&home, several).poll(),
        Some(Decision::Absent)
    ));
}

#[test]
fn what_is_no_answer_is_a_miss() {
    let home = home();
    let of = |name: &str, value: &[u8]| {
        let headers = [(name.to_owned(), value.to_vec())];
        encode_head(200, &headers, &Notes::default())
    };
    let cases = [
        b"no head".to_vec(),
        encode_head(404, &[], &Notes::default()),
        of("x", b"a\r\nb"),
        of("x y", b"a"),
        of("", b"a"),
        of("X", b"a"),
    ];
    for metadata in cases {
        store_with(&home, &key("a"), &metadata);
        assert!(now(&home, &key("a"), &wanted("a").flow).is_none());
        lead(asks(&home, wanted("a")).poll());
    }
    store_with(&home, &key("a"), &of("x", b"\xe4"));
    assert!(now(&home, &key("a"), &wanted("a").flow).is_some());
}
