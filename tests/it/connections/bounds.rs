//! `header_read_seconds_max`, `keep_alive_seconds_max`, `idle_seconds_max` and `request_seconds_max`.

use super::*;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2 as client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use reflex_tests::within;

const SHORT_HEADS: &str = "header_read_seconds_max = 1";

/// A connection that has sent this, and no more, is closed, by all listeners. Returns what the
/// clients' one said.
async fn check_closed(edge: &Edge, sent: &[u8]) -> String {
    let mut said = Vec::new();
    for (client, mut raw) in each(edge).await {
        raw.send(sent).await;
        said.push((client, raw));
    }
    let mut first = None;
    for (_, mut raw) in said {
        let rest = raw.rest_text().await;
        first.get_or_insert(rest);
    }
    first.unwrap_or_default()
}

/// hyper-util's detection of the protocol has no timer: silent sockets held every place forever.
#[tokio::test]
async fn a_client_that_sends_no_whole_head_is_cut() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, SHORT_HEADS).await;
    let settings = HTTP2_PREFACE.len();
    for silent in [
        &b""[..],
        b"\r\n\r\n",
        &HTTP2_PREFACE[..1],
        &HTTP2_PREFACE[..16],
    ] {
        let said = check_closed(&edge, silent).await;
        assert!(
            said.is_empty() || said.starts_with("HTTP/1.1 408"),
            "{said}"
        );
    }
    for half in [
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: ",
    ] {
        let said = check_closed(&edge, half.as_bytes()).await;
        assert!(
            said.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
            "{said}"
        );
        let body = said.split("\r\n\r\n").nth(1).expect("a body");
        let body: serde_json::Value = serde_json::from_str(body).expect("an error of the API");
        assert_eq!(body["error"]["code"], "408");
        let length = format!(
            "content-length: {}\r\n",
            said.len() - said.find("{").expect("it")
        );
        assert!(said.contains(&length), "{said}");
    }
    // What HTTP/2 says before a first request: the preface without settings, with them, and pings.
    let preface = &HTTP2_PREFACE[..settings - 9];
    let ping = [HTTP2_PREFACE, &frame(6, 0, 0, &[0; 8])].concat();
    // A head without its end.
    let block = frame(1, 0, 1, &[0x82]);
    let half = [HTTP2_PREFACE, &block].concat();
    for silent in [preface, HTTP2_PREFACE, &ping, &half] {
        check_closed(&edge, silent).await;
    }
}

/// A client that sends a byte at a time has one bound for all of them.
#[tokio::test]
async fn a_head_that_drips_is_cut() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, SHORT_HEADS).await;
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send("GET /v1/models HTTP/1.1\r\nx: ").await;
    let drips = async {
        while raw.try_send("a").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of a head without one", drips).await;
    assert_eq!(upstream.call_count(), 0);
}

/// They closed after exactly 60 s, which is when AWS' load balancers give up theirs: each then met
/// a connection that had just closed.
#[tokio::test]
async fn an_idle_connection_outlives_the_time_for_a_head() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, SHORT_HEADS).await;
    let ask = Ask::get("/health");
    let mut one = RawClient::connect(&edge.admin_url).await;
    let mut two = RawClient::connect(&edge.url).await;
    let two_asks = http1(&Ask::get("/v1/models").key(Some("k")));
    for _ in 0..2 {
        one.send(http1(&ask)).await;
        assert!(one.answer().await.0.starts_with("HTTP/1.1 200"));
        two.send(&two_asks).await;
        assert!(two.answer().await.0.starts_with("HTTP/1.1 200"));
        // An empty line is no beginning of a request.
        two.send("\r\n").await;
        a_while(&edge).await;
        a_while(&edge).await;
    }
}

#[tokio::test]
async fn an_idle_connection_closes_in_the_end() {
    let upstream = Upstream::start().await;
    let config = "keep_alive_seconds_max = 1";
    let edge = edge(&upstream, config).await;
    for (client, mut raw) in each(&edge).await {
        raw.send("GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let (head, _) = raw.answer().await;
        assert!(head.starts_with("HTTP/1.1 "), "{client}");
        assert_eq!(raw.rest_text().await, "", "{client}");
    }
    let mut http2_client = RawClient::connect(&edge.url).await;
    let ask = Ask::get("/v1/models").key(Some("k"));
    http2_client
        .send([HTTP2_PREFACE, &http2(&ask, 1)].concat())
        .await;
    let said = http2_client.rest().await;
    let goaway = said.windows(4).any(|it| it == [0, 8, 7, 0]);
    assert!(goaway, "no GOAWAY");
    assert_eq!(upstream.call_count(), 2);
}

/// A request that runs is not idle, however long it takes.
#[tokio::test]
async fn a_request_that_waits_for_the_provider_is_not_cut() {
    let upstream = Upstream::start().await;
    let config = "header_read_seconds_max = 1\nkeep_alive_seconds_max = 1\nidle_seconds_max = 60";
    let edge = edge(&upstream, config).await;
    let ask = Ask::chat("slow").header("x-hold", "1");
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(http1(&ask)).await;
    let http2_client = reflex_tests::client::Client::http2(&edge.url);
    let other = tokio::spawn(async move {
        let ask = Ask::chat("slow, too").header("x-hold", "1");
        http2_client.fetch(ask).await
    });
    upstream.called(2).await;
    for _ in 0..3 {
        a_while(&edge).await;
    }
    upstream.release(2);
    assert!(raw.answer().await.0.starts_with("HTTP/1.1 200"));
    assert_eq!(other.await.expect("an answer").status, 200);
}

/// A client over HTTP/2 that is gone without notice, while the provider still works.
#[tokio::test]
async fn an_http2_client_that_answers_no_ping_lets_the_provider_go() {
    let upstream = Upstream::start().await;
    let config = "header_read_seconds_max = 1\nkeep_alive_seconds_max = 2";
    let edge = edge(&upstream, config).await;
    let mut raw = RawClient::connect(&edge.url).await;
    let ask = Ask::chat("left").header("x-hold", "1");
    raw.send([HTTP2_PREFACE, &http2(&ask, 1)].concat()).await;
    upstream.called(1).await;
    upstream.abandoned(1).await;
    raw.rest().await;
}

#[tokio::test]
async fn a_body_that_pauses_for_too_long_is_cut() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "idle_seconds_max = 1").await;
    let whole = http1(&Ask::chat("half a body"));
    let put = format!(
        "PUT /v1/entries/{0}/{0} HTTP/1.1\r\nhost: a\r\n",
        "a".repeat(64)
    );
    for sent in [
        &whole[..whole.len() - 1],
        &whole[..whole.len() - Ask::chat("half a body").sent().len()],
    ] {
        let mut raw = RawClient::connect(&edge.url).await;
        raw.send(sent).await;
        let said = raw.rest_text().await;
        assert!(!said.starts_with("HTTP/1.1 2"), "{said}");
    }
    let mut raw = RawClient::connect_unix(&edge.socket()).await;
    raw.send(format!("{put}content-length: 10\r\n\r\n12345"))
        .await;
    let said = raw.rest_text().await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert_eq!(upstream.call_count(), 0);
}

