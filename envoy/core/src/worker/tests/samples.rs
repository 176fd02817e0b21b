//! Several answers to one request, in turn.

use super::*;

fn play() -> Play {
    Play::with(r#""samples": 3"#)
}

/// Three requests, all misses.
fn fill(play: &mut Play, ask: &Ask) {
    for number in 0..3 {
        let id = play.asked(ask);
        play.provider(id);
        play.answers(id, &json(&number.to_string()));
        play.settle();
        play.leaves(id);
    }
}

#[test]
fn samples_are_kept_up_to_a_number_and_served_in_turn() {
    let mut play = play();
    let ask = Ask::chat("hello");
    fill(&mut play, &ask);
    for round in 0..4 {
        for number in 0..3 {
            let id = play.asked(&ask);
            play.hit(id, &json(&number.to_string()));
        }
        if round == 1 {
            play.worker.shared().hot.clear();
        }
    }
    // Another request has turns of its own.
    fill(&mut play, &Ask::chat("else"));
    assert_eq!(play.daemon.entries.len(), 6);
    play.ends();
}

#[test]
fn requests_at_once_get_an_answer_each() {
    let mut play = play();
    let ids = [0, 1, 2].map(|_| play.asked(&Ask::chat("hello")));
    let fourth = play.asked(&Ask::chat("hello"));
    for (number, id) in ids.into_iter().enumerate() {
        play.provider(id);
        play.answers(id, &json(&number.to_string()));
    }
    play.collapsed(fourth, &json("0"));
    play.ends();
}

#[test]
fn only_if_cached_gets_any_of_them() {
    let mut play = play();
    let only = Ask::chat("hello").with("cache-control", "only-if-cached");
    // Its turn is the first.
    let none = play.asked(&only);
    play.absent(none);
    let id = play.asked(&Ask::chat("hello"));
    play.answers(id, &json("hi"));
    play.settle();
    for _ in ["hot", "daemon"] {
        for _ in 0..4 {
            let any = play.asked(&only);
            play.hit(any, &json("hi"));
        }
        play.worker.shared().hot.clear();
    }
    // The daemon is asked a few times at most.
    let mut play = Play::with(r#""samples": 10000"#);
    let heard = play.daemon.heard.len();
    let none = play.asked(&only);
    play.absent(none);
    assert!(play.daemon.heard.len() - heard < 20);
    play.ends();
}

#[test]
fn a_request_that_leaves_before_its_turn_leaves_nothing_behind() {
    let mut play = play();
    let id = play.begins(&Ask::chat("hello"));
    let ask = Ask::chat("hello");
    let work = play
        .worker
        .on(id, Event::Body(ask.body.as_bytes()), START_MS);
    assert!(matches!(work[..], [(_, Effect::Turn(_))]));
    play.held(id);
    play.leaves(id);
    play.ends();
}
