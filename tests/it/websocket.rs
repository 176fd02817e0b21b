//! WebSockets and other upgrades of a connection pass through: the realtime API needs
//! them.
//!
//! The handshake and the frames here are those of RFC 6455, sections 1.3 and 5.7. They must pass
//! unchanged; a library would hide a change.

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::forward::Forward;
use reflex_tests::raw::{Raw, header, ok, read_head, read_request};
use reflex_tests::raw_client::{HTTP2_PREFACE, RawClient, frame, header_block, http2};
use reflex_tests::tls::{self, CA};
use reflex_tests::within;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// "Hello" from a client, masked, and from a server.
const MASKED: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
const PLAIN: &[u8] = b"\x81\x05Hello";

/// The heads that arrived.
pub(crate) type Heads = Arc<Mutex<Vec<String>>>;

/// A provider that echoes text frames after the handshake, and answers any other request.
pub(crate) async fn echo() -> (Raw, Heads) {
    let heads = Heads::default();
    let notes = Arc::clone(&heads);
    let raw = Raw::start(move |_, mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            while let Some((head, _)) = read_request(&mut stream).await {
                let key = header(&head, "sec-websocket-key").map(str::to_owned);
                notes.lock().expect("no panic").push(head);
                if key.as_deref() == Some(KEY) {
                    return echo_on(stream).await;
                }
                stream
                    .write_all(ok("fine").as_bytes())
                    .await
                    .expect("a reader");
            }
        }
    })
    .await;
    (raw, heads)
}

/// The first frame comes with the handshake's answer, as servers that greet do.
async fn echo_on(mut stream: TcpStream) {
    let switching = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\nx-provider: 1\r\n\r\n"
    );
    let mut greeting = switching.into_bytes();
    greeting.extend_from_slice(PLAIN);
    stream.write_all(&greeting).await.expect("a reader");
    loop {
        let mut frame = [0; MASKED.len()];
        if stream.read_exact(&mut frame).await.is_err() {
            return;
        }
        assert_eq!(frame, MASKED);
        if stream.write_all(PLAIN).await.is_err() {
            return;
        }
    }
}

/// Asks for a WebSocket, and returns the response's head with the connection.
async fn open(edge: &Edge, more: &str) -> (String, TcpStream) {
    open_at(&edge.url, more).await
}

/// The same of any server.
pub(crate) async fn open_at(url: &str, more: &str) -> (String, TcpStream) {
    let address = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a server");
    let ask = format!(
        "GET /v1/realtime?model=mock HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Version: 13\r\nAuthorization: Bearer test\r\n{more}\r\n"
    );
    stream.write_all(ask.as_bytes()).await.expect("a reader");
    let head = within("the answer to a handshake", read_head(&mut stream)).await;
    (head.expect("a head"), stream)
}

/// The next frame of the provider.
pub(crate) async fn hears(stream: &mut TcpStream) {
    let mut frame = [0; PLAIN.len()];
    let read = within("a frame", stream.read_exact(&mut frame)).await;
    read.expect("a frame");
    assert_eq!(frame, PLAIN);
}

pub(crate) async fn echoes(stream: &mut TcpStream) {
    stream.write_all(MASKED).await.expect("a reader");
    hears(stream).await;
}

async fn ends(stream: &mut TcpStream) {
    let end = within("the end of a tunnel", stream.read(&mut [0])).await;
    // A reset is an end as well.
    assert_eq!(end.unwrap_or(0), 0);
}

async fn works(edge: &Edge) {
    let (head, mut stream) = open(edge, "").await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(header(&head, "sec-websocket-accept"), Some(ACCEPT));
    assert_eq!(header(&head, "x-provider"), Some("1"));
    let why = r#"reflex; fwd=bypass; detail="upgrade""#;
    assert_eq!(header(&head, "cache-status"), Some(why));
    let said = |name| header(&head, name).unwrap_or_default().to_ascii_lowercase();
    assert_eq!(
        (said("upgrade"), said("connection")),
        ("websocket".into(), "upgrade".into())
    );
    hears(&mut stream).await;
    for _ in 0..3 {
        echoes(&mut stream).await;
    }
}

