//! Requests that are recognised by their bytes: they fare as those that are examined.

use super::*;
use crate::daemon::Purged;
use crate::refreshed::Gone;

/// How many bytes of requests are remembered.
fn remembered(play: &mut Play) -> usize {
    play.worker.shared().memo.bytes()
}

/// A play in which the request was a hot hit once.
fn known(ask: &Ask) -> Play {
    let mut play = Play::with(r#""ttl_seconds": 100"#);
    let first = play.asked(ask);
    play.answers(first, &json("hi"));
    play.settle();
    assert_eq!(remembered(&mut play), 0, "a miss is not remembered");
    let second = play.asks(ask);
    play.hit(second, &json("hi"));
    assert!(remembered(&mut play) > ask.body.len());
    play
}

/// The digest at the end of an entry's path.
fn digest_in(path: &str) -> [u8; 32] {
    let digits = path.rsplit('/').next().expect("a digest");
    let byte = |at: usize| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("digits");
    std::array::from_fn(byte)
}

#[test]
fn a_request_that_is_recognised_is_a_hit_and_takes_no_more_room() {
    let ask = Ask::chat("hello");
    let mut play = known(&ask);
    let bytes = remembered(&mut play);
    for _ in 0..3 {
        let id = play.asks(&ask);
        play.hit(id, &json("hi"));
    }
    assert_eq!(remembered(&mut play), bytes);
    // In another spelling it is another request with the same answer.
    let mut spaced = ask.clone();
    spaced.body = spaced.body.replacen('{', "{ ", 1);
    let id = play.asks(&spaced);
    play.hit(id, &json("hi"));
    assert!(remembered(&mut play) > bytes);
    play.ends();
}

#[test]
fn what_is_recognised_obeys_its_own_instructions_and_not_those_of_the_request_before() {
    let ask = Ask::chat("hello");
    let mut play = known(&ask);
    for control in ["no-cache", "max-age=0", "no-store"] {
        let id = play.asked(&ask.clone().with("cache-control", control));
        play.provider(id);
        play.leaves(id);
        play.settle();
    }
    let lives = play.asks(&ask.clone().with("x-reflex-ttl", "0"));
    play.hit(lives, &json("hi"));
    let plain = play.asks(&ask);
    play.hit(plain, &json("hi"));
    play.ends();
}

#[test]
fn another_tenant_with_the_same_bytes_gets_an_answer_of_its_own() {
    let ask = Ask::chat("hello");
    let mut play = known(&ask);
    let other = play.asked(&ask.clone().by("sk-b"));
    play.provider(other);
    play.answers(other, &json("for b"));
    play.settle();
    for _ in 0..2 {
        let id = play.asks(&ask.clone().by("sk-b"));
        play.hit(id, &json("for b"));
        let id = play.asks(&ask);
        play.hit(id, &json("hi"));
    }
    play.ends();
}

#[test]
fn what_is_recognised_after_a_purge_or_in_time_is_a_miss() {
    let ask = Ask::chat("hello");
    let forget: [fn(&mut Play); 4] = [
        |play| play.passes(101_000),
        |play| play.worker.shared().hot.clear(),
        |play| {
            let path = play.daemon.entries.keys().next().expect("an entry");
            let digest = digest_in(path);
            play.worker.shared().let_go(&Gone::These(vec![digest]));
            assert!(remembered(play) > 0);
        },
        |play| {
            play.worker.shared().let_go(&Gone::All);
            assert_eq!(remembered(play), 0);
        },
    ];
    for forget in forget {
        let mut play = known(&ask);
        forget(&mut play);
        play.daemon.entries.clear();
        let id = play.asked(&ask);
        play.provider(id);
        play.answers(id, &json("new"));
        play.settle();
        for _ in 0..2 {
            let id = play.asks(&ask);
            play.hit(id, &json("new"));
        }
        play.ends();
    }
}

#[test]
fn the_purge_of_a_tenant_forgets_its_requests_only() {
    let ask = Ask::chat("hello");
    let mut play = known(&ask);
    let bytes = remembered(&mut play);
    let other = ask.clone().by("sk-b");
    let id = play.asked(&other);
    play.answers(id, &json("for b"));
    play.settle();
    let id = play.asks(&other);
    play.hit(id, &json("for b"));
    assert_eq!(remembered(&mut play), 2 * bytes);
    let tenant = reflex_llm::Tenant::named_by(&[("authorization", b"Bearer sk-b")], None);
    let tenant = tenant.expect("a credential").0;
    play.worker.shared().memo.purge(&Purged::Tenant(tenant));
    assert_eq!(remembered(&mut play), bytes);
    let id = play.asks(&ask);
    play.hit(id, &json("hi"));
    play.ends();
}

/// By another route, or at another provider, the same bytes are another request.
#[test]
fn the_provider_and_a_keyed_route_are_part_of_what_is_recognised() {
    let mut play = Play::with(r#""keyed_routes": ["canary-*"]"#);
    let ask = |route: &str| Ask::chat("hello").by_route(route);
    let asks = [
        ask("llm"),
        ask("canary-1"),
        ask("canary-2"),
        ask("llm").at("gateway"),
    ];
    for (number, ask) in asks.iter().enumerate() {
        let id = play.asked(ask);
        play.provider(id);
        play.answers(id, &json(&number.to_string()));
        play.settle();
    }
    for _ in 0..3 {
        for (number, ask) in asks.iter().enumerate() {
            let id = play.asks(ask);
            play.hit(id, &json(&number.to_string()));
        }
    }
    play.ends();
}
