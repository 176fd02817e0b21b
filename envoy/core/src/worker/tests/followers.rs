//! Requests for the same answer in one worker: one leads, the others follow.

use super::*;

/// A leader at the provider and its two followers.
fn flight(play: &mut Play) -> [Id; 3] {
    let leader = play.asked(&Ask::chat("hello"));
    play.provider(leader);
    let followers = [(); 2].map(|()| {
        play.now_ms += 10;
        play.asked(&Ask::chat("hello"))
    });
    for id in followers {
        play.held(id);
    }
    [leader, followers[0], followers[1]]
}

#[test]
fn followers_get_the_leaders_answer() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    assert_eq!(play.daemon.calls, 1, "followers call no daemon");
    play.answers(leader, &json("hi"));
    play.collapsed(first, &json("hi"));
    play.collapsed(second, &json("hi"));
    assert_eq!((play.counted("misses"), play.counted("collapsed")), (1, 2));
    play.ends();
}

#[test]
fn followers_get_the_daemons_answer_to_the_leader() {
    let mut play = Play::new();
    let probe = play.asked(&Ask::chat("hello"));
    play.leaves(probe);
    play.daemon.filled_elsewhere(Some("{}"), play.now_ms);
    let all = [(); 3].map(|()| play.asks(&Ask::chat("hello")));
    play.settle();
    for id in all {
        play.hit(id, "{}");
    }
    assert_eq!(play.counted("hits_daemon"), 3);
    play.ends();
}

#[test]
fn followers_are_let_go_when_the_answer_is_not_to_be_kept() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    play.head(leader, 500, "application/json");
    play.provider(first);
    play.provider(second);
    play.settle();
    assert!(
        play.daemon.fills.is_empty(),
        "others elsewhere are let go too"
    );
    // They ask alone: no request follows them, and they end no other flight.
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    play.answers(first, &json("hi"));
    let late = play.asks(&Ask::chat("hello"));
    play.hit(late, &json("hi"));
    play.ends();
}

#[test]
fn when_the_leaders_client_leaves_the_first_follower_leads_and_the_rest_wait() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    let fill = play.daemon.fills.clone();
    play.head(leader, 200, "application/json");
    play.chunk(leader, "{", false);
    play.leaves(leader);
    play.provider(first);
    play.held(second);
    play.settle();
    assert_eq!(play.daemon.fills, fill, "the fill is inherited");
    play.answers(first, &json("hi"));
    play.collapsed(second, &json("hi"));
    play.settle();
    assert!(play.daemon.fills.is_empty());
    assert_eq!(play.daemon.entries.len(), 1);
    assert_eq!(play.rejected(Rejected::Cut), 1);
    play.ends();
}

#[test]
fn when_all_leave_the_fill_is_given_back() {
    let mut play = Play::new();
    for id in flight(&mut play) {
        play.leaves(id);
    }
    play.settle();
    assert!(play.daemon.fills.is_empty());
    play.ends();
}

#[test]
fn a_follower_that_leaves_is_not_waited_for() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    play.leaves(first);
    play.leaves(leader);
    play.provider(second);
    play.leaves(second);
    play.ends();
}

#[test]
fn a_follower_waits_no_longer_than_the_bound() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    play.passes(4_900);
    play.held(first);
    play.passes(100);
    play.provider(first);
    play.provider(second);
    // Their answers are for them alone.
    play.answers(second, &json("second"));
    play.answers(leader, &json("hi"));
    play.answers(first, &json("first"));
    play.ends();
}

/// A leader's client hung up during its lookup at the daemon. The next leader asked the provider at
/// once: an answer that the daemon had was paid for again.
#[test]
fn when_the_leader_leaves_while_it_asks_the_next_one_asks() {
    let mut play = Play::new();
    let probe = play.asked(&Ask::chat("hello"));
    play.leaves(probe);
    play.settle();
    play.daemon.filled_elsewhere(Some("{}"), play.now_ms);
    let [leader, first, second] = [(); 3].map(|()| play.asks(&Ask::chat("hello")));
    play.leaves(leader);
    play.held(first);
    play.settle();
    play.hit(first, "{}");
    play.hit(second, "{}");
    play.ends();
}

#[test]
fn a_follower_that_takes_over_leads_under_the_same_name() {
    let mut play = Play::new();
    let [leader, first, second] = [(); 3].map(|()| play.asks(&Ask::chat("hello")));
    // The daemon has got it: from now on it knows the leader's name.
    play.arrive();
    let fills = play.daemon.fills.clone();
    play.leaves(leader);
    play.settle();
    play.provider(first);
    play.held(second);
    assert_eq!(play.daemon.fills, fills);
    play.ends();
}

