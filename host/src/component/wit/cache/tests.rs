//! What grants allow, as a guest sees it.

use super::*;
use crate::cache::tests::Durable;
use crate::cache::{Cache, CacheKey, Mark};
use crate::clock::Clock;
use crate::component::bindings::cache::{LlmRequest, Prompt};
use crate::component::bindings::keyvalue;
use crate::component::bindings::keyvalue::HostBucket as _;
use crate::component::wit::keyvalue::Bucket;
use crate::grant::{Grant, Tenants};
use reflex_llm::{Lifetimes, Stated, Tenant};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A component with this grant, and the time it lives in.
struct Component {
    ctx: ReflexCtx,
    table: ResourceTable,
    now_ms: Arc<AtomicU64>,
}

impl Component {
    fn new(grant: Grant) -> Self {
        Self::beside(&Cache::in_memory(&Default::default()), grant)
    }

    fn beside(cache: &Cache, grant: Grant) -> Self {
        let now_ms = Arc::new(AtomicU64::new(1_000_000));
        let clock = Arc::clone(&now_ms);
        Self {
            ctx: ReflexCtx {
                cache: cache.clone(),
                grant,
                clock: Clock::from_fn(move || clock.load(Ordering::Relaxed)),
            },
            table: ResourceTable::new(),
            now_ms,
        }
    }

    fn view(&mut self) -> ReflexCtxView<'_> {
        ReflexCtxView {
            ctx: &self.ctx,
            table: &mut self.table,
        }
    }

    /// Stores `bytes` times `-`.
    fn insert(&mut self, name: Name, bytes: usize) -> Result<(), Error> {
        let options = InsertOptions { ttl_seconds: None };
        let payload = vec![b'-'; bytes];
        let inserted = self.view().insert(name, Vec::new(), payload, options);
        inserted.expect("no trap")
    }

    fn finds(&mut self, name: Name) -> Result<bool, Error> {
        let found = self.view().lookup(name).expect("no trap")?;
        Ok(found.is_some())
    }

    fn remove(&mut self, name: Name) -> Result<bool, Error> {
        self.view().remove(name).expect("no trap")
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.ctx.grant.allowance.refused(refusal)
    }
}

const ALICE: Tenant = Tenant([1; 32]);
const BOB: Tenant = Tenant([2; 32]);

fn prompt(tenant: &[u8], text: &str) -> Name {
    Name::Prompt(Prompt {
        tenant: tenant.to_vec(),
        text: text.into(),
    })
}

fn request(credential: Option<&str>) -> Name {
    let header = credential.map(|value| ("authorization".to_owned(), value.as_bytes().to_vec()));
    Name::Request(LlmRequest {
        method: "POST".into(),
        upstream: "https://api.test".into(),
        path: "/v1/chat/completions".into(),
        headers: header.into_iter().collect(),
        body: br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#.to_vec(),
    })
}

fn denied(reason: &str) -> Error {
    Error::Denied(reason.into())
}

fn exceeded(reason: &str) -> Error {
    Error::QuotaExceeded(reason.into())
}

fn same<T: std::fmt::Debug>(result: Result<T, Error>, expected: Result<T, Error>) {
    assert_eq!(format!("{result:?}"), format!("{expected:?}"));
}

#[test]
fn a_component_of_one_tenant_names_no_other() {
    let cache = Cache::in_memory(&Default::default());
    let mut alices = Component::beside(&cache, Grant::new("n").for_tenant(ALICE));
    let mut anybodys = Component::beside(&cache, Grant::new("n"));
    same(anybodys.insert(prompt(&BOB.0, "a"), 1), Ok(()));

    same(alices.finds(prompt(&BOB.0, "a")), Err(denied("tenant")));
    same(alices.insert(prompt(&BOB.0, "a"), 1), Err(denied("tenant")));
    same(alices.remove(prompt(&BOB.0, "a")), Err(denied("tenant")));
    let key = Key::for_prompt(&BOB, "a");
    let key = Name::Key(cache::Key {
        tenant: BOB.0.to_vec(),
        digest: key.digest.to_vec(),
    });
    same(alices.finds(key), Err(denied("tenant")));
    assert_eq!(alices.refused(Refusal::Tenant), 4);

    // It may name its own tenant, or leave it out.
    same(alices.insert(prompt(&[], "a"), 1), Ok(()));
    same(alices.finds(prompt(&ALICE.0, "a")), Ok(true));
    same(anybodys.finds(prompt(&ALICE.0, "a")), Ok(true));
    let short = alices.finds(prompt(&[1], "a"));
    assert!(matches!(short, Err(Error::Invalid(_))), "{short:?}");
    let unnamed = anybodys.finds(prompt(&[], "a"));
    assert!(matches!(unnamed, Err(Error::Invalid(_))), "{unnamed:?}");
}

