//! `connections_max`, and which client gets a place when all are taken.

use super::*;
use reflex_tests::within;

/// No timer closes anything here while a test runs.
const PATIENT: &str = "header_read_seconds_max = 100000\nkeep_alive_seconds_max = 100000\n";

fn models() -> Vec<u8> {
    http1(&Ask::get("/v1/models").key(Some("k")))
}

async fn check_served(edge: &Edge) {
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(models()).await;
    let (head, _) = raw.answer().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

/// Another client gets a place at once, while connections without a request send anything.
#[tokio::test]
async fn connections_without_a_request_keep_no_client_out() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, &format!("{PATIENT}connections_max = 4")).await;
    let http2_idle = [
        HTTP2_PREFACE,
        &http2(&Ask::get("/v1/models").key(Some("k")), 1),
    ]
    .concat();
    for held in [
        &b""[..],
        b"P",
        b"GET /v1/models HTTP/1.1\r\n",
        HTTP2_PREFACE,
        &models(),
        &http2_idle,
    ] {
        let mut others = Vec::new();
        for _ in 0..8 {
            let mut raw = RawClient::connect(&edge.url).await;
            raw.send(held).await;
            others.push(raw);
        }
        for _ in 0..3 {
            check_served(&edge).await;
        }
    }
}

/// The place of a client is free again once it has gone, in any state.
#[tokio::test]
async fn a_place_is_given_back() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, &format!("{PATIENT}connections_max = 1")).await;
    let whole = http1(&Ask::chat("cut").header("x-hold", "1"));
    for cut in [0, 1, 20, whole.len() - 1, whole.len()] {
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send(&whole[..cut]).await;
        drop(raw);
        check_served(&edge).await;
    }
}

/// Requests that run are never cut for another client: that one waits.
#[tokio::test]
async fn so_many_requests_run_at_once_and_others_wait() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, &format!("{PATIENT}connections_max = 2")).await;
    let mut running = Vec::new();
    for index in 0..4 {
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send(http1(
            &Ask::chat(&format!("held {index}")).header("x-hold", "1"),
        ))
        .await;
        running.push(raw);
    }
    upstream.called(2).await;
    // Far more than it takes to look at two requests.
    for _ in 0..50 {
        edge.health().await;
    }
    assert_eq!(upstream.call_count(), 2);
    upstream.release(4);
    for mut raw in running {
        assert!(raw.answer().await.0.starts_with("HTTP/1.1 200"));
    }
    assert_eq!(upstream.call_count(), 4);
}

/// The log had 100 lines a second.
#[tokio::test]
async fn without_descriptors_the_log_says_so_once_and_clients_are_served() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, PATIENT).await;
    check_served(&edge).await;
    // So that these questions have a connection.
    edge.health().await;
    edge.limit_descriptors(edge.descriptors() as u64 + 8);
    let mut others = Vec::new();
    for _ in 0..40 {
        others.push(RawClient::connect(&edge.url).await);
    }
    let said = async {
        while !edge.log().contains("cannot accept connections") {
            edge.health().await;
        }
    };
    within("a line in the log", said).await;
    for _ in 0..20 {
        check_served(&edge).await;
    }
    let log = edge.log();
    let lines = log.lines().filter(|line| line.contains("accept")).count();
    assert!(lines <= 2, "{log}");
    assert_eq!(edge.client.fetch(Ask::chat("still")).await.status, 200);
}
