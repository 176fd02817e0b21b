//! Clients that end their side after their request, and clients that are gone. TCP shows the same
//! for both.

use super::*;

/// Sends `sent`, ends its side, and returns everything that comes, less what differs each time.
async fn half_closed(mut raw: RawClient, sent: &[u8]) -> String {
    raw.send(sent).await;
    raw.end().await;
    raw.rest_text().await
}

/// agentgateway/agentgateway#2427, envoyproxy/envoy#2066: such a client got nothing.
#[tokio::test]
async fn a_client_that_ends_its_side_gets_its_answer() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    for ask in [
        Ask::get("/v1/models").key(Some("k")),
        Ask::chat("half"),
        Ask::chat("half"),
        Ask::stream("half"),
        Ask::stream("half"),
        Ask::chat("an error").mock("status=500"),
    ] {
        let direct = edge.client.fetch(ask.clone()).await;
        let said = half_closed(RawClient::connect(&edge.url).await, &http1(&ask)).await;
        let status = format!("HTTP/1.1 {} ", direct.status.as_u16());
        assert!(said.starts_with(&status), "{said}");
        assert!(!said.contains("HHTTP"), "{said}");
    }
    let health = half_closed(
        RawClient::connect(&edge.admin_url).await,
        &http1(&Ask::get("/health")),
    )
    .await;
    assert!(
        health.starts_with("HTTP/1.1 200") && health.ends_with("}\n"),
        "{health}"
    );
    let epoch = http1(&Ask::get("/v1/epoch"));
    let epoch = half_closed(RawClient::connect_unix(&edge.socket()).await, &epoch).await;
    assert!(epoch.starts_with("HTTP/1.1 200"), "{epoch}");
}

/// The provider takes its time, before its answer and within it.
#[tokio::test]
async fn a_client_that_ends_its_side_waits_as_long_as_any_other() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "header_read_seconds_max = 1").await;
    for (turn, version) in ["1.1", "1.0"].into_iter().enumerate() {
        let ask = Ask::stream(version).header("x-hold", "1").mock("gated");
        let text = String::from_utf8(http1(&ask)).expect("text");
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send(text.replace("HTTP/1.1", &format!("HTTP/{version}")))
            .await;
        upstream.called(turn + 1).await;
        raw.end().await;
        a_while(&edge).await;
        a_while(&edge).await;
        upstream.release(2);
        let head = raw.until("\r\n\r\n").await;
        assert!(
            head.starts_with(&format!("HTTP/{version} 200 OK\r\n")),
            "{head}"
        );
        raw.until("assistant").await;
        a_while(&edge).await;
        a_while(&edge).await;
        for _ in 0..2 {
            upstream.release(1);
            raw.until("data: ").await;
        }
        upstream.release(1000);
        raw.until("data: [DONE]\n\n").await;
        let end = raw.rest_text().await;
        let chunks = end.split("\r\n").filter(|it| !it.is_empty());
        assert_eq!(chunks.collect::<String>().trim_matches('0'), "", "{end}");
        upstream.forget_permits();
    }
    // What it got is a proper answer, and kept.
    edge.recorded(1, 0).await;
}

/// What a client sends after its request hides neither its answer nor its end.
#[tokio::test]
async fn a_client_that_is_gone_lets_the_provider_go() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    let next = http1(&Ask::get("/v1/models"));
    let mut abandoned = 0;
    for (index, behind) in [&b""[..], b"\r\n", b"GET", &next].into_iter().enumerate() {
        let ask = Ask::chat(&format!("gone {index}")).header("x-hold", "1");
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send([&http1(&ask)[..], behind].concat()).await;
        upstream.called(2 * index + 1).await;
        drop(raw);
        abandoned += 1;
        upstream.abandoned(abandoned).await;

        let ask = Ask::stream(&format!("gone {index}")).mock("gated");
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send([&http1(&ask)[..], behind].concat()).await;
        upstream.called(2 * index + 2).await;
        upstream.release(1);
        raw.until("assistant").await;
        drop(raw);
        abandoned += 1;
        upstream.abandoned(abandoned).await;
        upstream.forget_permits();
    }
}

/// First it ends its side, then it goes.
#[tokio::test]
async fn a_client_that_goes_after_all_lets_the_provider_go() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "header_read_seconds_max = 1").await;
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(http1(&Ask::chat("gone").header("x-hold", "1")))
        .await;
    upstream.called(1).await;
    raw.end().await;
    a_while(&edge).await;
    drop(raw);
    upstream.abandoned(1).await;
}