#[tokio::test]
async fn a_websocket_passes_untouched() {
    let (provider, heads) = echo().await;
    let config = "tenant_header = \"x-team\"";
    let edge = Plan::new(&format!("{}/base", provider.url()))
        .config(config)
        .start()
        .await;
    works(&edge).await;
    let (_, mut stream) = open(&edge, "x-team: red\r\nx-other: 1\r\n").await;
    hears(&mut stream).await;
    let head = heads.lock().expect("no panic").pop().expect("a request");
    assert!(
        head.starts_with("GET /base/v1/realtime?model=mock HTTP/1.1\r\n"),
        "{head}"
    );
    for (name, value) in [
        ("upgrade", Some("websocket")),
        ("connection", Some("upgrade")),
        ("sec-websocket-key", Some(KEY)),
        ("sec-websocket-version", Some("13")),
        ("authorization", Some("Bearer test")),
        ("x-other", Some("1")),
        ("x-team", None),
    ] {
        assert_eq!(header(&head, name), value, "{name}: {head}");
    }
    let host = provider.address().to_string();
    assert_eq!(header(&head, "host"), Some(&*host));
}

/// A provider that speaks HTTP/2 still has WebSockets over HTTP/1.1.
#[tokio::test]
async fn a_websocket_passes_with_tls_and_through_a_proxy() {
    let (provider, _) = echo().await;
    let front = tls::in_front_of(provider.address(), &["h2", "http/1.1"]).await;
    let url = format!("https://localhost:{}", front.address().port());
    let edge = Plan::new(&url)
        .environment("SSL_CERT_FILE", CA)
        .start()
        .await;
    works(&edge).await;

    let proxy = Forward::http(provider.address()).await;
    let edge = Plan::new("http://provider.test")
        .environment("HTTP_PROXY", &format!("http://{}", proxy.address()))
        .start()
        .await;
    works(&edge).await;
    // A proxy that forwards requests would not forward this one.
    let asked = proxy.asked();
    assert!(
        asked[0].starts_with("CONNECT provider.test:80 "),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_provider_that_refuses_the_upgrade_is_heard() {
    let provider = Raw::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        let answer = "HTTP/1.1 401 Unauthorized\r\nx-provider: 1\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(answer.as_bytes()).await.expect("a reader");
        let _ = stream.read(&mut [0]).await;
    })
    .await;
    let edge = Plan::new(&provider.url()).start().await;
    let (head, mut stream) = open(&edge, "").await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(header(&head, "x-provider"), Some("1"));
    assert_eq!(header(&head, "content-length"), Some("2"));
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.expect("a body");
    assert_eq!(&body, b"no");
    // The connection still speaks HTTP.
    let again = b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
    stream.write_all(again).await.expect("a reader");
    let head = within("a second answer", read_head(&mut stream)).await;
    assert!(head.expect("a head").starts_with("HTTP/1.1 401 "));
}

#[tokio::test]
async fn a_provider_that_is_down_is_an_error_in_words() {
    let (provider, _) = echo().await;
    let url = provider.url();
    let port = provider.address();
    drop(provider);
    // The port is free when the task is gone.
    while TcpStream::connect(port).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let edge = Plan::new(&url).start().await;
    let (head, _) = open(&edge, "").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
}

/// Java's client offers HTTP/2 with each first request. Such a request can still be a hit.
#[tokio::test]
async fn an_offer_of_http2_is_no_tunnel() {
    let (provider, heads) = echo().await;
    let edge = Plan::new(&provider.url()).start().await;
    let ask = Ask::get("/v1/models")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__");
    assert_eq!(edge.client.fetch(ask).await.status, 200);
    let head = heads.lock().expect("no panic").pop().expect("a request");
    for name in ["connection", "upgrade", "http2-settings"] {
        assert_eq!(header(&head, name), None, "{head}");
    }
}

