//! Clients' instructions to the cache: `cache-control` and `x-reflex-ttl`.

use super::*;

/// A play in which an answer is hot and at the daemon, and a minute old.
fn cached() -> Play {
    let mut play = Play::with(r#""ttl_seconds": 100, "temperature_max": 0.5"#);
    let id = play.asked(&Ask::chat("hello"));
    play.answers(id, &json("old"));
    play.settle();
    play.leaves(id);
    play.passes(60_000);
    play
}

fn controlled(control: &str) -> Ask {
    Ask::chat("hello").with("cache-control", control)
}

#[test]
fn no_cache_asks_the_provider_and_refreshes_what_is_there() {
    let mut play = cached();
    let calls = play.daemon.heard.len();
    let id = play.asked(&controlled("no-cache"));
    play.provider(id);
    assert_eq!(play.daemon.heard.len(), calls, "the daemon is not asked");
    play.answers(id, &json("new"));
    assert_eq!(play.clients[&id].marked, Some(Status::Refresh));
    play.settle();
    let entry = play.daemon.entries.values().next().expect("an entry");
    assert_eq!(entry.body, json("new").into_bytes());
    let next = play.asked(&Ask::chat("hello"));
    play.hit(next, &json("new"));
    play.ends();
}

#[test]
fn no_cache_follows_no_request() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello"));
    let follower = play.asked(&Ask::chat("hello"));
    let refresh = play.asked(&controlled("no-cache"));
    play.provider(refresh);
    play.leaves(refresh);
    play.provider(leader);
    play.held(follower);
    play.ends();
}

#[test]
fn only_if_cached_is_answered_from_the_cache_or_not_at_all() {
    let mut play = cached();
    let hot = play.asks(&controlled("only-if-cached"));
    play.hit(hot, &json("old"));
    let too_old = play.asked(&controlled("only-if-cached, max-age=10"));
    play.absent(too_old);
    let contradiction = play.asked(&controlled("only-if-cached, no-cache"));
    play.absent(contradiction);
    let unknown = Ask::chat("unknown").with("cache-control", "only-if-cached");
    let none = play.asked(&unknown);
    play.absent(none);
    assert!(play.daemon.fills.is_empty(), "it leads no fill");
    for mood in [Mood::Unknown, Mood::Nonsense, Mood::Hangs] {
        play.daemon.mood = mood;
        let none = play.asked(&unknown);
        play.passes(200);
        play.absent(none);
    }
    play.ends();
}

#[test]
fn only_if_cached_waits_for_no_fill() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello"));
    play.provider(leader);
    let id = play.asked(&controlled("only-if-cached"));
    play.absent(id);
    play.ends();
}

#[test]
fn max_age_and_min_fresh_are_obeyed() {
    let check = |control: &str, hits: bool| {
        let mut play = cached();
        let id = play.asked(&controlled(control));
        match hits {
            true => play.hit(id, &json("old")),
            false => play.provider(id),
        }
        play.ends();
    };
    check("max-age=60", true);
    check("max-age=59", false);
    check("max-age=0", false);
    check("min-fresh=40", true);
    check("min-fresh=41", false);
    check("max-age=60, min-fresh=41", false);
    check("max-age=soon", false);
}

