//! What a key covers, and in which parts two keys differ. The helpers `differ` and `same` of
//! `request.rs` hold every other test's requests against this as well.

use reflex_llm::{DIFFERENCES_MAX, KeyedKind};

use crate::request::{Request, chat};

#[track_caller]
fn check(one: &Request, other: &Request, expected: &[(KeyedKind, &str)]) {
    let told = |one: &Request, other: &Request| {
        let found = one.keyed().differences(&other.keyed()).found;
        let found = found.into_iter().map(|it| (it.kind, it.name));
        found.collect::<Vec<_>>()
    };
    let expected: Vec<_> = expected
        .iter()
        .map(|(kind, name)| (*kind, (*name).to_owned()))
        .collect();
    assert_eq!(told(one, other), expected);
    assert_eq!(told(other, one), expected);
}

fn with(body: &str) -> Request {
    chat().body(body.as_bytes())
}

#[test]
fn a_part_that_differs_is_named_with_its_whole_way() {
    let header = |value: &str| chat().header("x-acme", value);
    check(&header("1"), &header("2"), &[(KeyedKind::Header, "x-acme")]);
    check(&chat(), &header("2"), &[(KeyedKind::Header, "x-acme")]);
    let cookies = |value: &str| chat().header("cookie", value);
    check(
        &cookies("a=1; b=2"),
        &cookies("a=1; b=3"),
        &[(KeyedKind::Cookie, "b")],
    );
    check(
        &cookies("a=1; b=2"),
        &cookies("b=2; a=1"),
        &[(KeyedKind::Cookie, "")],
    );
    let path = |query: &str| chat().path(&format!("/v1/chat/completions?{query}"));
    check(
        &path("a=1&b=2"),
        &path("a=1&b=3"),
        &[(KeyedKind::Query, "b")],
    );
    check(
        &path("a=1&b=2"),
        &path("b=2&a=1"),
        &[(KeyedKind::Query, "")],
    );

    let body = |content: &str| {
        with(&format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":{content}}}]}}"#
        ))
    };
    let way = "messages[0].content";
    check(&body(r#""a""#), &body(r#""b""#), &[(KeyedKind::Field, way)]);
    check(&body("1"), &body("1.0"), &[(KeyedKind::Field, way)]);
    let image = |url: &str| {
        body(&format!(
            r#"[{{"type":"image_url","image_url":{{"url":{url}}}}}]"#
        ))
    };
    let way = "messages[0].content[0].image_url.url";
    check(
        &image(r#""a""#),
        &image(r#""b""#),
        &[(KeyedKind::Field, way)],
    );
    let more = with(
        r#"{"model":"m","messages":[{"role":"user","content":"a"},{"role":"user","content":"b"}]}"#,
    );
    check(&body(r#""a""#), &more, &[(KeyedKind::Field, "messages[1]")]);
    let stream = with(r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"a"}]}"#);
    check(&body(r#""a""#), &stream, &[(KeyedKind::Form, "")]);
}

/// A model sees the order of a function's arguments.
#[test]
fn an_order_that_counts_is_a_difference() {
    let body = |order: &str| {
        let tool = format!(
            r#"{{"type":"function","function":{{"name":"f","parameters":{{"type":"object","properties":{{{order}}}}}}}}}"#
        );
        with(&format!(
            r#"{{"model":"m","messages":[],"tools":[{tool}]}}"#
        ))
    };
    let (one, other) = (body(r#""a":{},"b":{}"#), body(r#""b":{},"a":{}"#));
    let found = one.keyed().differences(&other.keyed()).found;
    let way = "tools[0].function.parameters.properties";
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].is_order && found[0].name == way, "{found:?}");
}

#[test]
fn the_hash_of_a_credential_is_not_told() {
    let keyed = chat().keyed();
    let other = chat().header("x-api-key", "sk-other").keyed();
    let tenant = keyed
        .parts()
        .into_iter()
        .find(|it| it.kind == KeyedKind::Tenant);
    assert_eq!(tenant.unwrap().value, b"");
    let found = keyed.differences(&other).found;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, KeyedKind::Tenant);
    assert_eq!(found[0].left.as_deref(), Some(&b""[..]));
}

#[test]
fn what_is_told_is_bounded() {
    let body = |word: &str| {
        let messages =
            vec![format!(r#"{{"role":"user","content":"{word}"}}"#); 2 * DIFFERENCES_MAX];
        with(&format!(
            r#"{{"model":"m","messages":[{}]}}"#,
            messages.join(",")
        ))
    };
    let differences = body("a").keyed().differences(&body("b").keyed());
    assert_eq!(differences.found.len(), DIFFERENCES_MAX);
    assert!(differences.has_more);
}

#[test]
fn all_fields_of_a_body_and_nothing_that_is_out_of_the_key_are_parts() {
    let request = chat()
        .header("user-agent", "curl")
        .header("accept-language", "de")
        .fields(r#""prompt_cache_key":"x","seed":7"#);
    let parts = request.keyed().parts();
    let names: Vec<_> = parts.iter().map(|it| it.name.as_str()).collect();
    for name in ["accept-language", "messages", "model", "seed"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    for name in ["user-agent", "authorization", "prompt_cache_key"] {
        assert!(!names.contains(&name), "{name}: {names:?}");
    }
    let debugged = format!("{parts:?}");
    assert!(!debugged.contains('7'), "{debugged}");
}
