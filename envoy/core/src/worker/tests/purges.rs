//! Purges: an answer asked for before a purge is not served to a request after it.
//!
//! The daemon tells its epoch with every reply. The worker learns of a purge at the latest
//! with its next poll.

use super::*;
use crate::refreshed::Gone;

/// Time for a poll, and for its reply.
const POLL_MS: u64 = 2 * TICK_MS;

/// The daemon's cache is emptied, and the worker learns of it.
fn purged(play: &mut Play) {
    play.daemon.purge();
    play.passes(POLL_MS);
    play.settle();
    knows(play);
}

fn knows(play: &mut Play) {
    let epoch = play.daemon.epoch();
    assert_eq!(play.worker.shared().epoch().map(|it| &**it), Some(&*epoch));
}

/// A test whose worker knows the epoch.
fn begun() -> Play {
    let mut play = Play::with(r#""epoch_poll_ms": 50"#);
    play.starts();
    knows(&mut play);
    play
}

/// The same with the answer to this in its hot tier, and in the daemon.
fn begun_with(ask: &Ask) -> Play {
    let mut play = begun();
    stored(&mut play, ask);
    play
}

/// The provider answers, and the answer is kept.
fn stored(play: &mut Play, ask: &Ask) {
    let id = play.asked(ask);
    play.answers(id, &json("old"));
    play.settle();
}

/// A test in whose daemon another worker has stored the answer to this.
fn begun_with_anothers(ask: &Ask) -> Play {
    let mut play = begun();
    filled_by_another(&mut play, ask);
    play
}

/// Another worker stores the answer to this.
fn filled_by_another(play: &mut Play, ask: &Ask) {
    // This tells the daemon which entry it is.
    let probe = play.asked(ask);
    play.leaves(probe);
    play.settle();
    play.daemon.filled_elsewhere(Some("{}"), play.now_ms);
}

/// The daemon's cache is emptied, and the worker learns of it before the calls that are under way
/// are answered.
fn purged_ahead(play: &mut Play) {
    play.daemon.purge();
    play.now_ms += TICK_MS;
    play.tick();
    play.arrive();
    let poll = *play.calls.keys().next_back().expect("a call");
    play.deliver(poll);
    knows(play);
}

#[test]
fn a_purge_empties_the_hot_tier() {
    let mut play = begun_with(&Ask::chat("hello"));
    purged(&mut play);
    assert_eq!(play.counted("purges"), 1);
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    play.ends();
}

#[test]
fn a_daemon_that_starts_anew_empties_the_hot_tier() {
    let mut play = begun_with(&Ask::chat("hello"));
    play.daemon.restart();
    play.passes(POLL_MS);
    play.settle();
    knows(&mut play);
    assert_eq!(play.worker.shared().hot.bytes(), 0);
    let next = play.asked(&Ask::chat("hello"));
    play.hit(next, &json("old"));
    play.ends();
}

#[test]
fn an_answer_that_was_asked_for_before_a_purge_is_kept_nowhere() {
    let mut play = begun();
    let id = play.asked(&Ask::chat("hello"));
    play.head(id, 200, "application/json");
    purged(&mut play);
    play.chunk(id, &json("old"), true);
    play.settle();
    assert!(play.daemon.entries.is_empty() && play.daemon.fills.is_empty());
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    // It is not even sent: the daemon would refuse it.
    assert!(
        !play
            .daemon
            .heard
            .iter()
            .any(|asked| asked.starts_with("PUT"))
    );
    assert_eq!(play.counted("not_kept_total.purged"), 1);
    play.ends();
}

#[test]
fn a_purge_that_the_worker_has_not_heard_of_is_the_daemons_to_see() {
    let mut play = begun();
    let id = play.asked(&Ask::chat("hello"));
    play.daemon.purge();
    play.answers(id, &json("old"));
    play.settle();
    assert!(play.daemon.entries.is_empty());
    assert_eq!(
        (
            play.counted("inserts"),
            play.counted("not_kept_total.refused")
        ),
        (0, 1)
    );
    // The refusal has told of it.
    knows(&mut play);
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    play.ends();
}

/// Requests after a purge followed a leader that had asked before it, and got its answer.
#[test]
fn no_request_follows_across_a_purge() {
    let mut play = begun();
    let leader = play.asked(&Ask::chat("hello"));
    let before = play.asked(&Ask::chat("hello"));
    purged(&mut play);
    let after = play.asked(&Ask::chat("hello"));
    let follower = play.asked(&Ask::chat("hello"));
    play.answers(leader, &json("old"));
    play.collapsed(before, &json("old"));
    // The daemon has made it wait for the fill, which has ended without an answer.
    play.settle();
    play.provider(after);
    play.held(follower);
    play.answers(after, &json("new"));
    play.collapsed(follower, &json("new"));
    let hot = play.asks(&Ask::chat("hello"));
    play.hit(hot, &json("new"));
    play.ends();
}

#[test]
fn a_follower_from_before_a_purge_leads_only_its_own() {
    let mut play = begun();
    let [leader, before, also_before] = [(); 3].map(|()| play.asked(&Ask::chat("hello")));
    purged(&mut play);
    let [after, follower] = [(); 2].map(|()| play.asked(&Ask::chat("hello")));
    play.leaves(leader);
    play.provider(before);
    play.held(also_before);
    play.answers(before, &json("new"));
    play.collapsed(also_before, &json("new"));
    play.settle();
    // It was asked for after the purge, so it is stored, and `after` waits for it.
    play.collapsed(after, &json("new"));
    play.collapsed(follower, &json("new"));
    play.ends();
}

/// A reply that a purge had overtaken set the epoch back. The answer of a request from before the
/// purge then seemed to be from the present, and became hot.
#[test]
fn a_late_reply_does_not_bring_an_old_epoch_back() {
    let mut play = begun();
    let old = play.asked(&Ask::chat("hello"));
    play.provider(old);
    let slow = play.asks(&Ask::chat("slow"));
    play.arrive();
    let late = *play.calls.keys().next().expect("a call");
    purged_ahead(&mut play);
    play.deliver(late);
    play.provider(slow);
    knows(&mut play);
    assert_eq!(play.counted("purges"), 1);
    play.answers(old, &json("old"));
    let next = play.asks(&Ask::chat("hello"));
    play.held(next);
    play.ends();
}

#[test]
fn an_answer_of_the_daemon_with_an_old_epoch_does_not_become_hot() {
    let mut play = begun_with_anothers(&Ask::chat("hello"));
    let slow = play.asks(&Ask::chat("hello"));
    play.arrive();
    let late = *play.calls.keys().next().expect("a call");
    purged_ahead(&mut play);
    play.deliver(late);
    // It asked before the purge was known, so it may have it; a later request may not.
    play.hit(slow, "{}");
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    play.ends();
}

/// Of two replies that were under way at once, it is unknown which has the newer epoch. Taking
/// both for old, or both for new, could loop forever; asking once more cannot.
#[test]
fn after_replies_that_contradict_each_other_the_daemon_is_asked_again() {
    let mut play = begun();
    let first = play.asks(&Ask::chat("first"));
    play.arrive();
    let older = *play.calls.keys().next().expect("a call");
    let second = play.asks(&Ask::chat("second"));
    play.daemon.purge();
    play.arrive();
    // The newer epoch arrives first, and then, as if new, the older one.
    let newer = *play.calls.keys().next_back().expect("a call");
    play.deliver(newer);
    play.deliver(older);
    play.passes(2 * TICK_MS);
    play.settle();
    knows(&mut play);
    play.provider(first);
    play.provider(second);
    play.ends();
}

/// While no epoch was known, answers went to the daemon without one, and were stored in spite of
/// purges in the meantime.
#[test]
fn without_an_epoch_nothing_is_sent() {
    let mut play = Play::new();
    play.daemon.mood = Mood::Nonsense;
    let id = play.asked(&Ask::chat("hello"));
    play.provider(id);
    play.daemon.mood = Mood::Works;
    play.daemon.purge();
    play.answers(id, &json("old"));
    play.settle();
    assert!(play.daemon.entries.is_empty());
    play.ends();
}

/// The reply that makes a request the leader of a fill may be the one that reports a purge. The
/// answer asked for then is from after the purge, and may be followed.
#[test]
fn a_leader_that_hears_of_a_purge_before_it_asks_the_provider_may_be_followed() {
    let mut play = begun();
    let leader = play.asks(&Ask::chat("hello"));
    play.daemon.purge();
    play.settle();
    knows(&mut play);
    play.provider(leader);
    let follower = play.asked(&Ask::chat("hello"));
    assert_eq!(play.daemon.fills.len(), 1);
    play.answers(leader, &json("new"));
    play.collapsed(follower, &json("new"));
    play.settle();
    assert_eq!(play.daemon.entries.len(), 1);
    play.ends();
}

#[test]
fn the_first_answer_that_brings_a_new_epoch_does_not_become_hot() {
    for (of_tenant, is_old) in [(false, false), (true, false), (true, true)] {
        let mut play = begun_with_anothers(&Ask::chat("hello"));
        play.daemon.is_old = is_old;
        // A purge has begun, and has not reached this entry yet.
        play.daemon.begins_purge(of_tenant);
        let id = play.asked(&Ask::chat("hello"));
        play.hit(id, "{}");
        assert_eq!(play.worker.shared().hot.bytes(), 0);
        play.ends();
    }
}

/// With each replacement the epoch changes, so under many refreshes hardly any answer of the daemon
/// became hot.
#[test]
fn an_answer_that_brings_word_of_others_becomes_hot() {
    let mut play = begun_with(&Ask::chat("other"));
    play.daemon.replaced_elsewhere("{}", play.now_ms);
    filled_by_another(&mut play, &Ask::chat("hello"));
    let gone = play.asked(&Ask::chat("other"));
    play.hit(gone, "{}");
    play.daemon.replaced_elsewhere("[]", play.now_ms);
    let id = play.asked(&Ask::chat("hello"));
    play.hit(id, "{}");
    let calls = play.daemon.calls;
    let hot = play.asks(&Ask::chat("hello"));
    play.hit(hot, "{}");
    assert_eq!(play.daemon.calls, calls);
    play.ends();
}

/// Another worker's refresh was not noticed: for five minutes this one served the older answer.
#[test]
fn an_answer_that_was_replaced_at_the_daemon_is_not_hot_any_more() {
    let mut play = begun();
    let [ask, other] = [Ask::chat("hello"), Ask::chat("other")];
    for (ask, text) in [(&other, "other"), (&ask, "old")] {
        let id = play.asked(ask);
        play.answers(id, &json(text));
    }
    play.settle();
    play.daemon.replaced_elsewhere("{}", play.now_ms);
    play.passes(POLL_MS);
    let id = play.asked(&ask);
    play.hit(id, "{}");
    // Nothing else is lost, and answers under way may be stored.
    let calls = play.daemon.calls;
    let kept = play.asks(&other);
    play.hit(kept, &json("other"));
    assert_eq!(play.daemon.calls, calls);
    play.ends();
}

/// After a worker's own refresh, it serves the answer that it has stored.
#[test]
fn a_refresh_is_served_to_all_later_requests() {
    let mut play = begun();
    let ask = Ask::chat("hello");
    for text in ["old", "new", "newer"] {
        let id = play.asked(&ask.clone().with("cache-control", "no-cache"));
        play.answers(id, &json(text));
        play.settle();
        for _ in 0..2 {
            let next = play.asked(&ask);
            play.hit(next, &json(text));
        }
        play.passes(POLL_MS);
        let next = play.asked(&ask);
        play.hit(next, &json(text));
    }
    assert_eq!(play.counted("inserts"), 3);
    play.ends();
}

/// At each removal, even of a missing entry, each worker dropped all its answers, and kept none of
/// those under way.
#[test]
fn a_removal_costs_no_other_answer() {
    type Purge = fn(&mut Daemon);
    let purges: [Purge; 2] = [Daemon::remove, Daemon::purge_tenant];
    for purge in purges {
        let [kept, removed] = [Ask::chat("kept").by("sk-b"), Ask::chat("removed")];
        let mut play = begun_with(&kept);
        let other = Ask::chat("under way").by("sk-b");
        let under_way = play.asked(&other);
        let follower = play.asked(&other);
        // The last one that the daemon gets.
        stored(&mut play, &removed);
        let refreshed = play.asked(&removed.clone().with("cache-control", "no-cache"));
        purge(&mut play.daemon);
        play.passes(POLL_MS);
        play.settle();
        knows(&mut play);
        let hit = play.asks(&kept);
        play.hit(hit, &json("old"));
        // A later request still follows, and its answer is kept.
        let later = play.asked(&other);
        play.held(later);
        play.answers(under_way, &json("new"));
        for id in [follower, later] {
            play.collapsed(id, &json("new"));
        }
        let hot = play.asks(&other);
        play.hit(hot, &json("new"));
        play.settle();
        let dropped =
            ["not_kept_total.purged", "not_kept_total.refused"].map(|name| play.counted(name));
        assert_eq!(dropped, [0, 0]);
        // Removed entries are gone, and answers asked for before that are not kept.
        play.answers(refreshed, &json("late"));
        play.settle();
        assert_eq!(play.counted("not_kept_total.purged"), 1);
        let next = play.asked(&removed);
        play.provider(next);
        play.ends();
    }
}

/// It reports that something was purged, and not what.
#[test]
fn an_older_daemon_empties_the_hot_tier_for_any_purge() {
    let mut play = begun_with(&Ask::chat("hello"));
    play.daemon.is_old = true;
    stored(&mut play, &Ask::chat("other"));
    play.daemon.remove();
    play.passes(POLL_MS);
    play.settle();
    knows(&mut play);
    assert_eq!(play.worker.shared().hot.bytes(), 0);
    play.ends();
}

/// A list of purges between two epochs does not help a worker that knows neither epoch.
#[test]
fn what_a_reply_tells_of_another_epoch_empties_the_hot_tier() {
    let mut play = begun_with(&Ask::chat("hello"));
    // A removal, whose reply is under way when the daemon starts again.
    play.daemon.remove();
    play.daemon.restart();
    play.daemon.remove();
    play.passes(POLL_MS);
    play.settle();
    knows(&mut play);
    assert_eq!(play.worker.shared().hot.bytes(), 0);
    play.ends();
}

#[test]
fn what_was_begun_before_more_purges_than_are_remembered_is_not_kept() {
    let mut play = begun();
    let id = play.asked(&Ask::chat("hello"));
    let other = play.asked(&Ask::chat("other"));
    play.leaves(other);
    for _ in 0..30 {
        for _ in 0..40 {
            play.daemon.remove();
        }
        play.passes(POLL_MS);
        play.settle();
    }
    knows(&mut play);
    play.answers(id, &json("old"));
    play.settle();
    assert_eq!(play.counted("not_kept_total.purged"), 1);
    let next = play.asked(&Ask::chat("hello"));
    play.provider(next);
    play.ends();
}

/// Without a daemon, the other workers kept the older answer until their copies expired.
#[test]
fn without_a_daemon_the_workers_tell_each_other_of_a_refresh() {
    let [mut one, mut other] = [(); 2].map(|()| Play::with(r#""daemon_cluster": """#));
    let [ask, kept] = [Ask::chat("hello"), Ask::chat("kept")];
    for play in [&mut one, &mut other] {
        for ask in [&ask, &kept] {
            let id = play.asks(ask);
            play.answers(id, &json("old"));
        }
        assert!(play.refreshed.is_empty());
    }
    let under_way = other.asks(&ask.clone().with("cache-control", "no-cache"));
    let refresh = one.asks(&ask.clone().with("cache-control", "no-cache"));
    one.answers(refresh, &json("new"));
    assert_eq!(one.refreshed.len(), 1);
    let gone = Gone::These(std::mem::take(&mut one.refreshed));
    other.worker.shared().let_go(&gone);
    // An answer asked for before it is not kept in its place.
    other.answers(under_way, &json("late"));
    assert!(other.refreshed.is_empty());
    let next = other.asks(&ask);
    other.provider(next);
    for (play, ask, text) in [(&mut other, &kept, "old"), (&mut one, &ask, "new")] {
        let hit = play.asks(ask);
        play.hit(hit, &json(text));
    }
    other.worker.shared().let_go(&Gone::All);
    let next = other.asks(&kept);
    other.provider(next);
    one.ends();
    other.ends();
}