#[test]
fn the_requests_of_a_component_of_one_tenant_are_that_tenants() {
    let mut alices = Component::new(Grant::new("n").for_tenant(ALICE));
    same(alices.insert(request(Some("Bearer one")), 1), Ok(()));
    same(alices.finds(request(Some("Bearer two"))), Ok(true));
    same(alices.finds(request(None)), Ok(true));

    let mut anybodys = Component::new(Grant::new("n"));
    same(anybodys.insert(request(Some("Bearer one")), 1), Ok(()));
    same(anybodys.finds(request(Some("Bearer two"))), Ok(false));
    let bypass = Err(Error::Bypass("no-credential".into()));
    same(anybodys.finds(request(None)), bypass);
}

#[test]
fn namespaces_share_nothing() {
    let cache = Cache::in_memory(&Default::default());
    let mut one = Component::beside(&cache, Grant::new("one"));
    let mut two = Component::beside(&cache, Grant::new("two"));
    same(one.insert(prompt(&ALICE.0, "a"), 1), Ok(()));
    same(two.finds(prompt(&ALICE.0, "a")), Ok(false));
    same(two.remove(prompt(&ALICE.0, "a")), Ok(false));
    same(one.finds(prompt(&ALICE.0, "a")), Ok(true));
}

#[test]
fn a_component_that_may_only_read_changes_nothing() {
    let cache = Cache::in_memory(&Default::default());
    let mut writes = Component::beside(&cache, Grant::new("n"));
    let mut reads = Component::beside(&cache, Grant::new("n").read_only());
    same(writes.insert(prompt(&ALICE.0, "a"), 1), Ok(()));
    same(reads.finds(prompt(&ALICE.0, "a")), Ok(true));
    same(
        reads.insert(prompt(&ALICE.0, "b"), 1),
        Err(denied("read-only")),
    );
    same(
        reads.remove(prompt(&ALICE.0, "a")),
        Err(denied("read-only")),
    );
    same(writes.finds(prompt(&ALICE.0, "a")), Ok(true));
    assert_eq!(reads.refused(Refusal::ReadOnly), 2);
}

#[test]
fn a_quota_bounds_what_lives_at_once() {
    // Room for two entries of 1000 bytes, with their overhead.
    let mut component = Component::new(Grant {
        tenants: Tenants::Only(ALICE),
        lifetimes: Arc::new(Lifetimes {
            usual: Some(Duration::from_secs(60)),
            ..Lifetimes::default()
        }),
        ..Grant::new("n").bytes_max(2300)
    });
    let named = |text: &str| prompt(&[], text);
    same(component.insert(named("a"), 1000), Ok(()));
    same(component.insert(named("b"), 1000), Ok(()));
    same(component.insert(named("c"), 1000), Err(exceeded("bytes")));
    same(component.finds(named("c")), Ok(false));
    same(component.insert(named("b"), 900), Ok(()));
    same(component.remove(named("a")), Ok(true));
    same(component.insert(named("c"), 1000), Ok(()));
    same(component.insert(named("a"), 1000), Err(exceeded("bytes")));
    assert_eq!(component.refused(Refusal::Bytes), 2);
    // An expired entry leaves its room.
    component.now_ms.fetch_add(60_000, Ordering::Relaxed);
    same(component.insert(named("a"), 1000), Ok(()));
    // An entry that is not stored takes no room.
    let bytes = component.ctx.grant.allowance.bytes();
    let too_large = component.ctx.cache.entry_bytes_max() as usize + 1;
    let mut other = Component::new(Grant::new("n").for_tenant(ALICE).bytes_max(u64::MAX));
    let refused = other.insert(named("d"), too_large);
    assert!(matches!(refused, Err(Error::TooLarge(_))), "{refused:?}");
    assert_eq!(other.ctx.grant.allowance.bytes(), 0);
    assert_eq!(component.ctx.grant.allowance.bytes(), bytes);
}

