//! Requests that bypass: each goes to the provider unchanged, is counted by its reason,
//! and the answer says so.

use super::*;

fn check(why: Bypass, ask: &Ask) {
    let mut play = Play::with(r#""paths": ["/v1/"], "request_bytes_max": 500"#);
    let id = play.asks(ask);
    play.provider(id);
    assert!(!play.clients[&id].is_recorded, "untouched");
    play.answers(id, &json("hi"));
    assert_eq!(play.clients[&id].marked, Some(Status::Bypass(why)));
    assert_eq!(play.bypassed(why), 1, "{why}");
    assert_eq!((play.daemon.calls, play.counted("misses")), (0, 0));
    play.ends();
}

#[test]
fn what_the_head_says() {
    let ask = || Ask::chat("hello");
    check(Bypass::Upstream, &ask().at("elsewhere"));
    check(Bypass::NoStore, &ask().with("cache-control", "no-store"));
    check(
        Bypass::ContentEncoding,
        &ask().with("content-encoding", "gzip"),
    );
    check(Bypass::NoCredential, &ask().by(""));
    for grpc in ["application/grpc", "application/grpc+json"] {
        check(Bypass::Grpc, &ask().with("content-type", grpc));
    }
    check(Bypass::Upgrade, &ask().with("upgrade", "websocket"));
    check(Bypass::Expect, &ask().with("expect", "100-continue"));
    let with = |change: &dyn Fn(&mut Ask)| {
        let mut ask = ask();
        change(&mut ask);
        ask
    };
    check(Bypass::Path, &with(&|ask| ask.path = "/v1/models".into()));
    let unwatched = "/v2/chat/completions".to_owned();
    check(Bypass::Path, &with(&|ask| ask.path.clone_from(&unwatched)));
    check(Bypass::Method, &with(&|ask| ask.method = "PUT"));
    check(
        Bypass::BodyTooLarge,
        &with(&|ask| ask.body = "x".repeat(501)),
    );
    check(Bypass::NotJson, &with(&|ask| ask.body = String::new()));
}

#[test]
fn what_the_body_says() {
    let of = |body: &str| Ask {
        body: body.into(),
        ..Ask::chat("")
    };
    let ask = Ask::chat("hello");
    let more = |field: &str| of(&ask.body.replacen('{', &format!("{{{field}, "), 1));
    check(Bypass::NotJson, &of("{"));
    check(Bypass::NotObject, &of("[]"));
    check(Bypass::TrailingData, &of(&(ask.body.clone() + "{}")));
    check(Bypass::ByteOrderMark, &of("\u{feff}{}"));
    check(Bypass::DuplicateKey, &more(r#""model": "x""#));
    check(Bypass::LoneSurrogate, &more(r#""user": "\ud800""#));
    check(
        Bypass::TooDeep,
        &more(&format!(
            r#""x": {0}1{1}"#,
            "[".repeat(150),
            "]".repeat(150)
        )),
    );
    check(Bypass::FieldType, &more(r#""stream": "yes""#));
    check(Bypass::Store, &more(r#""store": true"#));
}

#[test]
fn what_becomes_known_while_the_body_is_read() {
    for why in [Bypass::BodyTooLarge, Bypass::Trailers, Bypass::Unavailable] {
        let mut play = Play::new();
        let id = play.begins(&Ask::chat("hello"));
        play.held(id);
        play.on(id, Event::NoBody(why));
        play.provider(id);
        assert_eq!(play.bypassed(why), 1);
        // The rest of its body passes, and is not read.
        play.on(id, Event::Body(b"{}"));
        play.on(id, Event::NoBody(Bypass::Trailers));
        play.answers(id, &json("hi"));
        assert_eq!(play.clients[&id].marked, Some(Status::Bypass(why)));
        play.ends();
    }
}

#[test]
fn a_client_that_leaves_while_it_sends_leaves_nothing() {
    let mut play = Play::new();
    let id = play.begins(&Ask::chat("hello"));
    play.leaves(id);
    play.ends();
}

/// `path` rules: as the daemon's, about the path that the provider gets.
#[test]
fn the_operator_says_which_api_answers_at_a_path() {
    const RULES: &str = r#""path": [
        {"path": "/openai/llm/chat", "api": "chat-completions"},
        {"path": "/private/*", "api": "none"}
    ]"#;
    let at = |cluster: &str, path: &str| {
        let mut ask = Ask::chat("hello").at(cluster);
        ask.path = path.into();
        ask
    };
    let mut play = Play::with(RULES);
    let first = play.asked(&at("gateway", "/llm/chat"));
    play.answers(first, &json("hi"));
    play.settle();
    for _ in ["hot", "daemon"] {
        let again = play.asked(&at("gateway", "/llm/chat"));
        play.hit(again, &json("hi"));
        play.worker.shared().hot.clear();
    }
    for (cluster, path) in [
        ("openai", "/llm/chat"),
        ("openai", "/private/v1/chat/completions"),
    ] {
        let id = play.asks(&at(cluster, path));
        play.provider(id);
        play.answers(id, &json("hi"));
        let marked = play.clients[&id].marked;
        assert_eq!(marked, Some(Status::Bypass(Bypass::Path)), "{path}");
    }
    play.ends();
}
