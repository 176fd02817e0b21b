//! Where an answer comes from: the hot tier, the daemon, another request's fill, the provider.

use super::*;

#[test]
fn a_miss_leads_and_is_stored_and_then_hot() {
    let mut play = Play::new();
    let first = play.asks(&Ask::chat("hello"));
    play.held(first);
    play.settle();
    play.provider(first);
    assert!(play.clients[&first].is_recorded);
    assert_eq!(play.daemon.fills.len(), 1);
    play.answers(first, &json("hi"));
    assert_eq!(play.clients[&first].marked, Some(Status::Miss));
    play.settle();
    assert_eq!((play.daemon.entries.len(), play.daemon.fills.len()), (1, 0));

    let calls = play.daemon.calls;
    let second = play.asks(&Ask::chat("hello"));
    play.hit(second, &json("hi"));
    assert_eq!(play.daemon.calls, calls, "a hot hit calls no daemon");
    let counts = ["misses", "inserts", "hits_hot", "hits_daemon"].map(|name| play.counted(name));
    assert_eq!(counts, [1, 1, 1, 0]);
    play.ends();
}

#[test]
fn what_another_worker_has_stored_is_a_hit_and_then_hot() {
    let mut play = Play::new();
    let first = play.asked(&Ask::chat("hello"));
    play.daemon
        .filled_elsewhere(Some("{}"), play.now_ms - 7_000);
    play.leaves(first);
    let second = play.asked(&Ask::chat("hello"));
    let Saw::Ours(Status::Hit { ttl_seconds }, _) = play.seen(second) else {
        panic!("{:?}", play.seen(second))
    };
    assert_eq!(*ttl_seconds, Some(3593));
    let third = play.asks(&Ask::chat("hello"));
    play.hit(third, "{}");
    assert_eq!(
        (play.counted("hits_daemon"), play.counted("hits_hot")),
        (1, 1)
    );
    play.ends();
}

/// A request that waits for another worker's leader.
fn busy(play: &mut Play) -> Id {
    let probe = play.asked(&Ask::chat("hello"));
    play.leaves(probe);
    play.settle();
    play.daemon.fill_elsewhere();
    let id = play.asked(&Ask::chat("hello"));
    play.held(id);
    assert!(
        play.under_way()[0].ends_with("wait=500"),
        "{:?}",
        play.under_way()
    );
    id
}

#[test]
fn a_busy_fill_is_waited_for_in_slices_and_its_answer_is_collapsed() {
    let mut play = Play::new();
    let id = busy(&mut play);
    play.passes(1200);
    play.held(id);
    let waits = play
        .daemon
        .heard
        .iter()
        .filter(|asked| asked.contains("wait="));
    assert_eq!(waits.count(), 2, "two slices are over");
    play.daemon.filled_elsewhere(Some("{}"), play.now_ms);
    play.settle();
    play.collapsed(id, "{}");
    let hot = play.asks(&Ask::chat("hello"));
    play.hit(hot, "{}");
    assert_eq!(play.counted("collapsed"), 1);
    play.ends();
}

#[test]
fn a_busy_fill_is_waited_for_no_longer_than_the_bound() {
    let mut play = Play::new();
    let id = busy(&mut play);
    play.passes(4900);
    play.held(id);
    play.passes(250);
    play.provider(id);
    // It does not lead the other one's fill, so it must not end it either.
    play.answers(id, &json("hi"));
    play.settle();
    assert_eq!(play.daemon.fills.len(), 1);
    play.ends();
}

#[test]
fn a_busy_fill_that_ends_without_an_answer_lets_go() {
    let mut play = Play::new();
    let id = busy(&mut play);
    play.passes(100);
    play.daemon.filled_elsewhere(None, play.now_ms);
    play.settle();
    play.provider(id);
    play.ends();
}

#[test]
fn a_follower_goes_on_when_the_daemon_dies() {
    for mood in [Mood::Hangs, Mood::Nonsense, Mood::Unknown] {
        let mut play = Play::new();
        let id = busy(&mut play);
        play.daemon.mood = mood;
        play.passes(700);
        play.provider(id);
        play.ends();
    }
}

#[test]
fn without_waiting_no_request_follows_or_leads() {
    let mut play = Play::with(r#""fill_wait_ms": 0"#);
    let first = play.asks(&Ask::chat("hello"));
    let second = play.asks(&Ask::chat("hello"));
    assert!(
        play.under_way()
            .iter()
            .all(|asked| !asked.contains("fill="))
    );
    play.settle();
    play.provider(first);
    play.provider(second);
    play.answers(first, &json("hi"));
    play.answers(second, &json("ho"));
    play.settle();
    let third = play.asked(&Ask::chat("hello"));
    play.hit(third, &json("ho"));
    play.ends();
}

#[test]
fn without_a_daemon_there_is_the_hot_tier() {
    let mut play = Play::with(r#""daemon_cluster": """#);
    let first = play.asks(&Ask::chat("hello"));
    play.provider(first);
    let second = play.asks(&Ask::chat("hello"));
    play.held(second);
    play.passes(1000);
    play.answers(first, &json("hi"));
    play.collapsed(second, &json("hi"));
    let third = play.asks(&Ask::chat("hello"));
    play.hit(third, &json("hi"));
    assert_eq!((play.daemon.calls, play.counted("inserts")), (0, 0));
    play.ends();
}

#[test]
fn an_answer_is_served_until_its_time_is_over() {
    let mut play = Play::with(r#""daemon_cluster": "", "ttl_seconds": 10"#);
    let first = play.asks(&Ask::chat("hello"));
    play.answers(first, &json("hi"));
    play.passes(9_950);
    let second = play.asks(&Ask::chat("hello"));
    play.hit(second, &json("hi"));
    play.passes(50);
    let third = play.asks(&Ask::chat("hello"));
    play.provider(third);
    play.ends();
}

/// A hundred clients that did not read a hit of 10 MiB took a gigabyte of Envoy's memory.
#[test]
fn long_hits_that_are_not_read_go_to_the_provider_past_their_bound() {
    let mut play = Play::with(r#""hot_entry_bytes_max": 16777216"#);
    let long = json(&"x".repeat(10 << 20));
    let id = play.asked(&Ask::chat("hello"));
    play.answers(id, &long);
    play.settle();
    let all = [(); 20].map(|()| play.asked(&Ask::chat("hello")));
    let hits = all
        .iter()
        .filter(|id| matches!(play.seen(**id), Saw::Ours(..)))
        .count();
    assert_eq!(hits, crate::unread::UNREAD_BYTES_MAX / long.len());
    for id in &all[hits..] {
        play.provider(*id);
    }
    assert_eq!(play.bypassed(Bypass::Memory), 20 - hits as u64);
    // It is only told that nothing is cached for it.
    let cached = play.asked(&Ask::chat("hello").with("cache-control", "only-if-cached"));
    play.absent(cached);
    // A short answer is read at once.
    let other = play.asked(&Ask::chat("short"));
    play.answers(other, &json("hi"));
    let short = play.asked(&Ask::chat("short"));
    play.hit(short, &json("hi"));
    play.passes(11_000);
    let later = play.asked(&Ask::chat("hello"));
    play.hit(later, &long);
    play.ends();
}
