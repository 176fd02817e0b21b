//! Requests that the cache may not answer go to the provider and back as without the cache.

use reflex_tests::client::{Ask, CHAT};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw_client::RawClient;
use reflex_tests::upstream::Upstream;

/// Sends a body that must arrive byte for byte, and expects a bypass for this reason.
async fn check(body: impl Into<Vec<u8>>, reason: &str) {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let body = body.into();
    let answer = edge.client.fetch(Ask::body(body.clone())).await;
    assert_eq!(answer.reflex(), "BYPASS", "{reason}");
    let expected = format!("reflex; fwd=bypass; detail=\"{reason}\"");
    assert_eq!(answer.header("cache-status"), expected);
    let calls = upstream.calls();
    assert_eq!(calls.len(), 1, "{reason}");
    assert!(calls[0].body == body, "{reason}: another body arrived");
    assert_eq!(calls[0].header("authorization"), "Bearer test");
}

#[tokio::test]
async fn a_body_that_is_not_json_passes_unchanged() {
    check("", "not-json").await;
    check("{\"model\": \"mock\", \"messages\": [", "not-json").await;
    check("{'model': 'mock'}", "not-json").await;
    check("[1, 2]", "not-object").await;
    check("{\"model\":\"mock\"} {}", "trailing-data").await;
}

#[tokio::test]
async fn a_body_with_a_key_twice_passes_unchanged() {
    let body = r#"{"model":"mock","messages":[{"role":"user","content":"a"}],"model":"other"}"#;
    check(body, "duplicate-key").await;
    let escaped = r#"{"model":"mock","messages":[],"\u006dodel":"other"}"#;
    check(escaped, "duplicate-key").await;
}

#[tokio::test]
async fn a_body_that_is_not_utf8_passes_unchanged() {
    let mut body = br#"{"model":"mock","messages":[{"role":"user","content":""#.to_vec();
    body.extend(b"\xff\xfe\"}]}");
    check(body, "not-utf8").await;
}

#[tokio::test]
async fn a_body_over_the_limit_streams_through() {
    let padding = "x".repeat((1 << 20) + 1);
    let body = format!(
        r#"{{"model":"mock","messages":[{{"role":"user","content":"long"}}],"x":"{padding}"}}"#
    );
    check(body, "body-too-large").await;
}

/// They were refused as too large.
#[tokio::test]
async fn a_body_with_trailers_passes_with_them() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = Ask::chat("with trailers");
    let body = String::from_utf8(ask.sent().to_vec()).expect("text");
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(format!(
        "POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer test\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\
         trailer: x-checksum\r\n\r\n{:x}\r\n{body}\r\n0\r\nx-checksum: 7\r\n\r\n",
        body.len()
    ))
    .await;
    let (head, _) = raw.answer().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("detail=\"trailers\""), "{head}");
    let call = upstream.calls().remove(0);
    assert_eq!(call.body, body);
    assert_eq!(call.trailers["x-checksum"], "7");
}

#[tokio::test]
async fn a_request_for_the_provider_to_store_passes() {
    let body = r#"{"model":"mock","messages":[{"role":"user","content":"a"}],"store":true}"#;
    check(body, "store").await;
}

#[tokio::test]
async fn other_paths_and_methods_pass_untouched() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = || {
        Ask::get("/v1/models?limit=2")
            .key(Some("k"))
            .header("x-anything", "a, b")
    };
    for _ in 0..2 {
        let answer = edge.client.fetch(ask()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.reflex(), "BYPASS");
        assert_eq!(answer.json()["data"][0]["id"], "mock");
    }
    let calls = upstream.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0].path, "/v1/models?limit=2");
    assert_eq!(calls[0].header("authorization"), "Bearer k");
    assert_eq!(calls[0].header("x-anything"), "a, b");
    assert_eq!(
        calls[0].header("host"),
        upstream.url().trim_start_matches("http://")
    );

    let wrong_method = edge.client.fetch(Ask::get(CHAT).key(Some("k"))).await;
    assert_eq!(wrong_method.status, 404);
    assert_eq!(
        wrong_method.header("cache-status"),
        r#"reflex; fwd=bypass; detail="method""#
    );
}

#[tokio::test]
async fn the_path_of_the_upstream_goes_before_the_requests() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&format!("{}/openai/", upstream.url()))
        .start()
        .await;
    edge.client.fetch(Ask::chat("with a prefix")).await;
    assert_eq!(upstream.calls()[0].path, format!("/openai{CHAT}"));
}

#[tokio::test]
async fn headers_that_concern_one_connection_stay_on_it() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for repeated in 0..2 {
        let ask = Ask::chat("hop by hop")
            .mock("hop-by-hop")
            .header("connection", "x-private")
            .header("x-private", "1")
            .header("te", "trailers")
            .header("x-public", "1");
        let answer = edge.client.fetch(ask).await;
        assert_eq!(answer.status, 200);
        for name in ["x-only-this-connection", "keep-alive"] {
            assert_eq!(answer.header(name), "", "{name}, answer {repeated}");
        }
    }
    let calls = upstream.calls();
    assert_eq!(calls.len(), 1);
    for name in ["connection", "x-private", "te"] {
        assert_eq!(calls[0].header(name), "", "{name}");
    }
    assert_eq!(calls[0].header("x-public"), "1");
}
