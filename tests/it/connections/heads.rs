//! The bounds of a request's head, and the answer to a larger one.

use super::*;
use http::StatusCode;
use reflex_tests::client::{Answer, Client};

fn with_headers(count: usize) -> Ask {
    let ask = Ask::chat("many headers");
    (0..count).fold(ask, |ask, index| {
        ask.header(&format!("x-many-{index}"), "1")
    })
}

fn with_bytes(bytes: usize) -> Ask {
    Ask::chat("long credential").key(Some(&"k".repeat(bytes)))
}

/// One client of each protocol.
fn both(edge: &Edge) -> [Client; 2] {
    [Client::new(&edge.url), Client::http2(&edge.url)]
}

#[track_caller]
fn check_refused(answer: &Answer) {
    assert_eq!(answer.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(answer.header("content-type"), "application/json");
    assert!(answer.json()["error"]["message"].is_string());
}

/// More than 100 headers closed the connection without an answer, and a credential of 20 KiB was
/// refused over HTTP/2.
#[tokio::test]
async fn large_heads_pass_and_larger_ones_are_refused_in_the_apis_words() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    for client in both(&edge) {
        for ask in [with_bytes(20 << 10), with_bytes(60 << 10)] {
            let answer = client.fetch(ask).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert!(matches!(answer.reflex(), "MISS" | "HIT_L1_EXACT"));
        }
        for ask in [
            with_headers(220),
            with_bytes(130 << 10),
            with_bytes(200 << 10),
        ] {
            check_refused(&client.fetch(ask).await);
            // The connection can still be used.
            assert_eq!(
                client
                    .fetch(Ask::get("/v1/models").key(Some("k")))
                    .await
                    .status,
                200
            );
        }
    }
}

/// The provider of the tests takes 100 headers over HTTP/1.1, and says so.
#[tokio::test]
async fn the_number_of_headers_is_the_providers_to_judge() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    for client in both(&edge) {
        for count in [90, 101, 150, 190] {
            let answer = client.fetch(with_headers(count)).await;
            let own = answer.header("x-reflex-status");
            assert!(!own.is_empty(), "{count}: {:?}", answer.status);
        }
    }
}

/// A head beyond the bound of reading still gets an answer.
#[tokio::test]
async fn heads_without_a_bound_are_refused_and_not_read() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    let many: String = (0..3000).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "a".repeat(4 << 20));
    for headers in [many, long] {
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send(format!(
            "GET /v1/models HTTP/1.1\r\nhost: a\r\n{headers}\r\n"
        ))
        .await;
        let said = raw.rest_text().await;
        assert!(said.starts_with("HTTP/1.1 431 "), "{said}");
    }
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000)))
        .await;
    assert!(raw.rest_text().await.starts_with("HTTP/1.1 414 "));
    assert_eq!(upstream.call_count(), 0);
}
