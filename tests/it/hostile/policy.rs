//! A policy component that misbehaves: no decision, a reason in the count, and the next question
//! is answered by a new instance.

use std::time::Duration;

use reflex_host::component::{Decision, GuestLimits, PolicyGuest, Question};
use reflex_host::grant::{Grant, Refusal};
use reflex_host::{Cache, Key, Tenant};

struct Beside {
    unruly: PolicyGuest,
    tenant: Tenant,
    grant: Grant,
    cache: Cache,
}

impl Beside {
    fn new() -> Self {
        let cache = Cache::builder("").namespace("unruly").in_memory();
        let tenant = Tenant::of_group("policy");
        let grant = Grant::new("unruly").for_tenant(tenant);
        let limits = GuestLimits {
            guest_time_max: Duration::from_secs(20),
            ..GuestLimits::default()
        };
        Self {
            unruly: guest(&cache, &grant, limits),
            tenant,
            grant,
            cache,
        }
    }

    fn ask(&self, prompt: &str) -> Result<Decision, String> {
        let decided = self.unruly.decide(Question::prompt(self.tenant, prompt));
        decided.map_err(|error| format!("{error:?}"))
    }

    /// How many questions the instance that answers has had.
    fn asked(&self) -> u16 {
        match self.ask("count") {
            Ok(Decision::Refuse { status, .. }) => status,
            other => panic!("{other:?}"),
        }
    }

    /// A cached answer is served.
    fn others_are_unharmed(&self) {
        let key = Key::for_prompt(&self.tenant, "known");
        self.cache.insert(&key, "answer").expect("room");
        match self.ask("known") {
            Ok(Decision::Serve(entry)) => assert_eq!(entry.payload(), "answer"),
            other => panic!("{other:?}"),
        }
    }

    fn passed(&self, prompt: &str) -> String {
        match self.ask(prompt) {
            Ok(Decision::Pass(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn guest(cache: &Cache, grant: &Grant, limits: GuestLimits) -> PolicyGuest {
    let component = std::fs::read(env!("REFLEX_TEST_UNRULY_WASM")).expect("the guest is built");
    PolicyGuest::new(&component, cache.granted(grant.clone()), limits).expect("it fits")
}

#[test]
fn a_policy_that_traps_is_never_asked_again() {
    let beside = Beside::new();
    assert_eq!((beside.asked(), beside.asked()), (1, 2));
    let key = Key::for_prompt(&beside.tenant, "drop-twice");
    beside.cache.insert(&key, "twice").expect("room");
    let deeds = [
        "trap",
        "trap-with-an-entry",
        "recurse",
        "allocate",
        "drop-twice",
    ];
    for (number, deed) in (1..).zip(deeds) {
        assert!(beside.ask(deed).is_err(), "{deed}");
        assert_eq!(beside.unruly.failures(), number, "{deed}");
        assert_eq!(beside.asked(), 1, "after {deed}");
        beside.others_are_unharmed();
    }
}

#[test]
fn a_policy_that_spins_is_stopped() {
    let mut beside = Beside::new();
    let limits = GuestLimits {
        guest_time_max: Duration::from_millis(100),
        ..GuestLimits::default()
    };
    beside.unruly = guest(&beside.cache, &beside.grant, limits);
    assert!(beside.ask("spin").is_err());
    assert_eq!(beside.unruly.failures(), 1);
    beside.others_are_unharmed();
}

#[test]
fn a_policy_that_names_another_tenant_is_refused() {
    let beside = Beside::new();
    assert_eq!(beside.passed("other-tenant"), "tenant");
    let allowance = &beside.grant.allowance;
    assert_eq!(allowance.refused(Refusal::Tenant), 1);
    beside.others_are_unharmed();
}

/// The host keeps what it has computed of a question for one tenant only.
#[test]
fn a_policy_that_acts_for_two_tenants_has_what_is_the_second_ones() {
    let mut beside = Beside::new();
    let grant = Grant::new("unruly");
    beside.unruly = guest(&beside.cache, &grant, GuestLimits::default());
    let [first, second] = [beside.tenant, Tenant([9; 32])].map(|it| Key::for_prompt(&it, "as-two"));
    beside.cache.insert(&first, "the first's").expect("room");
    match beside.ask("as-two").expect("no trap") {
        Decision::Ask(asking) => assert!(asking.key() == second),
        other => panic!("{other:?}"),
    }
    beside.cache.insert(&second, "the second's").expect("room");
    match beside.ask("as-two").expect("no trap") {
        Decision::Serve(entry) => assert_eq!(entry.payload(), "the second's"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_that_opens_a_million_entries_is_refused_most() {
    let beside = Beside::new();
    let key = Key::for_prompt(&beside.tenant, "open");
    beside.cache.insert(&key, "anything").expect("room");
    assert_eq!(beside.passed("open"), "1000");
    assert_eq!(beside.grant.allowance.refused(Refusal::Open), 1);
    // This instance cannot open an entry any more; a question without an entry is no failure.
    assert_eq!(beside.asked(), 2);
}
