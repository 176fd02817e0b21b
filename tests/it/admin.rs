//! The admin API and its commands as an operator meets them: over TCP, and with the real binary.

mod access;
mod cli;
mod fuzzed;
mod looks;
mod purges;
mod transfer;

use http::Method;
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::completion::{Completion, Prompt};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const HIT: &str = "HIT_L1_EXACT";

/// A daemon with answers of two tenants to these prompts, all stored.
async fn filled(upstream: &Upstream, prompts: &[&str]) -> Edge {
    let edge = Edge::before(upstream).await;
    fill(&edge, prompts).await;
    edge
}

async fn fill(edge: &Edge, prompts: &[&str]) {
    for prompt in prompts {
        for key in ["one", "two"] {
            let asked = edge.client.fetch(Ask::chat(prompt).key(Some(key))).await;
            assert_eq!(asked.status, 200);
        }
    }
    edge.recorded(2 * prompts.len() as u32, 0).await;
}

async fn is_hit(edge: &Edge, prompt: &str, key: &str) -> bool {
    let ask = Ask::chat(prompt).key(Some(key));
    let look = ask.header("cache-control", "only-if-cached");
    edge.client.fetch(look).await.reflex() == HIT
}

fn admin(edge: &Edge) -> Client {
    Client::new(&edge.admin_url)
}

fn post(edge: &Edge, path: &str, body: impl Into<bytes::Bytes>) -> Ask {
    Ask::new(Method::POST, path, body).key(Some(&edge.token()))
}

async fn get(edge: &Edge, path: &str) -> Answer {
    let ask = Ask::get(path).key(Some(&edge.token()));
    admin(edge).fetch(ask).await
}

async fn purge(edge: &Edge, what: Value) -> Value {
    let ask = post(edge, "/v1/purge", what.to_string());
    let answer = admin(edge).fetch(ask).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    answer.json()
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, reason: &str) {
    assert_eq!(answer.status, status, "{:?}", answer.body);
    assert_eq!(answer.json()["reason"], reason);
    assert!(answer.json()["message"].is_string());
}

/// The lines of the audit log.
fn audit(edge: &Edge) -> Vec<String> {
    let log = edge.log();
    let lines = log.lines().filter(|line| line.contains("audit"));
    lines.map(str::to_owned).collect()
}

/// A good answer to a prompt, of this model.
fn completion(model: &str, text: &str) -> Completion {
    let prompt = Prompt {
        model: model.into(),
        text: text.into(),
        stream: false,
        include_usage: false,
        choices: 1,
    };
    Completion::answer("chatcmpl-1".into(), 1, prompt)
}

/// Stores answers as edges do, which is faster than to ask for each.
async fn put(unix: &Unix, tenant: u8, digest: u32, model: &str) {
    let answer = try_put(unix, tenant, digest, model).await;
    assert_eq!(answer.status, 201, "{:?}", answer.body);
}

/// The same, which may be refused.
async fn try_put(unix: &Unix, tenant: u8, digest: u32, model: &str) -> Answer {
    let body = completion(model, &digest.to_string()).json();
    let path = format!(
        "/v1/entries/{}/{digest:064x}",
        format!("{tenant:02x}").repeat(32)
    );
    let ask = Ask::new(Method::PUT, &path, body)
        .header("content-type", "application/json")
        .header("x-reflex-shape", "chat-completions")
        .header("x-reflex-model", model);
    unix.fetch(ask).await
}