#[test]
fn a_follower_that_takes_over_without_a_daemon_asks_the_provider() {
    let mut play = Play::new();
    let [leader, first, second] = [(); 3].map(|()| play.asks(&Ask::chat("hello")));
    play.daemon.mood = Mood::Unknown;
    play.leaves(leader);
    play.provider(first);
    play.held(second);
    play.answers(first, &json("hi"));
    play.collapsed(second, &json("hi"));
    play.ends();
}

/// A leader's client hung up during its wait for another worker's fill. The next leader went to the
/// provider at once, beside that worker.
#[test]
fn when_the_leader_leaves_while_it_waits_the_next_one_waits() {
    let mut play = Play::new();
    let probe = play.asked(&Ask::chat("hello"));
    play.leaves(probe);
    play.settle();
    play.daemon.fill_elsewhere();
    let [leader, first, second] = [(); 3].map(|()| play.asked(&Ask::chat("hello")));
    play.leaves(leader);
    play.settle();
    play.held(first);
    play.held(second);
    play.daemon.filled_elsewhere(Some("{}"), play.now_ms);
    play.settle();
    play.collapsed(first, "{}");
    play.collapsed(second, "{}");
    play.ends();
}

/// A follower whose wait was over went to the provider although another one, released before it,
/// had brought the answer by then.
#[test]
fn a_follower_whose_wait_is_over_looks_once_more() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello"));
    let first = play.asked(&Ask::chat("hello"));
    play.passes(2_000);
    let second = play.asked(&Ask::chat("hello"));
    play.passes(3_000);
    play.provider(first);
    play.held(second);
    play.answers(first, &json("hi"));
    play.passes(2_000);
    play.hit(second, &json("hi"));
    play.answers(leader, &json("late"));
    play.ends();
}

/// The daemon's answer was too old for the leader, which fetched a new one, and all followers
/// waited for that.
#[test]
fn what_is_too_old_for_the_leader_is_good_for_the_others() {
    let mut play = Play::new();
    old_answer(&mut play);
    let strict = play.asks(&Ask::chat("hello").with("cache-control", "max-age=10"));
    let lenient = play.asks(&Ask::chat("hello"));
    let also_strict = play.asks(&Ask::chat("hello").with("cache-control", "max-age=20"));
    play.settle();
    play.provider(strict);
    play.hit(lenient, "{}");
    play.held(also_strict);
    play.answers(strict, &json("new"));
    play.collapsed(also_strict, &json("new"));
    play.ends();
}

/// The daemon's answer was good for the leader. All followers for which it was too old went to the
/// provider at once.
#[test]
fn of_the_followers_for_which_it_is_too_old_one_leads() {
    let mut play = Play::new();
    old_answer(&mut play);
    let lenient = play.asks(&Ask::chat("hello"));
    let strict = [10, 20, 30].map(|age| {
        let age = format!("max-age={age}");
        play.asks(&Ask::chat("hello").with("cache-control", &age))
    });
    play.settle();
    play.hit(lenient, "{}");
    play.provider(strict[0]);
    play.held(strict[1]);
    play.held(strict[2]);
    play.answers(strict[0], &json("new"));
    play.collapsed(strict[1], &json("new"));
    play.collapsed(strict[2], &json("new"));
    play.ends();
}

/// The daemon has an answer that is a minute old.
fn old_answer(play: &mut Play) {
    let probe = play.asked(&Ask::chat("hello"));
    play.leaves(probe);
    play.settle();
    play.daemon
        .filled_elsewhere(Some("{}"), play.now_ms - 60_000);
}

#[test]
fn a_request_that_no_answer_fits_asks_the_provider() {
    let mut play = Play::with(r#""ttl_seconds": 10"#);
    let leader = play.asked(&Ask::chat("hello"));
    let fresh = play.asked(&Ask::chat("hello").with("cache-control", "min-fresh=100"));
    play.answers(leader, &json("hi"));
    play.provider(fresh);
    play.ends();
}

#[test]
fn past_the_bound_on_followers_requests_go_alone() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello"));
    let followers: Vec<Id> = (0..1000).map(|_| play.asks(&Ask::chat("hello"))).collect();
    let alone = play.asks(&Ask::chat("hello"));
    assert!(!play.under_way()[0].contains("fill="), "it leads no fill");
    play.settle();
    play.provider(alone);
    play.leaves(alone);
    play.held(followers[999]);
    play.answers(leader, &json("hi"));
    play.collapsed(followers[999], &json("hi"));
    play.ends();
}