#[test]
fn instances_of_one_component_share_its_rate() {
    let cache = Cache::in_memory(&Default::default());
    let two = NonZeroU32::new(2).expect("not 0");
    let grant = Grant::new("n")
        .for_tenant(ALICE)
        .inserts_per_second_max(two);
    let mut first = Component::beside(&cache, grant.clone());
    let mut second = Component::beside(&cache, grant);
    let named = |text: &str| prompt(&[], text);
    same(first.insert(named("a"), 1), Ok(()));
    same(second.insert(named("b"), 1), Ok(()));
    same(first.insert(named("c"), 1), Err(exceeded("inserts")));
    same(second.insert(named("c"), 1), Err(exceeded("inserts")));
    same(first.finds(named("b")), Ok(true));
    for component in [&first, &second] {
        component.now_ms.fetch_add(500, Ordering::Relaxed);
    }
    same(first.insert(named("c"), 1), Ok(()));
    same(second.insert(named("d"), 1), Err(exceeded("inserts")));
    assert_eq!(first.refused(Refusal::Inserts), 3);
}

/// The step of a component, or of a host for it, before an answer is asked for; gives the mark to
/// store with.
type Before = fn(&mut Component) -> Mark;
type Store = fn(&mut Component, Mark) -> bool;

fn bucket(component: &mut Component) -> Resource<Bucket> {
    let opened = keyvalue::Host::open(&mut component.view(), "b".into());
    opened.expect("no trap").expect("a bucket")
}

fn set(component: &mut Component) -> bool {
    let bucket = bucket(component);
    let set = component.view().set(bucket, "k".into(), b"old".to_vec());
    set.expect("no trap").is_ok()
}

/// An answer that a guest was asked for before a purge was stored after it: `insert`, `set` and a
/// policy's `keep` did not know when it had begun.
#[test]
fn nothing_that_a_guest_begins_before_a_purge_is_stored_after_it() {
    let asked = Key::for_prompt(&ALICE, "a");
    let item = Key::for_item(&ALICE, "b", "k");
    let none = |component: &mut Component| component.ctx.cache.purges().now();
    let insert: Store = |component, _| component.insert(prompt(&[], "a"), 3).is_ok();
    let entry_points: [(&str, Key, Before, Store); 9] = [
        (
            "insert after lookup",
            asked,
            |component| {
                same(component.finds(prompt(&[], "a")), Ok(false));
                Mark::at(0)
            },
            insert,
        ),
        (
            "insert after contains",
            asked,
            |component| {
                let contains = component.view().contains(prompt(&[], "a"));
                same(contains.expect("no trap"), Ok(false));
                Mark::at(0)
            },
            insert,
        ),
        (
            "insert after an async lookup",
            asked,
            |component| {
                let key = Key::for_prompt(&ALICE, "a");
                assert!(block_on(component.ctx.look_up_async(&key)).is_none());
                Mark::at(0)
            },
            insert,
        ),
        (
            "insert after an async contains",
            asked,
            |component| {
                let key = Key::for_prompt(&ALICE, "a");
                assert!(!block_on(component.ctx.looks_for_async(&key)));
                Mark::at(0)
            },
            insert,
        ),
        (
            "insert beside another instance",
            asked,
            |component| {
                same(component.finds(prompt(&[], "a")), Ok(false));
                Mark::at(0)
            },
            |component, _| {
                // The other component looks up only now, and may insert; this one may not.
                let grant = component.ctx.grant.clone();
                let mut other = Component::beside(&component.ctx.cache, grant);
                drop(other.finds(prompt(&[], "a")));
                component.insert(prompt(&[], "a"), 3).is_ok()
            },
        ),
        (
            "set after get",
            item,
            |component| {
                let bucket = bucket(component);
                let found = component.view().get(bucket, "k".into()).expect("no trap");
                assert!(matches!(found, Ok(None)));
                Mark::at(0)
            },
            |component, _| set(component),
        ),
        (
            "set after exists",
            item,
            |component| {
                let bucket = bucket(component);
                let found = component
                    .view()
                    .exists(bucket, "k".into())
                    .expect("no trap");
                assert!(matches!(found, Ok(false)));
                Mark::at(0)
            },
            |component, _| set(component),
        ),
        ("a policy's keep", asked, none, |component, since| {
            let named = Named::bare(Key::for_prompt(&ALICE, "a"));
            let kept = component.ctx.keep(&named, b"", b"old", None, since);
            kept.is_ok()
        }),
        ("a recording", asked, none, |component, since| {
            let key = Key::for_prompt(&ALICE, "a");
            let now_ms = component.ctx.clock.now_ms();
            let term = Stated::default().within(None, now_ms).expect("a term");
            component.ctx.store(&key, b"", b"old", term, since).is_ok()
        }),
    ];
    type Purge = fn(&Cache, &CacheKey);
    let purges: [(Purge, bool); 6] = [
        (
            |cache, key| {
                cache.remove(key);
            },
            true,
        ),
        (
            |cache, key| {
                cache.remove_now(key);
            },
            true,
        ),
        (
            |cache, _| cache.purge_tenant(&ALICE.0).expect("in memory"),
            true,
        ),
        (|cache, _| cache.purge_all().expect("in memory"), true),
        (
            |cache, _| cache.purge_tenant(&BOB.0).expect("in memory"),
            false,
        ),
        (
            |cache, _| {
                cache.remove(&CacheKey::from_bytes([9; 32]));
            },
            false,
        ),
    ];
    for (name, key, before, store) in entry_points {
        for (number, (purge, is_meant)) in purges.into_iter().enumerate() {
            let mut component = Component::new(Grant::new("n").for_tenant(ALICE));
            let key = component.ctx.key(&key);
            let since = before(&mut component);
            purge(&component.ctx.cache, &key);
            assert_eq!(
                store(&mut component, since),
                !is_meant,
                "{name}, purge {number}"
            );
            let now_ms = component.ctx.clock.now_ms();
            let is_there = component.ctx.cache.contains(&key, now_ms);
            assert_eq!(is_there, !is_meant, "{name}, purge {number}");
            // A fetch that begins now is stored.
            let now = before_again(&mut component, before);
            assert!(store(&mut component, now), "{name}, purge {number}");
        }
    }
}

