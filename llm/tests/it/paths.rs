//! Which API answers at a path, by the operator's rules.

use crate::request::{CHAT, chat};
use reflex_llm::{Api, Bypass, Head, PathRule, Policy, candidate, classify};
use reflex_llm::{Classified, Exchange};

fn at(path: &str, rules: &[PathRule], body: &str) -> Result<Exchange, Bypass> {
    let head = Head {
        method: "POST",
        upstream: "https://api.openai.com",
        path,
        headers: &[("authorization", b"Bearer sk-one")],
    };
    let policy = Policy {
        paths: rules,
        ..Policy::default()
    };
    match classify(&head, &policy, body.as_bytes()) {
        Classified::Cacheable(exchange) => Ok(exchange),
        Classified::Bypass(bypass) => {
            // The path's part is decided before the body is read.
            let early = candidate(&head, &policy).err();
            assert_eq!(early == Some(Bypass::Path), bypass == Bypass::Path);
            Err(bypass)
        }
    }
}

fn rules(all: &[(&str, &str)]) -> Vec<PathRule> {
    let rule = |(path, api): &(&str, &str)| PathRule::parse(path, api).expect("valid");
    all.iter().map(rule).collect()
}

#[test]
fn the_first_rule_that_applies_tells_the_api() {
    let rules = rules(&[
        ("/llm/v2/chat", "chat-completions"),
        ("/private/*", "none"),
        ("/llm/*/embed", "embeddings"),
        ("/llm/*", "completions"),
    ]);
    let api = |path: &str, body: &str| at(path, &rules, body).map(|it| it.shape.api);
    let prompt = r#"{"model":"m","prompt":"hi"}"#;
    let input = r#"{"model":"m","input":"hi"}"#;
    assert_eq!(api("/llm/v2/chat", CHAT), Ok(Api::ChatCompletions));
    assert_eq!(api("/llm/v2/chat?a=b", CHAT), Ok(Api::ChatCompletions));
    assert_eq!(api("/llm/a/embed", input), Ok(Api::Embeddings));
    assert_eq!(api("/llm/v2/chat/", prompt), Ok(Api::Completions));
    assert_eq!(api("/private/v1/chat/completions", CHAT), Err(Bypass::Path));
    // A query cannot make a rule apply, nor keep it from applying.
    assert_eq!(api("/x?/llm/v2/chat", CHAT), Err(Bypass::Path));
    assert_eq!(api("/private/a?/llm/v2/chat", CHAT), Err(Bypass::Path));
    // If no rule applies, the result is that without rules.
    assert_eq!(api("/v1/chat/completions", CHAT), Ok(Api::ChatCompletions));
    assert_eq!(api("/v2/chat", CHAT), Err(Bypass::Path));
    let usual = at("/v1/chat/completions", &rules, CHAT).map(|it| it.key);
    assert_eq!(usual, Ok(chat().exchange().key));
}

#[test]
fn no_spelling_of_a_path_evades_a_rule() {
    let rules = rules(&[
        ("/private/*", "none"),
        ("/closed", "none"),
        ("/llm/v2/chat", "chat-completions"),
    ]);
    let api = |path: &str| at(path, &rules, CHAT).map(|it| it.shape.api);
    for path in [
        "/private/v1/chat/completions",
        "//private/v1/chat/completions",
        "///private//v1/chat/completions",
        "/./private/v1/chat/completions",
        "/././/private/v1/chat/completions",
        "/%70rivate/v1/chat/completions",
        "/%50rivate/v1/chat/completions",
        "/PRIVATE/v1/chat/completions",
        "/%2570rivate/v1/chat/completions",
        "/%2e/private/v1/chat/completions",
        "/%2fprivate/v1/chat/completions",
        "/private%2Fv1/chat/completions",
        "/private%252fv1/chat/completions",
        "/private%5cv1/chat/completions",
        "/private\\v1/chat/completions",
        "/a/../private/v1/chat/completions",
        "/a/%2e%2E/private/v1/chat/completions",
        "/a/..%2fprivate/v1/chat/completions",
        "/private/../v1/chat/completions",
        "/private;a=b/v1/chat/completions",
        "/v1/..;/private/v1/chat/completions",
        "/%u0070rivate/v1/chat/completions",
        "/private/v1/chat/completions?/v1/chat/completions",
        "/closed",
        "/closed/",
        "/closed//",
    ] {
        assert_eq!(api(path), Err(Bypass::Path), "{path}");
    }
    // Neither a rule for an API nor the path's own words can be evaded.
    for path in [
        "//llm/v2/chat",
        "/llm/./v2/chat",
        "/llm/v2/%63hat?a=b",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/./completions",
        "/v1/chat/%63ompletions",
        "/openai/deployments/azure%2Fgpt-4o/chat/completions",
    ] {
        assert_eq!(api(path), Ok(Api::ChatCompletions), "{path}");
    }
}

