//! The edge API for a program that knows only `docs/edge-api.md` and the socket.

mod entries;
mod fills;
mod purge;
mod refusals;
mod socket;

use std::fmt::Write as _;
use std::path::Path;

use http::Method;
use reflex_llm::{Classified, Exchange, Head, Policy, classify};
use reflex_tests::client::{Answer, Ask};
use reflex_tests::completion::{Completion, Prompt};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;

/// Longer than a test takes, shorter than the API's own bound. Only a failing test waits so long.
const WAIT: &str = "20000";

async fn daemon() -> Edge {
    Plan::daemon().start().await
}

/// One client of each protocol.
async fn both(socket: &Path) -> [Unix; 2] {
    [Unix::http1(socket), Unix::http2(socket).await]
}

fn hex(bytes: &[u8; 32]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The path of a tenant whose 32 bytes are all this one.
fn tenant(byte: u8) -> String {
    format!("/v1/entries/{}", hex(&[byte; 32]))
}

/// The path of an entry of tenant 1, by the number in its digest.
fn path(digest: u32) -> String {
    path_of(1, digest)
}

fn path_of(of: u8, digest: u32) -> String {
    format!("{}/{digest:064x}", tenant(of))
}

fn get(path: &str) -> Ask {
    Ask::get(path)
}

fn put(path: &str, body: impl Into<bytes::Bytes>) -> Ask {
    Ask::new(Method::PUT, path, body).header("content-type", "application/json")
}

fn delete(path: &str) -> Ask {
    Ask::new(Method::DELETE, path, "")
}

fn epoch(answer: &Answer) -> &str {
    answer.header("x-reflex-epoch")
}

fn fill(answer: &Answer) -> &str {
    answer.header("x-reflex-fill")
}

#[track_caller]
fn check_stored(answer: &Answer) {
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    assert!(answer.body.is_empty());
    assert!(!epoch(answer).is_empty());
}

#[track_caller]
fn check_found(answer: &Answer, body: &[u8]) {
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert!(answer.body == body, "another body");
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["reason"], reason);
    assert!(answer.json()["message"].is_string());
    assert!(!epoch(answer).is_empty());
}

#[track_caller]
fn check_miss(answer: &Answer) {
    check_refused(answer, 404, "miss");
}

/// A good answer to a prompt.
fn completion(text: &str) -> Completion {
    let prompt = Prompt {
        model: "mock".into(),
        text: text.into(),
        stream: false,
        include_usage: false,
        choices: 1,
    };
    Completion::answer("chatcmpl-1".into(), 1, prompt)
}

/// What any program makes of a request: [`Ask`]'s, with the headers that it sends.
fn exchange(upstream: &str, body: &[u8]) -> Exchange {
    let head = Head {
        method: "POST",
        upstream,
        path: reflex_tests::client::CHAT,
        headers: &[
            ("content-type", b"application/json"),
            ("authorization", b"Bearer test"),
        ],
    };
    match classify(&head, &Policy::default(), body) {
        Classified::Cacheable(exchange) => exchange,
        Classified::Bypass(bypass) => panic!("not cacheable: {bypass}"),
    }
}
