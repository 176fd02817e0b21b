//! Misses explain themselves: keys that split, and clients that keep streams from the cache.

use super::*;

#[test]
fn a_header_that_differs_with_each_request_is_counted_and_told_once() {
    // With the daemon, without it, and where several answers are kept.
    for fields in ["", r#""daemon_cluster": """#, r#""samples": 2"#] {
        let mut play = match fields {
            "" => Play::new(),
            fields => Play::with(fields),
        };
        for number in 0..4 {
            let ask = Ask::chat("secret").with("x-acme-call", &format!("secret-{number}"));
            let id = play.asked(&ask);
            play.answers(id, &json("hi"));
            play.settle();
            play.leaves(id);
        }
        assert_eq!(play.counted("key_splits_total.header"), 3, "{fields}");
        assert_eq!(play.counted("key_splits_total.field"), 0, "{fields}");
        let lines = play.worker.shared().take_lines();
        assert!(
            lines.len() == 1 && lines[0].contains("`x-acme-call`"),
            "{lines:?}"
        );
        assert!(
            lines[0].contains("ignored_headers") && !lines[0].contains("secret"),
            "{lines:?}"
        );
        play.ends();
    }
}

/// A proxy that adds a parameter to each request made every request a miss, with no setting to help.
#[test]
fn a_parameter_that_differs_with_each_request_is_told_and_can_be_ignored() {
    let ask = |number: usize| {
        let mut ask = Ask::chat("hello");
        ask.path = format!("{}?request_id={number}", ask.path);
        ask
    };
    let mut play = Play::new();
    for number in 0..2 {
        let id = play.asked(&ask(number));
        play.answers(id, &json("hi"));
        play.settle();
        play.leaves(id);
    }
    assert_eq!(play.counted("key_splits_total.query"), 1);
    let lines = play.worker.shared().take_lines();
    let line = lines.first().expect("a line");
    assert!(
        line.contains("`request_id`") && line.contains("ignored_query"),
        "{line}"
    );
    play.ends();

    let mut play = Play::with(r#""ignored_query": ["request_*"]"#);
    let id = play.asked(&ask(0));
    play.answers(id, &json("hi"));
    play.settle();
    let hit = play.asks(&ask(1));
    play.hit(hit, &json("hi"));
    play.ends();
}

#[test]
fn hits_and_other_questions_are_no_splits() {
    let mut play = Play::new();
    for prompt in ["one", "one", "two", "two"] {
        let id = play.asked(&Ask::chat(prompt));
        if *play.seen(id) == Saw::Provider {
            play.answers(id, &json("hi"));
            play.settle();
        }
        play.leaves(id);
    }
    for by in ["header", "cookie", "query", "field"] {
        assert_eq!(play.counted(&format!("key_splits_total.{by}")), 0);
    }
    play.ends();
}

#[test]
fn requests_that_their_clients_keep_from_the_cache_are_counted_by_directive_and_stream() {
    let mut play = Play::new();
    let mut check = |ask: Ask, content_type: &str, counter: &str| {
        let id = play.asked(&ask);
        play.head(id, 200, content_type);
        play.leaves(id);
        let name = format!("client_control_total.{counter}");
        assert_eq!(play.counted(&name), 1, "{counter}");
    };
    let ask = |control| Ask::chat("hello").with("cache-control", control);
    let events = "text/event-stream; charset=utf-8";
    check(ask("no-cache").streamed(), events, "no-cache.true");
    check(ask("no-cache"), "application/json", "no-cache.false");
    check(ask("no-store").streamed(), events, "no-store.true");
    check(ask("no-store"), "application/json", "no-store.false");
    play.ends();
}

#[test]
fn what_is_not_obeyed_is_not_counted() {
    let mut play = Play::with(r#""client_control": "no-refresh""#);
    let ask = Ask::chat("hello").with("cache-control", "no-cache");
    let id = play.asked(&ask);
    play.answers(id, &json("hi"));
    play.settle();
    let hit = play.asks(&ask);
    play.hit(hit, &json("hi"));
    assert_eq!(play.counted("client_control_total.no-cache.false"), 0);
    play.ends();
}

/// The filter counted such answers, and its log named no remedy.
#[test]
fn an_answer_that_shows_what_its_request_did_not_say_is_told_once() {
    let mut play = Play::new();
    let found = json("hi").replacen('{', r#"{"citations": ["https://secret.test"], "#, 1);
    for number in 0..3 {
        let id = play.asked(&Ask::chat(&format!("secret {number}")));
        play.answers(id, &found);
        play.settle();
        play.leaves(id);
    }
    assert_eq!(play.rejected(Rejected::ProviderWork), 3);
    let lines = play.worker.shared().take_lines();
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(
        line.contains("`chat-completions`") && line.contains("bypass_fields"),
        "{line}"
    );
    assert!(!line.contains("secret"), "{line}");
    play.ends();
}
