//! A daemon that is down, does not answer or sends invalid replies, and a clock that jumps: every
//! request goes on, and no request is held forever.

use super::*;

#[test]
fn a_daemon_that_fails_costs_a_miss() {
    for mood in [Mood::Unknown, Mood::Nonsense, Mood::Hangs] {
        let mut play = Play::new();
        play.daemon.mood = mood;
        let id = play.asked(&Ask::chat("hello"));
        let follower = play.asked(&Ask::chat("hello"));
        play.passes(100);
        play.provider(id);
        play.held(follower);
        assert_eq!(play.counted("lookup_failures"), 1, "{mood:?}");
        play.answers(id, &json("hi"));
        play.collapsed(follower, &json("hi"));
        play.passes(2_000);
        let hot = play.asks(&Ask::chat("hello"));
        play.hit(hot, &json("hi"));
        play.ends();
    }
}

#[test]
fn a_daemon_that_fails_is_left_alone_and_found_again() {
    let mut play = Play::with(r#""epoch_poll_ms": 86400000"#);
    play.starts();
    play.daemon.mood = Mood::Unknown;
    for number in 0..5 {
        let id = play.asks(&Ask::chat(&format!("failing {number}")));
        play.provider(id);
    }
    let calls = play.daemon.calls;
    for number in 0..100 {
        let id = play.asks(&Ask::chat(&format!("alone {number}")));
        play.provider(id);
        play.answers(id, &json("hi"));
        play.leaves(id);
    }
    assert_eq!(play.daemon.calls, calls, "the daemon is not asked");
    assert_eq!(play.counted("not_kept_total.breaker-open"), 100);
    assert!(play.worker.shared().breaker.is_open());

    // After the pause one request tries, and the others need not wait for it.
    play.daemon.mood = Mood::Works;
    play.now_ms += 1_000;
    let trial = play.asks(&Ask::chat("trial"));
    play.held(trial);
    let other = play.asks(&Ask::chat("other"));
    play.provider(other);
    play.settle();
    play.provider(trial);
    assert!(!play.worker.shared().breaker.is_open());
    let next = play.asks(&Ask::chat("next"));
    play.held(next);
    play.ends();
}

/// On a busy machine, five questions for purges in a row took longer than the time between two of them,
/// and no lookup was made for a while.
#[test]
fn questions_for_purges_may_take_as_long_as_lookups() {
    let mut play = Play::with(r#""lookup_timeout_ms": 10000"#);
    play.starts();
    play.daemon.mood = Mood::Hangs;
    play.passes(9_000);
    assert!(!play.worker.shared().breaker.is_open());
    play.passes(4_000);
    assert!(play.worker.shared().breaker.is_open());
    play.ends();
}

/// A lookup whose reply never came was forgotten, and the request that waited for it was held
/// forever.
#[test]
fn a_lookup_without_a_reply_lets_its_request_go() {
    let mut play = Play::new();
    play.daemon.mood = Mood::Silent;
    let id = play.asks(&Ask::chat("hello"));
    let follower = play.asks(&Ask::chat("hello"));
    play.passes(150);
    play.held(id);
    play.passes(100);
    play.provider(id);
    play.held(follower);
    assert_eq!(play.counted("lookup_failures"), 1);
    play.calls.clear();
    play.ends_silently();
}

#[test]
fn an_insert_without_a_reply_gives_its_room_back() {
    let mut play = Play::new();
    let id = play.asked(&Ask::chat("hello"));
    play.daemon.mood = Mood::Silent;
    play.answers(id, &json("hi"));
    assert!(!play.worker.shared().sending().is_whole());
    play.passes(2_000);
    assert!(!play.worker.shared().sending().is_whole());
    play.passes(100);
    assert!(play.worker.shared().sending().is_whole());
    assert_eq!(play.counted("not_kept_total.failed"), 1);
    // A late reply gives nothing back a second time.
    play.daemon.mood = Mood::Works;
    play.settle();
    play.ends();
}

#[test]
fn a_note_that_cannot_be_sent_is_no_trouble() {
    let mut play = Play::new();
    let id = play.asked(&Ask::chat("hello"));
    play.daemon.mood = Mood::Unknown;
    play.leaves(id);
    play.ends();
}

/// The clock was set back by an hour, and followers waited for an hour.
#[test]
fn a_clock_that_is_set_back_holds_no_request() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello"));
    let follower = play.asked(&Ask::chat("hello"));
    play.now_ms -= 3_600_000;
    play.tick();
    play.passes(5_000);
    play.provider(follower);
    play.provider(leader);
    play.ends();
}

/// The clock was set back by an hour, and inserts without a reply kept their room for an hour.
#[test]
fn a_clock_that_is_set_back_keeps_no_room() {
    let mut play = Play::new();
    let id = play.asked(&Ask::chat("hello"));
    play.daemon.mood = Mood::Silent;
    play.answers(id, &json("hi"));
    play.now_ms -= 3_600_000;
    play.passes(2_100);
    assert!(play.worker.shared().sending().is_whole());
    play.calls.clear();
    play.ends_silently();
}

/// The clock was set back by an hour, and hot answers stayed for an hour longer.
#[test]
fn a_clock_that_is_set_back_keeps_nothing_hot() {
    let mut play = Play::with(r#""daemon_cluster": """#);
    let id = play.asks(&Ask::chat("hello"));
    play.answers(id, &json("hi"));
    play.now_ms -= 3_600_000;
    let next = play.asks(&Ask::chat("hello"));
    play.provider(next);
    play.ends();
}

#[test]
fn a_clock_at_its_end_does_not_overflow() {
    let mut play = Play::new();
    play.now_ms = u64::MAX / 1000;
    let id = play.asked(&Ask::chat("hello"));
    play.tick();
    play.answers(id, &json("hi"));
    play.settle();
    let next = play.asks(&Ask::chat("hello"));
    play.hit(next, &json("hi"));
    play.ends();
}

impl Play {
    /// Ends a test with a daemon that never replies: calls under way are forgotten.
    fn ends_silently(mut self) {
        let ids: Vec<Id> = self.clients.keys().copied().collect();
        for id in ids {
            self.leaves(id);
        }
        self.daemon.mood = Mood::Unknown;
        self.calls.clear();
        self.passes(5_000);
        self.ends();
    }
}
