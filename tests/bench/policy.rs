//! The cost of a policy component: the decision about a prompt against the same lookup natively.

use crate::{ROUNDS, median, report};
use reflex_host::component::{Decision, GuestLimits, PolicyGuest, Question};
use reflex_host::grant::Grant;
use reflex_host::{Cache, Key, Tenant};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

/// Calls in a row of one kind: less than the kernel lets a thread run, so that most of such rows
/// are disturbed by nothing.
const CALLS: usize = 100;
/// Rows of each kind in a round.
const ROWS: usize = 2000;

pub(crate) fn run() -> ExitCode {
    println!("policy: a hit by a prompt of 1 KiB, answer of 4 KiB, one thread");
    let tenant = Tenant::of_group("bench");
    let cache = Cache::builder("").namespace("bench").in_memory();
    let component = std::fs::read(env!("REFLEX_POLICY_WASM")).expect("the guest is built");
    let grant = Grant::new("bench").for_tenant(tenant);
    let policy = PolicyGuest::new(&component, cache.granted(grant), GuestLimits::default())
        .expect("the guest fits");
    let prompt = "p".repeat(1024);
    let answer = vec![b'a'; 4096];
    cache
        .insert(&Key::for_prompt(&tenant, &prompt), &answer)
        .expect("room");

    let native = || {
        let entry = cache.lookup(&Key::for_prompt(&tenant, black_box(&prompt)));
        assert!(entry.is_some());
    };
    // Shared, as a host's own request is: nothing of it is copied for the guest.
    let question = Question::prompt(tenant, &*prompt);
    let guest = || {
        let decision = policy.decide(black_box(&question).clone());
        assert!(matches!(decision, Ok(Decision::Serve(_))));
    };
    let (mut natives, mut guests) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS * ROWS {
        natives.push(time(native));
        guests.push(time(guest));
    }
    let (native, guest) = (median(natives), median(guests));
    report("native: Cache::lookup", native, "ns");
    report("PolicyGuest::decide", guest, "ns");
    report("guest / native, at most 1.3", guest / native, "x");
    println!();
    ExitCode::SUCCESS
}

/// Nanoseconds of one call.
fn time(call: impl Fn()) -> f64 {
    let began = Instant::now();
    for _ in 0..CALLS {
        call();
    }
    began.elapsed().as_secs_f64() * 1e9 / CALLS as f64
}
