//! Which API answers at a path, as the operator says.

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
            // What the path decides is decided before the body is read.
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
    // Where no rule applies, all is as without rules.
    assert_eq!(api("/v1/chat/completions", CHAT), Ok(Api::ChatCompletions));
    assert_eq!(api("/v2/chat", CHAT), Err(Bypass::Path));
    let usual = at("/v1/chat/completions", &rules, CHAT).map(|it| it.key);
    assert_eq!(usual, Ok(chat().exchange().key));
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
