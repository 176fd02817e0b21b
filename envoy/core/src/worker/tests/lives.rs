//! How long answers live: the operator's rules by path and model.

use super::*;

const RULES: &str = r#""ttl_seconds": 1000, "hot_ttl_seconds": 100000, "ttl": [
    {"path": "*/embeddings", "seconds": "never"},
    {"model": "live-*", "seconds": 0},
    {"path": "/openai/v1/chat/*", "model": "slow", "seconds": 9000}
]"#;

fn chat(model: &str) -> Ask {
    let mut ask = Ask::chat("by the rules");
    ask.body = ask.body.replace("gpt-4o", model);
    ask
}

/// The seconds that a hit has left, in the hot tier and at the daemon alike.
#[track_caller]
fn check(ask: &Ask, answer: &str, expected: Option<u64>) {
    let mut play = Play::with(RULES);
    let first = play.asked(ask);
    play.answers(first, answer);
    play.settle();
    for tier in ["hot", "daemon"] {
        let id = play.asked(ask);
        let status = Status::Hit {
            ttl_seconds: expected,
        };
        assert_eq!(play.seen(id), &Saw::Ours(status, answer.into()), "{tier}");
        play.worker.shared().hot.clear();
    }
    play.ends();
}

#[test]
fn the_first_rule_that_applies_counts() {
    let mut embed = Ask::chat("");
    embed.path = "/v1/embeddings".into();
    embed.body = r#"{"model": "live-e", "input": "one"}"#.into();
    let vector =
        r#"{"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]}"#;
    check(&embed, vector, None);
    let hi = json("hi");
    check(&chat("other"), &hi, Some(1000));
    // The path is the one that the provider gets.
    check(&chat("slow"), &hi, Some(1000));
    check(&chat("slow").at("gateway"), &hi, Some(9000));
    let asked = chat("slow").at("gateway").with("x-reflex-ttl", "7");
    check(&asked, &hi, Some(7));
}

#[test]
fn what_the_operator_does_not_keep_is_kept_nowhere() {
    let mut play = Play::with(RULES);
    let ask = chat("live-1");
    for wish in [ask.clone(), ask.with("x-reflex-ttl", "60")] {
        let first = play.asked(&wish);
        play.provider(first);
        // No request waits for an answer that is not kept.
        let second = play.asked(&wish);
        play.provider(second);
        play.answers(first, &json("hi"));
        play.settle();
        let third = play.asked(&wish);
        play.provider(third);
        assert!(play.daemon.entries.is_empty());
        assert_eq!(play.worker.shared().hot.bytes(), 0);
    }
    play.ends();
}

/// An answer of another cache, and one that states its own end: a rule makes neither live longer,
/// in the hot tier or at the daemon.
#[test]
fn no_rule_makes_an_answer_outlive_what_it_states() {
    // A head, the answer, and the age and the rest of its life on a hit.
    let check = |head: (&str, &str), body: &str, age: u64, ttl: u64| {
        let mut play = Play::with(RULES);
        let ask = chat("other");
        let first = play.asked(&ask);
        let headers: [(&str, &[u8]); 2] = [
            ("content-type", b"application/json"),
            (head.0, head.1.as_bytes()),
        ];
        play.on(first, Event::IsProviders(true));
        play.on(first, Event::Head(200, &headers));
        play.chunk(first, body, true);
        play.settle();
        for tier in ["hot", "daemon"] {
            let id = play.asked(&ask);
            let status = Status::Hit {
                ttl_seconds: Some(ttl),
            };
            assert_eq!(play.seen(id), &Saw::Ours(status, body.into()), "{tier}");
            let entry = play.daemon.entries.values().next().expect("it is there");
            assert_eq!((play.now_ms - entry.stored_at_ms) / 1000, age);
            play.worker.shared().hot.clear();
        }
        play.ends();
    };
    let audio = |expires_at: u64| {
        format!(
            r#"{{"choices": [{{"index": 0, "finish_reason": "stop", "message": {{"audio":
            {{"id": "a", "data": "AAAA", "expires_at": {expires_at}}}}}}}]}}"#
        )
    };
    check(("age", "400"), &json("hi"), 400, 600);
    check(("age", "0"), &json("hi"), 0, 1000);
    check(("server", "x"), &audio(START_MS / 1000 + 60), 0, 60);
    check(("age", "990"), &audio(START_MS / 1000 + 60), 990, 10);
}

#[test]
fn what_is_over_when_it_comes_is_kept_nowhere() {
    for (fields, name, value) in [
        ("", "age", "1000"),
        ("", "age", "soon"),
        (
            r#""provider_control": "obey","#,
            "cache-control",
            "no-store",
        ),
        (r#""provider_control": "obey","#, "vary", "*"),
    ] {
        let mut play = Play::with(&format!("{fields}{RULES}"));
        let first = play.asked(&chat("other"));
        let headers: [(&str, &[u8]); 2] = [
            ("content-type", b"application/json"),
            (name, value.as_bytes()),
        ];
        play.on(first, Event::IsProviders(true));
        play.on(first, Event::Head(200, &headers));
        play.chunk(first, &json("hi"), true);
        play.settle();
        let why = match name {
            "age" => Rejected::Expired,
            _ => Rejected::ProviderControl,
        };
        assert_eq!(play.rejected(why), 1, "{name}: {value}");
        assert!(play.daemon.entries.is_empty());
        assert_eq!(play.worker.shared().hot.bytes(), 0);
        play.ends();
    }
}

/// The daemon may serve an expired answer when the provider fails. It cannot see from a body that
/// the provider forbids that.
#[test]
fn the_daemon_is_told_when_an_answer_may_not_be_served_stale() {
    let check = |fields: &str, head: &[(&str, &[u8])], expected: Option<&str>| {
        let mut play = Play::with(fields);
        let id = play.asked(&chat("other"));
        let content_type: (&str, &[u8]) = ("content-type", b"application/json");
        let head = [&[content_type], head].concat();
        play.on(id, Event::IsProviders(true));
        play.on(id, Event::Head(200, &head));
        play.chunk(id, &json("hi"), true);
        let mut puts = play
            .calls
            .values()
            .filter(|call| call.request.method == "PUT");
        let put = puts.next().expect("an insert");
        let end = put
            .request
            .headers
            .iter()
            .find(|(name, _)| *name == "x-reflex-end");
        assert_eq!(end.map(|(_, end)| end.as_str()), expected, "{head:?}");
        play.ends();
    };
    let obey = r#""provider_control": "obey""#;
    let forbids: (&str, &[u8]) = ("cache-control", b"max-age=60, must-revalidate");
    check(obey, &[forbids], Some("60"));
    check(obey, &[("cache-control", b"max-age=60")], None);
    check(r#""provider_control": "ignore""#, &[forbids], None);
}
