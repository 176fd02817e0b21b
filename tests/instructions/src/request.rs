//! The request that all are about: a chat.

use reflex_llm::{Candidate, Head, Policy, candidate};
use std::hint::black_box;

const HEADERS: [(&str, &[u8]); 5] = [
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

/// The same of several chats.
pub(crate) fn bodies(count: usize, bytes: usize) -> Vec<Vec<u8>> {
    let plain = String::from_utf8(body(bytes)).expect("text");
    let number = |number| plain.replace("Be brief.", &format!("Be {number:>6}"));
    (0..count).map(|at| number(at).into()).collect()
}

/// The head, judged.
pub(crate) fn with_candidate<T>(then: impl FnOnce(Candidate<'_>) -> T) -> T {
    let head = Head {
        method: "POST",
        upstream: "https://api.openai.com",
        path: "/v1/chat/completions",
        headers: &HEADERS,
    };
    then(candidate(black_box(&head), &Policy::default()).expect("a candidate"))
}
