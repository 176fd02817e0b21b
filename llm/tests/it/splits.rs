//! The part in which keys of requests with the same question differ.

use std::hash::RandomState;

use reflex_llm::{By, Split, Splits, candidate};

use crate::gemini::generate;
use crate::messages::message;
use crate::request::{CHAT, Request, chat, completion, differ};

/// Misses in this order: by what the last one's key differs from that of another.
fn split(requests: &[Request]) -> Vec<Split> {
    let (seed, mut splits) = (RandomState::new(), Splits::new(512));
    let mut last = Vec::new();
    for request in requests {
        last = note(&mut splits, request, &seed);
    }
    last
}

fn note(splits: &mut Splits, request: &Request, seed: &RandomState) -> Vec<Split> {
    request.with_head(|head, policy| {
        let prepared = candidate(head, policy).unwrap().prepare();
        let traits = prepared.traits(&request.body, seed);
        traits.map_or_else(Vec::new, |traits| splits.note(&traits))
    })
}

#[track_caller]
fn check(one: &Request, other: &Request, expected: &[(By, &str)]) {
    let found = split(&[one.clone(), other.clone()]);
    let found: Vec<_> = found.iter().map(|it| (it.by, it.name.as_str())).collect();
    assert_eq!(found, expected);
    if !expected.is_empty() {
        differ(one, other);
    }
}

#[test]
fn requests_that_differ_in_one_header_cookie_parameter_or_field_name_it() {
    for request in [chat(), completion(), message(), generate()] {
        let with = |value: &str| request.clone().header("x-acme-call", value);
        check(&with("1"), &with("2"), &[(By::Header, "x-acme-call")]);
        check(&request, &with("2"), &[(By::Header, "x-acme-call")]);

        let with = |value: &str| {
            let cookies = format!("theme=dark; sticky={value}; lang=en");
            request.clone().header("cookie", cookies)
        };
        check(&with("a"), &with("b"), &[(By::Cookie, "sticky")]);

        let with = |value: &str| {
            let path = format!("{}?api-version=1&trace={value}", request.path);
            request.clone().path(&path)
        };
        check(&with("a"), &with("b"), &[(By::Query, "trace")]);

        let with = |value: &str| {
            let call = format!(r#""acme_call":{{"id":[{value}]}}"#);
            request.clone().fields(&call)
        };
        check(&with("1"), &with("2"), &[(By::Field, "acme_call")]);
        check(&request, &with("2"), &[(By::Field, "acme_call")]);
    }
}

#[test]
fn a_proxy_and_an_agent_may_both_add_something() {
    let with = |value: &str| {
        let request = chat().header("x-acme-call", value);
        request.header("x-agent", value)
    };
    let found = split(&[with("1"), with("2")]);
    let mut names: Vec<_> = found.iter().map(|it| it.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["x-acme-call", "x-agent"]);
    let other = (0..4).fold(chat(), |request, number| {
        request.header(&format!("x-{number}"), "other")
    });
    check(&chat(), &other, &[]);
}

#[test]
fn what_is_asked_is_no_split() {
    let body = |body: &str| chat().body(body);
    let asks = |text: &str| body(&CHAT.replace("hi", text));
    check(&asks("hi"), &asks("there"), &[]);
    check(&asks("hi"), &body(&CHAT.replace("gpt-4o", "gpt-5")), &[]);
    for field in [
        r#""temperature":0.1"#,
        r#""max_tokens":7"#,
        r#""stream":true"#,
        r#""tools":[]"#,
    ] {
        check(&chat(), &chat().fields(field), &[]);
    }
    let other_path = chat().path("/other/v1/chat/completions");
    check(&chat(), &other_path, &[]);
    // With another question, a header shows nothing.
    check(&asks("hi"), &asks("there").header("x-acme-call", "1"), &[]);
}

#[test]
fn what_is_not_in_the_key_is_no_split() {
    let with = |value: &str| {
        let request = chat().header("x-request-id", value);
        request.fields(&format!(r#""prompt_cache_key":"{value}""#))
    };
    check(&with("1"), &with("2"), &[]);
    assert_eq!(with("1").exchange().key, with("2").exchange().key);
    check(&chat(), &chat(), &[]);
}

#[test]
fn tenants_are_not_compared() {
    let with = |key: &str, value: &str| {
        let request = chat().without_headers().header("authorization", key);
        request.header("x-acme-call", value)
    };
    check(&with("Bearer one", "1"), &with("Bearer two", "2"), &[]);
    // But another tenant between two requests does no harm.
    let requests = [
        with("Bearer one", "1"),
        with("Bearer two", "1"),
        with("Bearer one", "2"),
    ];
    assert_eq!(split(&requests).len(), 1);
}

#[test]
fn a_name_is_new_once() {
    let (seed, mut splits) = (RandomState::new(), Splits::new(8));
    let mut is_new = |value: &str| {
        let request = chat().header("x-acme-call", value);
        let found = note(&mut splits, &request, &seed);
        found.first().map(|split| split.is_new)
    };
    assert_eq!(is_new("1"), None);
    assert_eq!(is_new("2"), Some(true));
    assert_eq!(is_new("2"), None);
    assert_eq!(is_new("3"), Some(false));
}

#[test]
fn names_are_bounded_in_number_and_length_and_values_are_never_told() {
    let (seed, mut splits) = (RandomState::new(), Splits::new(8));
    let mut names = std::collections::BTreeSet::new();
    for number in 0..200 {
        let request = chat().header(&format!("x-{number}"), "secret-value");
        for split in note(&mut splits, &request, &seed) {
            assert_eq!(split.is_new, names.insert(split.name));
        }
    }
    assert!(names.len() == 65 && names.contains("other"), "{names:?}");
    for name in ["a b", "", "\\u0061", &"n".repeat(65), "ä"] {
        let with = |value: u32| chat().fields(&format!(r#""{name}":{value}"#));
        check(&with(1), &with(2), &[(By::Field, "other")]);
    }
}

#[test]
fn what_is_long_or_no_object_is_not_compared() {
    let with = |value: &str, length: usize| {
        let body = CHAT.replace("hi", &"x".repeat(length));
        chat().body(body).header("x-acme-call", value)
    };
    let found = split(&[with("1", 60_000), with("2", 60_000)]);
    assert_eq!(found.len(), 1);
    check(&with("1", 70_000), &with("2", 70_000), &[]);
    let headers = |value: &str| {
        (0..70).fold(chat(), |request, number| {
            request.header(&format!("x-{number}"), value)
        })
    };
    check(&headers("1"), &headers("2"), &[]);
    for body in ["", "[1]", "{", "{\"a\":", "nul", "\"{}\""] {
        let with = |value: &str| chat().body(body).header("x-acme-call", value);
        assert_eq!(split(&[with("1"), with("2")]), []);
    }
}

/// Of so many misses between two that ask the same, the second still knows the first, as a rule; of
/// many more it need not, and memory does not grow.
#[test]
fn what_was_long_ago_is_forgotten() {
    let (seed, mut splits) = (RandomState::new(), Splits::new(4));
    let asks = |number: usize| chat().body(CHAT.replace("hi", &format!("number {number}")));
    note(&mut splits, &chat().header("x-acme-call", "1"), &seed);
    for number in 0..1000 {
        note(&mut splits, &asks(number), &seed);
    }
    let again = chat().header("x-acme-call", "2");
    assert_eq!(note(&mut splits, &again, &seed), []);
}
