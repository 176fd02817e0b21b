//! A client that does not read costs little memory, and the requests that it sends ahead delay
//! no answer.

use http::Method;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;

/// Bound of the daemon's growth in these tests, above its bounds for each connection: buffers that
/// the allocator keeps, and instances of the guest.
const SLACK: u64 = 48 << 20;
/// Bound of what one connection's response holds beyond the entry that all share.
const CONNECTION_BYTES: u64 = 1 << 20;

/// Runs `work` and returns by how much the daemon's memory has grown at its end.
async fn grown(edge: &Edge, work: impl AsyncFnOnce()) -> u64 {
    let before = edge.memory();
    work().await;
    edge.memory().saturating_sub(before)
}

#[tokio::test]
async fn what_follows_a_request_does_not_hold_its_answer_back() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let next = http1(&Ask::get("/v1/models").key(Some("k")));
    for behind in [
        &b"\r\n"[..],
        b"\r\n\r\n\r\n",
        &next[..1],
        &next[..20],
        &next,
    ] {
        let mut raw = RawClient::connect(&edge.url).await;
        let ask = Ask::chat("and something behind it");
        raw.send([&http1(&ask)[..], behind].concat()).await;
        let (head, body) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.ends_with(b"}"));
        if behind == next {
            assert!(raw.answer().await.0.starts_with("HTTP/1.1 200"));
        }
    }
}

/// Its first byte came when the next request's answer did.
#[tokio::test]
async fn a_stream_is_not_held_up_by_a_request_behind_it() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut raw = RawClient::connect(&edge.url).await;
    let stream = http1(&Ask::stream("first").mock("gated"));
    let held = http1(&Ask::chat("second").header("x-hold", "1"));
    raw.send([stream, held].concat()).await;
    upstream.called(1).await;
    for _ in 0..3 {
        upstream.release(1);
        raw.until("data: ").await;
    }
    assert_eq!(upstream.call_count(), 1);
    upstream.release_all();
    raw.until("data: [DONE]").await;
    raw.until("HTTP/1.1 200").await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let prompts: Vec<String> = (0..40).map(|index| format!("pipelined {index}.")).collect();
    let all = prompts.iter().flat_map(|prompt| http1(&Ask::chat(prompt)));
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(all.collect::<Vec<u8>>()).await;
    for prompt in &prompts {
        let (_, body) = raw.answer().await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(body.contains(prompt), "{prompt}: {body}");
    }
}

/// An answer of 12 MB that is in the cache.
async fn large(edge: &Edge) -> Ask {
    let ask = Ask::chat("large").mock("large=12000000");
    assert!(edge.client.fetch(ask.clone()).await.body.len() > 12_000_000);
    edge.recorded(1, 0).await;
    edge.client.fetch(ask.clone()).await;
    ask
}

/// 1.5 GB in three seconds.
#[tokio::test]
async fn a_client_that_asks_and_never_reads_costs_no_memory() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = http1(&large(&edge).await);
    let mut raw = RawClient::connect(&edge.url).await;
    let grown = grown(&edge, async || {
        let sent = raw.send_while_taken(&ask, 200_000).await;
        assert!(sent < 200_000, "it was never held up");
    })
    .await;
    assert!(grown < SLACK, "{} MiB", grown >> 20);
}

/// 3 GB for 400 of them.
#[tokio::test]
async fn many_slow_readers_of_one_answer_share_it() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = http1(&large(&edge).await);
    let count = 100;
    let mut readers = Vec::new();
    let grown = grown(&edge, async || {
        for _ in 0..count {
            let mut raw = RawClient::connect(&edge.url).await;
            raw.send(&ask).await;
            raw.until("\r\n\r\n").await;
            readers.push(raw);
        }
    })
    .await;
    assert!(
        grown < SLACK + count * CONNECTION_BYTES,
        "{} MiB",
        grown >> 20
    );
}

#[tokio::test]
async fn closed_windows_of_http2_cost_no_memory() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = large(&edge).await;
    let address = edge.url.trim_start_matches("http://");
    let socket = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let handshake = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 16)
        .handshake(TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    let count = 100;
    let mut unread = Vec::new();
    let grown = grown(&edge, async || {
        for _ in 0..count {
            let body = Full::new(ask.sent().clone()).boxed();
            let request = ask.clone().into_request(&edge.url, body);
            unread.push(sender.send_request(request).await.expect("a head"));
        }
    })
    .await;
    assert!(
        grown < SLACK + count * CONNECTION_BYTES,
        "{} MiB",
        grown >> 20
    );
}

/// 1.66 GB for 200 requests.
#[tokio::test]
async fn an_edge_that_asks_and_never_reads_costs_no_memory() {
    let daemon = Plan::daemon().start().await;
    let path = format!("/v1/entries/{0}/{0}", "a".repeat(64));
    let body = vec![b'x'; 8 << 20];
    let put = Ask::new(Method::PUT, &path, body).header("content-type", "application/json");
    let unix = Unix::http1(&daemon.socket());
    assert_eq!(unix.fetch(put).await.status, 201);
    assert_eq!(unix.fetch(Ask::get(&path)).await.status, 200);
    let mut raw = RawClient::connect_unix(&daemon.socket()).await;
    let grown = grown(&daemon, async || {
        raw.send_while_taken(&http1(&Ask::get(&path)), 10_000).await;
    })
    .await;
    assert!(grown < SLACK, "{} MiB", grown >> 20);
}
