//! Clients of another protocol than the example's HTTP/1.1: WebSockets, and HTTP/1.0.

use super::line;
use crate::websocket::{echo, echoes, hears, open_at};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::raw::header;
use reflex_tests::raw_client::RawClient;

#[tokio::test]
async fn a_websocket_passes_envoy_untouched() {
    let (provider, heads) = echo().await;
    let envoy = EnvoyPlan::new(&provider.url()).start().await;
    let (head, mut stream) = open_at(&envoy.url, "x-other: 1\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "x-provider"), Some("1"));
    let why = r#"reflex; fwd=bypass; detail="upgrade""#;
    assert_eq!(header(&head, "cache-status"), Some(why));
    hears(&mut stream).await;
    for _ in 0..3 {
        echoes(&mut stream).await;
    }
    let asked = heads.lock().expect("no panic").pop().expect("a request");
    assert_eq!(header(&asked, "x-other"), Some("1"));
    assert_eq!(header(&asked, "upgrade"), Some("websocket"));
}

/// Such a client closes its connection after each answer, and may name no host.
#[tokio::test]
async fn a_client_of_http_1_0_is_answered_from_the_cache() {
    let (upstream, _daemon, envoy) = line().await;
    let body = r#"{"model": "gpt-4o", "messages": [{"role": "user", "content": "old?"}]}"#;
    for (host, status) in [("", "MISS"), ("", "HIT"), ("host: a.test\r\n", "HIT")] {
        let mut client = RawClient::connect(&envoy.url).await;
        let ask = format!(
            "POST /v1/chat/completions HTTP/1.0\r\n{host}authorization: Bearer test\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        client.send(ask).await;
        let answer = client.rest_text().await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert!(
            answer.contains(&format!("x-reflex-status: {status}")),
            "{answer}"
        );
        assert!(answer.contains("chat.completion"), "{answer}");
        assert!(!answer.contains("transfer-encoding"), "{answer}");
    }
    assert_eq!(upstream.call_count(), 1);
}
