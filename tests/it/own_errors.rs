//! Our own errors: in the words of the requested API, and readable by the page that asked.

use http::Method;
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::transparent::Out;

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const GENERATE: &str = "/v1beta/models/m:generateContent";
const STREAM: &str = "/v1beta/models/m:streamGenerateContent";

fn body(stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": "hi"}]);
    json!({"model": "m", "max_tokens": 9, "stream": stream, "messages": messages})
}

fn contents() -> Value {
    json!({"contents": [{"parts": [{"text": "hi"}]}]})
}

fn ask(method: Method, path: &str, header: (&str, &str)) -> Ask {
    Ask::new(method, path, "{}").header(header.0, header.1)
}

/// Checks that an error has the shape of an API, and that a page can read it.
#[track_caller]
fn check(error: &Answer, status: u16, path: &str, shape: &str) {
    assert_eq!(error.status, status, "{path}");
    assert_eq!(error.header("content-type"), "application/json", "{path}");
    assert_eq!(error.header("access-control-allow-origin"), "*", "{path}");
    assert_eq!(error.header("access-control-allow-credentials"), "");
    let body = error.json();
    let code = status.to_string();
    let found = match &body {
        Value::Array(items) if items[0]["error"]["status"].is_string() => "google array",
        body if body["type"] == "error" && body["error"]["type"].is_string() => "anthropic",
        body if body["error"]["code"] == status && body["error"]["status"].is_string() => "google",
        body if body["error"]["code"] == code => "openai",
        _ => "none",
    };
    assert_eq!(found, shape, "{path}: {body}");
    let error = body.get(0).unwrap_or(&body);
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(message.starts_with("reflex-edge: "), "{message}");
}

#[tokio::test]
async fn a_provider_that_is_down_is_an_error_that_each_sdk_and_each_page_reads() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    upstream.stop().await;
    let anthropic = ("anthropic-version", "2023-06-01");
    let google = ("x-goog-api-key", "k");
    let sse = format!("{STREAM}?alt=sse");
    let origin = |ask: Ask| ask.header("origin", "https://page.example");
    for client in [&edge.client, &Client::http2(&edge.url)] {
        for (ask, shape) in [
            (Ask::to(CHAT, &body(false)), "openai"),
            (Ask::to(CHAT, &body(true)), "openai"),
            (Ask::to(CHAT, &body(false)).key(None), "openai"),
            (
                Ask::to("/v1/embeddings", &json!({"model": "m", "input": "a"})),
                "openai",
            ),
            (Ask::to(MESSAGES, &body(false)), "anthropic"),
            (Ask::to(MESSAGES, &body(true)), "anthropic"),
            (Ask::to(GENERATE, &contents()), "google"),
            (Ask::to(&sse, &contents()), "google"),
            (Ask::to(STREAM, &contents()), "google array"),
            // What we know nothing of is as much the SDK's business.
            (
                ask(Method::POST, "/v1/messages/count_tokens", anthropic),
                "anthropic",
            ),
            (ask(Method::GET, "/v1beta/models", google), "google"),
            (Ask::get("/v1/models"), "openai"),
            (Ask::get("/"), "openai"),
        ] {
            let path = ask.path().to_owned();
            let error = client.fetch(origin(ask)).await;
            check(&error, 502, &path, shape);
        }
        // The head alone shows the same.
        let head = client
            .fetch(origin(Ask::new(Method::HEAD, MESSAGES, "")))
            .await;
        assert_eq!((head.status.as_u16(), head.body.len()), (502, 0));
        assert_eq!(head.header("content-type"), "application/json");
        assert_eq!(head.header("access-control-allow-origin"), "*");
    }
}

#[tokio::test]
async fn what_is_not_cached_is_an_error_that_each_sdk_and_each_page_reads() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let out = Out::to(&upstream);
    for (path, body, shape) in [
        (CHAT, body(true), "openai"),
        (MESSAGES, body(false), "anthropic"),
        (GENERATE, contents(), "google"),
        (STREAM, contents(), "google array"),
    ] {
        let ask = Ask::to(path, &body)
            .header("origin", "https://page.example")
            .header("cache-control", "only-if-cached");
        check(&edge.client.fetch(ask.clone()).await, 504, path, shape);
        check(&out.fetch(ask).await, 504, path, shape);
    }
    assert_eq!(upstream.call_count(), 0);
}