#[test]
fn the_life_of_an_answer_is_the_clients_wish_within_the_operators_bound() {
    let check = |wish: &str, seconds: u64| {
        let mut play = Play::with(r#""ttl_seconds": 100, "ttl_seconds_max": 200"#);
        let ask = Ask::chat("hello").with("x-reflex-ttl", wish);
        let id = play.asked(&ask);
        play.answers(id, &json("hi"));
        play.settle();
        let entry = play.daemon.entries.values().next().expect("an entry");
        let ttl_ms = entry.expires_at_ms - entry.stored_at_ms;
        assert_eq!(ttl_ms, seconds * 1000, "{wish}");
        let hit = play.asks(&Ask::chat("hello"));
        let ttl_seconds = Some(seconds);
        assert_eq!(
            play.seen(hit),
            &Saw::Ours(Status::Hit { ttl_seconds }, json("hi"))
        );
        play.ends();
    };
    check("7", 7);
    check("200", 200);
    check("201", 200);
    check("99999999999999999999", 200);
}

#[test]
fn a_wish_to_keep_nothing_is_obeyed_in_hot_tier_and_daemon() {
    let check = |wish: &str| {
        let mut play = Play::new();
        let ask = Ask::chat("hello").with("x-reflex-ttl", wish);
        let id = play.asked(&ask);
        play.provider(id);
        let follower = play.asked(&Ask::chat("hello"));
        let same = play.asked(&ask);
        play.answers(id, &json("hi"));
        assert_eq!(play.clients[&id].marked, Some(Status::Miss));
        // No other request gets an answer that is not to be kept.
        play.provider(follower);
        play.provider(same);
        play.settle();
        assert!(play.daemon.entries.is_empty(), "{wish}");
        play.leaves(follower);
        let next = play.asked(&Ask::chat("hello"));
        play.provider(next);
        play.ends();
    };
    check("0");
    check("soon");
}

#[test]
fn a_request_that_keeps_nothing_may_be_a_hit() {
    let mut play = cached();
    let hot = play.asks(&Ask::chat("hello").with("x-reflex-ttl", "0"));
    play.hit(hot, &json("old"));
    play.worker.shared().hot.clear();
    let daemon = play.asked(&Ask::chat("hello").with("x-reflex-ttl", "0"));
    play.hit(daemon, &json("old"));
    play.ends();
}

#[test]
fn a_request_that_keeps_nothing_neither_follows_nor_leads() {
    let mut play = Play::new();
    let none = play.asked(&Ask::chat("hello").with("x-reflex-ttl", "0"));
    play.provider(none);
    assert!(play.daemon.fills.is_empty());
    let leader = play.asked(&Ask::chat("hello"));
    play.provider(leader);
    let follower = play.asked(&Ask::chat("hello"));
    play.held(follower);
    play.leaves(none);
    play.answers(leader, &json("hi"));
    play.collapsed(follower, &json("hi"));
    play.ends();
}

#[test]
fn a_temperature_over_the_operators_bound_passes_by() {
    let mut play = Play::with(r#""temperature_max": 0.5"#);
    let at = |temperature: &str| {
        let mut ask = Ask::chat("hello");
        let field = format!(r#"{{"temperature": {temperature}, "#);
        ask.body = ask.body.replacen('{', &field, 1);
        ask
    };
    let hot = play.asks(&at("0.51"));
    play.provider(hot);
    assert_eq!(play.bypassed(Bypass::Temperature), 1);
    let cool = play.asks(&at("0.5"));
    play.held(cool);
    play.ends();
}

#[test]
fn the_operator_may_forbid_refreshes() {
    let mut play = Play::with(r#""client_control": "no-refresh""#);
    let first = play.asked(&controlled("no-cache"));
    play.answers(first, &json("hi"));
    for control in ["no-cache", "max-age=0", "min-fresh=99999"] {
        let id = play.asks(&controlled(control));
        play.hit(id, &json("hi"));
    }
    let unstored = play.asks(&controlled("no-store"));
    play.provider(unstored);
    let unknown = Ask::chat("unknown").with("cache-control", "only-if-cached");
    let none = play.asked(&unknown);
    play.absent(none);
    play.ends();
}

#[test]
fn the_operator_may_ignore_all_that_clients_ask() {
    let mut play = Play::with(r#""client_control": "ignore""#);
    let first = play.asked(&controlled("no-store").with("x-reflex-ttl", "0"));
    play.answers(first, &json("hi"));
    play.settle();
    for control in ["no-store", "no-cache", "max-age=0", "only-if-cached"] {
        let id = play.asks(&controlled(control));
        play.hit(id, &json("hi"));
    }
    let unknown = Ask::chat("unknown").with("cache-control", "only-if-cached");
    let provider = play.asked(&unknown);
    play.provider(provider);
    play.ends();
}