/// A client that sent a byte each idle period was never cut.
#[tokio::test]
async fn a_request_that_drips_is_cut() {
    let upstream = Upstream::start().await;
    let config = "request_seconds_max = 2\nidle_seconds_max = 600\nheader_read_seconds_max = 1";
    let edge = edge(&upstream, config).await;
    let post = |path: &str, length: u32| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer k\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let put = format!(
        "PUT /v1/entries/{0}/{0} HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n",
        "a".repeat(64)
    );
    // One that is read ahead, one too long for that, one for another API, and an edge's.
    let chat = "/v1/chat/completions";
    let heads = [
        post(chat, 1000),
        post(chat, 9_000_000),
        post("/v1/files", 1000),
    ];
    let mut drips = tokio::task::JoinSet::new();
    for (head, raw) in [
        (heads[0].clone(), RawClient::connect(&edge.url).await),
        (heads[1].clone(), RawClient::connect(&edge.url).await),
        (heads[2].clone(), RawClient::connect(&edge.url).await),
        (put, RawClient::connect_unix(&edge.socket()).await),
    ] {
        let mut raw = raw;
        let url = edge.url.clone();
        drips.spawn(async move {
            raw.send(&head).await;
            // About a byte a second: as long as another client's time for a head.
            while raw.try_send("a").await.is_ok() {
                RawClient::connect(&url).await.rest().await;
            }
            (head, raw.rest_text().await)
        });
    }
    while let Some(dripped) = within("the end of a body without one", drips.join_next()).await {
        let (head, said) = dripped.expect("no panic");
        assert!(!said.starts_with("HTTP/1.1 2"), "{head}{said}");
    }
    assert_eq!(upstream.call_count(), 0);
    // A client that never pauses has the same bound for the whole.
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send(&post("/v1/files", u32::MAX)).await;
    let stream = async {
        while raw.try_send([b'a'; 1000]).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of a long body", stream).await;
    // A request within its time is not cut.
    assert_eq!(edge.client.fetch(Ask::chat("whole")).await.status, 200);
}

/// Larger than the buffers between two programs.
const LARGE: &str = "large=12000000";

/// A cached answer, larger than the buffers between two programs.
async fn large(edge: &Edge) -> Ask {
    let ask = Ask::chat("large").mock(LARGE);
    let first = edge.client.fetch(ask.clone()).await;
    assert!(first.body.len() > 12_000_000);
    edge.recorded(1, 0).await;
    ask
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let upstream = Upstream::start().await;
    let config = "idle_seconds_max = 1\nheader_read_seconds_max = 3";
    let edge = edge(&upstream, config).await;
    let ask = large(&edge).await;
    let mut slow = RawClient::connect(&edge.url).await;
    slow.send(http1(&ask)).await;
    slow.until("\r\n\r\n").await;
    a_while(&edge).await;
    let read = slow.rest().await.len();
    assert!(read < 12_000_000, "{read} bytes: it was waited for");
}

/// Of two streams on one connection, the one that is not read is reset, and the other goes on.
#[tokio::test]
async fn a_stream_that_is_not_taken_is_reset_and_others_go_on() {
    let upstream = Upstream::start().await;
    let config = "idle_seconds_max = 1\nheader_read_seconds_max = 3";
    let edge = edge(&upstream, config).await;
    let ask = large(&edge).await;
    let address = edge.url.trim_start_matches("http://");
    let socket = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let handshake = client::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1 << 16)
        .initial_connection_window_size(1 << 20)
        .handshake(TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);

    let request = ask
        .clone()
        .into_request(&edge.url, Full::new(ask.sent().clone()).boxed());
    let response = sender.send_request(request).await;
    let mut stuck = response.expect("a head").into_body();
    a_while(&edge).await;
    let models = Ask::get("/v1/models").key(Some("k"));
    let request = models.into_request(&edge.url, Empty::new().boxed());
    let other = within("an answer", sender.send_request(request)).await;
    assert_eq!(other.expect("an answer").status(), 200);
    let mut read = 0;
    let end = loop {
        match within("the end of a stream", stuck.frame()).await {
            Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len()),
            end => break end,
        }
    };
    assert!(
        end.is_some_and(|end| end.is_err()),
        "{read} bytes came whole"
    );
    assert!(read < 12_000_000);
    assert_eq!(edge.client.fetch(Ask::chat("another")).await.status, 200);
}