/// Ten clients that give up one after the other cost the provider a request each, but never two
/// at once.
#[test]
fn the_lead_goes_from_one_to_the_next() {
    let mut play = Play::new();
    let all = [(); 10].map(|()| play.asked(&Ask::chat("hello")));
    for (leader, next) in all.iter().zip(&all[1..]) {
        play.provider(*leader);
        play.held(*next);
        play.leaves(*leader);
    }
    play.answers(all[9], &json("hi"));
    play.settle();
    assert_eq!((play.counted("misses"), play.daemon.entries.len()), (10, 1));
    let fills = play
        .daemon
        .heard
        .iter()
        .filter(|asked| asked.contains("fill="));
    assert_eq!(fills.count(), 2, "one lookup, one insert");
    play.ends();
}

/// The provider broke off each answer after a second. The followers asked one after the other, and
/// the last one got its answer long after its client had given up.
#[test]
fn when_the_provider_breaks_off_all_followers_ask_at_once() {
    for part in ["", "{"] {
        let mut play = Play::new();
        let [leader, first, second] = flight(&mut play);
        play.head(leader, 200, "application/json");
        play.chunk(leader, part, false);
        play.on(leader, Event::Broken);
        play.leaves(leader);
        play.provider(first);
        play.provider(second);
        play.settle();
        assert!(play.daemon.fills.is_empty());
        assert_eq!(play.rejected(Rejected::Cut), 1);
        play.ends();
    }
}

#[test]
fn what_breaks_off_after_its_end_is_whole() {
    let mut play = Play::new();
    let ask = Ask::chat("hello").streamed();
    let leader = play.asked(&ask);
    let follower = play.asked(&ask);
    play.head(leader, 200, "text/event-stream");
    for part in sse("hi") {
        play.chunk(leader, &part, false);
    }
    play.sent(leader);
    play.on(leader, Event::Broken);
    play.leaves(leader);
    play.collapsed(follower, &sse("hi").concat());
    play.settle();
    assert_eq!(play.daemon.entries.len(), 1);
    play.ends();
}

/// Such an answer was kept although nothing had shown what the provider got.
#[test]
fn what_breaks_off_after_its_end_is_not_kept_if_it_is_unknown_what_was_sent() {
    let mut play = Play::new();
    let leader = play.asked(&Ask::chat("hello").streamed());
    play.head(leader, 200, "text/event-stream");
    for part in sse("hi") {
        play.chunk(leader, &part, false);
    }
    play.on(leader, Event::Broken);
    play.clients.remove(&leader);
    play.on(leader, Event::Gone);
    play.settle();
    assert!(play.daemon.entries.is_empty());
    play.ends();
}

/// A leader's client that read slowly held the others for five seconds.
#[test]
fn a_leader_that_stalls_is_replaced_by_its_first_follower() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    let fill = play.daemon.fills.clone();
    let long = json(&"x".repeat(64 << 10));
    let (most, rest) = long.split_at(40 << 10);
    play.head(leader, 200, "application/json");
    play.chunk(leader, most, false);
    play.passes(900);
    play.held(first);
    play.passes(100);
    play.provider(first);
    play.held(second);
    play.settle();
    assert_eq!(play.daemon.fills, fill, "the fill goes on");
    // A later request waits for the new one.
    let late = play.asked(&Ask::chat("hello"));
    play.held(late);
    play.answers(first, &json("hi"));
    play.collapsed(second, &json("hi"));
    play.collapsed(late, &json("hi"));
    // The slow one ends, too, and is stored.
    play.chunk(leader, rest, true);
    play.settle();
    assert_eq!(play.counted("inserts"), 2);
    let next = play.asked(&Ask::chat("hello"));
    play.hit(next, &long);
    play.ends();
}

#[test]
fn a_model_that_pauses_is_waited_for() {
    let mut play = Play::new();
    let [leader, first, second] = flight(&mut play);
    play.passes(2_000);
    play.head(leader, 200, "application/json");
    play.passes(1_000);
    play.chunk(leader, "{", false);
    play.passes(1_800);
    play.held(first);
    play.held(second);
    play.passes(300);
    play.provider(first);
    play.ends();
}