fn before_again(component: &mut Component, before: Before) -> Mark {
    let _ = component.remove(prompt(&[], "a"));
    let bucket = bucket(component);
    let deleted = component.view().delete(bucket, "k".into());
    assert!(deleted.expect("no trap").is_ok());
    before(component)
}

/// Inserts, removals and key-value writes waited for the disk on the thread that runs all guests.
#[test]
fn a_guest_that_writes_to_a_disk_that_hangs_holds_up_nothing() {
    let durable = Durable::open();
    let grant = Grant::new("n").for_tenant(ALICE);
    let mut component = Component::beside(&durable.cache, grant);
    let handle = bucket(&mut component);
    let mut view = component.view();
    let options = InsertOptions { ttl_seconds: None };

    let insert = view.insert_async(prompt(&[], "a"), b"", b"-", options);
    same(durable.holds_up_nothing(insert), Ok(()));
    let set = durable.holds_up_nothing(view.set_async(&handle, "k", b"v"));
    assert!(matches!(set, Ok(Ok(()))));
    let items = [
        Key::for_prompt(&ALICE, "a"),
        Key::for_item(&ALICE, "b", "k"),
    ];
    let is_there = |key: &Key, ctx: &ReflexCtx| ctx.looks_for(key);
    assert!(items.iter().all(|key| is_there(key, view.ctx)));

    let remove = view.remove_async(prompt(&[], "a"));
    same(durable.holds_up_nothing(remove), Ok(true));
    let delete = durable.holds_up_nothing(view.delete_async(&handle, "k"));
    assert!(matches!(delete, Ok(Ok(()))));
    assert!(!items.iter().any(|key| is_there(key, view.ctx)));
}

/// The output of a future that waits for no other thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// A component, a policy too, stores answers that it has judged itself. No life makes an answer
/// outlive its own end.
#[test]
fn an_answer_to_a_request_lives_no_longer_than_it_states() {
    let mut component = Component::new(Grant::new("n"));
    let name = || request(Some("Bearer one"));
    let insert = |component: &mut Component, expires_at: &str, ttl_seconds| {
        let payload = format!(
            r#"{{"choices":[{{"message":{{"audio":{{"id":"a","expires_at":{expires_at}}}}}}}]}}"#
        );
        let options = InsertOptions { ttl_seconds };
        let mut view = component.view();
        let inserted = view.insert(name(), Vec::new(), payload.into_bytes(), options);
        inserted.expect("no trap")
    };
    // The clock says 1,000 s.
    same(insert(&mut component, "1060", None), Ok(()));
    component.now_ms.store(1_059_999, Ordering::Relaxed);
    same(component.finds(name()), Ok(true));
    component.now_ms.store(1_060_000, Ordering::Relaxed);
    same(component.finds(name()), Ok(false));
    let expired = || Err(Error::Bypass("expired".into()));
    same(insert(&mut component, "1060", None), expired());
    same(insert(&mut component, "\"soon\"", Some(60)), expired());
    // A shorter life counts.
    same(insert(&mut component, "9000", Some(60)), Ok(()));
    component.now_ms.store(1_120_000, Ordering::Relaxed);
    same(component.finds(name()), Ok(false));
}
