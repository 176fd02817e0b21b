//! A request's key: from its head to a candidate, prepared, and examined with its body.

use crate::Pass;
use reflex_llm::{Head, Policy, candidate};
use std::hint::black_box;

pub(crate) const HEADERS: [(&str, &[u8]); 5] = [
    (
        "authorization",
        b"Bearer sk-0123456789abcdefghijklmnopqrstuv",
    ),
    ("content-type", b"application/json"),
    ("accept", b"application/json"),
    ("user-agent", b"OpenAI/Python 1.0.0"),
    ("x-stainless-lang", b"python"),
];

/// A chat with lines of text in it, about this many bytes in all.
pub(crate) fn body(bytes: usize) -> Vec<u8> {
    const LINE: &str = "Once upon a midnight dreary, while I pondered, weak and weary,\\n";
    let text = LINE.repeat(bytes / LINE.len() - 2);
    format!(
        r#"{{"model":"gpt-4o","temperature":0.2,"messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{text}"}}]}}"#
    )
    .into()
}

pub(crate) fn pass(bytes: usize) -> Pass {
    let body = body(bytes);
    Box::new(move || {
        let head = Head {
            method: "POST",
            upstream: "https://api.openai.com",
            path: "/v1/chat/completions",
            headers: &HEADERS,
        };
        let policy = Policy::default();
        let candidate = candidate(black_box(&head), &policy).expect("a candidate");
        let examined = candidate.prepare().examine(black_box(&body));
        let key = examined.expect("cacheable").exchange.key;
        usize::from(black_box(key.digest[0]))
    })
}