/// Readers of an escaped slash differ: where the path's readings do not agree, it bypasses.
#[test]
fn an_allowed_path_cannot_be_stretched() {
    let rules = rules(&[("/public/*", "chat-completions"), ("*", "none")]);
    let api = |path: &str| at(path, &rules, CHAT).map(|it| it.shape.api);
    assert_eq!(api("/public/x"), Ok(Api::ChatCompletions));
    assert_eq!(api("/public/x%2fy"), Ok(Api::ChatCompletions));
    for path in [
        "/public/../private/x",
        "/public/..%2fprivate/x",
        "/public%2fx/../../private",
        "/x%2fpublic/y",
        "/public%2fx",
    ] {
        assert_eq!(api(path), Err(Bypass::Path), "{path}");
    }
    assert_eq!(
        at("/v1/chat%2fcompletions", &[], CHAT).map(|it| it.shape),
        Err(Bypass::Path)
    );
}

/// Rules see the normal form; the provider gets the path as sent, and may tell spellings apart.
#[test]
fn the_key_has_the_path_as_sent() {
    let key = |path: &str| at(path, &[], CHAT).expect("cacheable").key;
    assert_ne!(key("/v1/chat/completions"), key("//v1/chat/completions"));
    assert_ne!(key("/v1/chat/completions"), key("/v1/%63hat/completions"));
}

#[test]
fn what_is_no_path_passes_by_whatever_the_rules_say() {
    let rules = rules(&[("*", "chat-completions")]);
    assert_eq!(at("*", &rules, CHAT), Err(Bypass::Path));
    assert_eq!(at("https://a/b", &rules, CHAT), Err(Bypass::Path));
    assert_eq!(at("", &rules, CHAT), Err(Bypass::Path));
    assert!(at("/", &rules, CHAT).is_ok());
}

#[test]
fn path_and_api_are_in_the_key() {
    let key = |path: &str, api: &str| {
        let body = r#"{"model":"m","prompt":"hi","messages":[],"input":"a"}"#;
        at(path, &rules(&[("/a*", api)]), body)
            .expect("cacheable")
            .key
    };
    let keys = [
        key("/a", "chat-completions"),
        key("/a", "completions"),
        key("/a", "embeddings"),
        key("/ab", "chat-completions"),
    ];
    for (at, one) in keys.iter().enumerate() {
        assert!(keys[at + 1..].iter().all(|other| one != other), "{at}");
    }
}

#[test]
fn mistakes_in_a_rule_are_named() {
    let check = |path: &str, api: &str, part: &str| {
        let error = PathRule::parse(path, api).expect_err(part);
        assert!(error.contains(part), "{error}");
    };
    check("v1/chat", "none", "`v1/chat`");
    check("", "none", "slash");
    check("/v1?a=b", "none", "query");
    check("//v1/*", "none", "write `/v1/*`");
    check("/%76%31", "none", "write `/v1`");
    check("/v1/%2f", "none", "write `/v1/`");
    check("/v1/../a", "none", "`..`");
    check("/v1", "chat", "`chat`");
    check("/v1", "chat-completions+sse", "`chat-completions+sse`");
    check("/v1", "", "``");
    for &api in Api::ALL {
        assert_eq!(Api::from_name(api.name()), Some(api));
        let is_gemini = api.name().starts_with("gemini-");
        let rule = PathRule::parse("*/x", api.name());
        assert_eq!(rule.is_err(), is_gemini, "{rule:?}");
    }
}
