//! How often classifying a request allocates: not once more for each of its tokens. Only buffers
//! grow with a body, each by doubling.

use std::alloc::System;

use reflex_llm::{Anonymous, Classified, Head, Policy, classify};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SMALL_BYTES: usize = 16 << 10;
const LARGE_BYTES: usize = 256 << 10;

/// From 16 to 256 KiB a buffer doubles four times, and classifying uses a few buffers.
const GROWTHS_MAX: usize = 16;

/// How often the allocator is asked for one request; the least of a few, for the test's own
/// threads may ask as well.
fn allocations(path: &str, body: &str) -> usize {
    let head = Head {
        method: "POST",
        upstream: "https://api.test",
        path,
        headers: &[("content-type", b"application/json")],
    };
    let policy = Policy {
        anonymous: Anonymous::Share,
        ..Policy::default()
    };
    let once = || {
        let region = Region::new(ALLOCATOR);
        let classified = classify(&head, &policy, body.as_bytes());
        let change = region.change();
        assert!(matches!(classified, Classified::Cacheable(_)), "{path}");
        change.allocations + change.reallocations
    };
    (0..5).map(|_| once()).min().expect("some")
}

/// A request of at least so many bytes: the item again and again.
fn body(start: &str, item: &str, end: &str, bytes: usize) -> String {
    let mut body = start.to_owned();
    while body.len() < bytes {
        if !body.ends_with('[') {
            body.push(',');
        }
        body.push_str(item);
    }
    body + end
}

/// Bodies with more values than are listed.
const TINY_BYTES: usize = 512 << 10;

/// A megabyte of tiny numbers took 18 in a guest, whose memory never shrinks; later 4, for a list of
/// its values.
fn tiny_values_take_few_bytes_each() {
    let all = [
        "1",
        r#""""#,
        "true",
        "[]",
        "{}",
        "[[]]",
        r#"{"":1}"#,
        r#"{"a":[1],"b":{}}"#,
        r#"{"role":"user","content":"a"}"#,
        r#""\u0061""#,
    ];
    for item in all {
        for start in [
            r#"{"model":"m","messages":["#,
            r#"{"model":"m","messages":[],"x":["#,
        ] {
            check_tiny(item, &body(start, item, "]}", TINY_BYTES));
        }
    }
    let keys: Vec<_> = (0..TINY_BYTES / 10)
        .map(|key| format!(r#""{key}":1"#))
        .collect();
    let keys = keys.join(",");
    check_tiny("keys", &format!(r#"{{"model":"m","messages":[],{keys}}}"#));
    check_tiny(
        "keys inside",
        &format!(r#"{{"model":"m","messages":[{{{keys}}}]}}"#),
    );
    let escaped = "\\u4e2d".repeat(TINY_BYTES / 6);
    check_tiny(
        "escapes",
        &format!(r#"{{"model":"m","messages":["{escaped}"]}}"#),
    );
}

fn check_tiny(what: &str, body: &str) {
    let region = Region::new(ALLOCATOR);
    let head = Head {
        method: "POST",
        upstream: "https://api.test",
        path: "/v1/chat/completions",
        headers: &[("content-type", b"application/json")],
    };
    let policy = Policy {
        anonymous: Anonymous::Share,
        ..Policy::default()
    };
    let classified = classify(&head, &policy, body.as_bytes());
    let change = region.change();
    assert!(matches!(classified, Classified::Cacheable(_)), "{what}");
    // What was asked for in all, what was given back again included.
    let asked = change.bytes_allocated + usize::try_from(change.bytes_reallocated).unwrap_or(0);
    let per_byte = asked as f64 / body.len() as f64;
    println!("{per_byte:.1} bytes for each byte of {what}");
    assert!(per_byte < 4.0, "{what}: {per_byte}");
}

/// One test, so that no other test's allocations are counted.
#[test]
fn tokens_are_not_allocated_for() {
    tiny_values_take_few_bytes_each();
    let check = |path: &str, start: &str, item: &str, end: &str| {
        let [small, large] = [SMALL_BYTES, LARGE_BYTES]
            .map(|bytes| allocations(path, &body(start, item, end, bytes)));
        println!("{path}: {small} for 16 KiB, {large} for 256 KiB of {item}");
        assert!(small > 0, "nothing is counted");
        assert!(
            large <= small + GROWTHS_MAX,
            "{path}, {item}: {small} for 16 KiB, {large} for 256 KiB"
        );
    };
    let chat = "/v1/chat/completions";
    let messages = r#"{"model":"m","messages":["#;
    for item in [
        r#"{"role":"user","content":"a"}"#,
        r#"{"content":[{"text":"a","type":"text"}],"role":"user"}"#,
        r#"{"role":"user","content":"\u0061\n\"\ud83d\ude00"}"#,
        r#"{"z":1,"y":[true,null,-1.5e3,{"b":[],"a":{}}],"x":"x"}"#,
    ] {
        check(chat, messages, item, "]}");
    }
    check(
        chat,
        r#"{"model":"m","messages":[],"bias":["#,
        "[[7]]",
        "]}",
    );
    check(
        "/v1/embeddings",
        r#"{"model":"m","input":["#,
        r#""a""#,
        "]}",
    );
    check(
        "/v1/messages",
        r#"{"model":"m","messages":["#,
        r#"{"role":"user","content":[{"type":"text","text":"a","cache_control":{}}]}"#,
        "]}",
    );
}