/// Either side may end it, and the other side sees the end.
#[tokio::test]
async fn the_end_of_one_side_is_the_end_of_both() {
    let (provider, _) = echo().await;
    let edge = Plan::new(&provider.url())
        .config("connections_max = 1")
        .start()
        .await;
    let (_, mut stream) = open(&edge, "").await;
    hears(&mut stream).await;
    // A tunnel counts as a connection: no other one has room.
    let waiting = tokio::spawn({
        let client = Client::new(&edge.url);
        async move { client.fetch(Ask::get("/v1/models")).await }
    });
    for _ in 0..100 {
        echoes(&mut stream).await;
    }
    assert_eq!(provider.connections(), 1);
    drop(stream);
    let answer = within("room for a connection", waiting).await;
    assert_eq!(answer.expect("an answer").status, 200);

    let once = Raw::start(|_, mut stream| async move {
        read_request(&mut stream).await;
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
                       connection: upgrade\r\n\r\n\x81\x05Hello";
        stream.write_all(answer).await.expect("a reader");
    })
    .await;
    let edge = Plan::new(&once.url()).start().await;
    let (_, mut stream) = open(&edge, "").await;
    hears(&mut stream).await;
    ends(&mut stream).await;
}

#[tokio::test]
async fn a_silent_tunnel_ends() {
    let (provider, _) = echo().await;
    let edge = Plan::new(&provider.url())
        .config("idle_seconds_max = 1")
        .start()
        .await;
    let (_, mut stream) = open(&edge, "").await;
    hears(&mut stream).await;
    ends(&mut stream).await;
}

/// After SIGTERM, the daemon lets a tunnel go on as long as a request, and no longer.
#[tokio::test]
async fn a_tunnel_ends_with_the_daemon() {
    let (provider, _) = echo().await;
    let mut edge = Plan::new(&provider.url()).start().await;
    let (_, mut stream) = open(&edge, "").await;
    hears(&mut stream).await;
    edge.terminate();
    echoes(&mut stream).await;
    drop(stream);
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());

    let mut edge = Plan::new(&provider.url())
        .config("drain_seconds_max = 1")
        .start()
        .await;
    let (_, mut stream) = open(&edge, "").await;
    hears(&mut stream).await;
    edge.terminate();
    ends(&mut stream).await;
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
}

/// The frames that a server has sent over HTTP/2: type, stream and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at(length.min(rest.len()));
        frames.push((head[3], head[8], payload.to_vec()));
        bytes = rest;
    }
    frames
}

/// RFC 8441: a client may ask for a WebSocket over HTTP/2 only where the server's settings offer it.
/// Ours do not, so clients choose HTTP/1.1; a client that asks anyway is refused at once.
#[tokio::test]
async fn a_websocket_over_http2_is_not_offered_and_refused_at_once() {
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const ENABLE_CONNECT_PROTOCOL: [u8; 2] = [0, 8];
    let (provider, heads) = echo().await;
    let edge = Plan::new(&provider.url())
        .config("keep_alive_seconds_max = 1")
        .start()
        .await;
    let pseudo = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/v1/realtime"),
        (":authority", "test"),
    ];
    let asks = frame(HEADERS, 0x4, 1, &header_block(&pseudo, &Default::default()));
    let models = http2(&Ask::get("/v1/models").key(Some("k")), 3);
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send([HTTP2_PREFACE, &asks, &models].concat()).await;
    let said = frames(&raw.rest().await);
    let is_offered = said.iter().any(|(kind, _, payload)| {
        let settings = payload.chunks(6).map(|setting| &setting[..2]);
        *kind == SETTINGS && settings.into_iter().any(|id| id == ENABLE_CONNECT_PROTOCOL)
    });
    assert!(!is_offered, "{said:?}");
    let on = |stream: u8| {
        let of = said.iter().filter(move |(_, number, _)| *number == stream);
        of.map(|(kind, ..)| *kind).collect::<Vec<_>>()
    };
    assert_eq!(on(1), [RST_STREAM]);
    assert!(on(3).contains(&HEADERS), "the connection goes on: {said:?}");
    assert_eq!(heads.lock().expect("no panic").len(), 1);

    // Without the protocol it is what forward proxies are asked, and the answer says more.
    let mut raw = RawClient::connect(&edge.url).await;
    raw.send("CONNECT test:443 HTTP/1.1\r\nhost: test:443\r\n\r\n")
        .await;
    let said = raw.rest_text().await;
    assert!(said.starts_with("HTTP/1.1 405"), "{said}");
    assert!(said.contains("WebSockets need HTTP/1.1"), "{said}");
}
