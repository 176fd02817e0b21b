//! Clients that do not come to an end with their handshake, or speak no TLS.

use super::*;
use reflex_tests::raw_client::{RawClient, http1};
use std::time::Duration;
use tokio::net::TcpStream;

/// The beginning of a real ClientHello.
async fn half_hello() -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    let hello = async {
        let (mut stream, _) = listener.accept().await.expect("a client");
        let mut bytes = vec![0; 64];
        let read = tokio::io::AsyncReadExt::read_exact(&mut stream, &mut bytes).await;
        read.expect("a ClientHello");
        bytes
    };
    let (bytes, _) = tokio::join!(hello, tls::connect(&url, trusting(None, None, &[])));
    bytes
}

/// A connection below TLS.
async fn below(edge: &Edge) -> RawClient {
    RawClient::connect(&edge.url.replace("https://", "http://")).await
}

async fn handshakes(edge: &Edge, outcome: &str) -> u64 {
    let labels = [("side", "clients"), ("outcome", outcome)];
    edge.metrics()
        .await
        .sum("reflex_tls_handshakes_total", &labels) as u64
}

#[tokio::test]
async fn what_is_no_handshake_ends_in_time_and_without_a_line() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "tls_handshake_max = \"500ms\"").await;
    let before = edge.log();
    let half = half_hello().await;
    let unfinished: [&[u8]; 4] = [b"", b"\x16", &half[..8], &half];
    for sent in unfinished {
        let mut raw = below(&edge).await;
        raw.send(sent).await;
        assert_eq!(raw.rest().await, b"", "{sent:?}");
    }
    for sent in [
        &http1(&Ask::get("/v1/models"))[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        &[0; 600],
        &[0xff; 600],
    ] {
        let mut raw = below(&edge).await;
        raw.send(sent).await;
        // An alert, if anything.
        let said = raw.rest().await;
        assert!(said.is_empty() || said[0] == 0x15, "{sent:?}: {said:?}");
    }
    assert_eq!(handshakes(&edge, "unfinished").await, 4);
    assert_eq!(handshakes(&edge, "refused").await, 5);
    assert_eq!(edge.log(), before);
    assert_eq!(upstream.call_count(), 0);
}

/// It has one bound for all of it, however many bytes come.
#[tokio::test]
async fn a_handshake_that_drips_is_cut() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "tls_handshake_max = \"500ms\"").await;
    let mut raw = below(&edge).await;
    raw.send(half_hello().await).await;
    let drips = async {
        // Within the length that the record has named, or past it.
        while raw.try_send("\0").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of a handshake without one", drips).await;
}

#[tokio::test]
async fn handshakes_take_places_and_keep_nobody_out() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let config = "connections_max = 2\ntls_handshake_max = \"1h\"";
    let edge = edge(&authority, &upstream, config).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(below(&edge).await);
    }
    let answer = edge.client.fetch(Ask::chat("let me in")).await;
    assert_eq!(answer.status, 200);
    // The one that was there first had to go.
    assert_eq!(silent[0].rest().await, b"");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let config = "tls_handshake_max = \"1h\"\ndrain_max = \"1h\"";
    let mut edge = edge(&authority, &upstream, config).await;
    let mut silent = below(&edge).await;
    // The next connection is accepted after it.
    edge.client.fetch(Ask::chat("the last")).await;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
    assert_eq!(silent.rest().await, b"");
}

/// What TLS holds back for a client that takes nothing has the same bound as what the socket does.
#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let Some(authority) = Authority::new() else {
        return;
    };
    let upstream = Upstream::start().await;
    let edge = edge(&authority, &upstream, "idle_max = \"1s\"").await;
    let address = edge.url.trim_start_matches("https://");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let stream: TcpStream = socket
        .connect(address.parse().expect("an address"))
        .await
        .expect("it");
    let config = trusting(Some(&authority.ca()), None, &[]);
    let mut stream = tls::connect_on(stream, config).await.expect("a handshake");
    // The daemon opens some files with its first request to the provider, and keeps that connection.
    edge.client.fetch(Ask::chat("the first")).await;
    let open = edge.descriptors();
    let ask = http1(&Ask::chat("much").mock("large=8000000"));
    tokio::io::AsyncWriteExt::write_all(&mut stream, &ask)
        .await
        .expect("a reader");
    upstream.called(2).await;
    let gone = async {
        while edge.descriptors() >= open {
            tokio::time::interval(Duration::from_millis(20))
                .tick()
                .await;
        }
    };
    within("the end of a connection that is not read", gone).await;
}
