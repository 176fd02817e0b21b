//! Connections to the provider: when they are made, kept, given up and tried again, and the
//! error that a client gets without one.

mod connect;
mod paths;
mod proxies;
mod responses;

use reflex_tests::client::{Ask, CHAT};
use reflex_tests::edge::Plan;
use reflex_tests::raw::{Raw, ok, read_request};
use reflex_tests::within;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// What arrived, by the number of the connection.
type Arrived = Arc<Mutex<Vec<(usize, Vec<u8>)>>>;

/// How a connection ends that should have carried another response.
#[derive(Clone, Copy, Debug)]
enum End {
    Closed,
    Reset,
    /// After the first bytes of a response.
    Begun,
}

impl End {
    async fn of(self, mut stream: TcpStream) {
        match self {
            Self::Closed => {}
            Self::Reset => stream.set_zero_linger().expect("a TCP socket"),
            Self::Begun => stream.write_all(b"HTTP/1.1 200").await.expect("a reader"),
        }
    }
}

/// A provider whose first connection answers so many requests and ends during the next one;
/// all others answer every request.
async fn ends_after(answers: usize, end: End) -> (Raw, Arrived) {
    let arrived = Arrived::default();
    let notes = Arc::clone(&arrived);
    let raw = Raw::start(move |number, mut stream| {
        let notes = Arc::clone(&notes);
        async move {
            let mut answered = 0;
            while let Some((_, body)) = read_request(&mut stream).await {
                notes.lock().expect("no panic").push((number, body));
                if number == 1 && answered == answers {
                    return end.of(stream).await;
                }
                answered += 1;
                if stream.write_all(ok("fine").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (raw, arrived)
}

fn numbers(arrived: &Arrived) -> Vec<usize> {
    let arrived = arrived.lock().expect("no panic");
    arrived.iter().map(|(number, _)| *number).collect()
}

/// A request that meets the end of an idle connection on its way, as happens after every quiet
/// minute with a server that keeps connections for five seconds.
#[tokio::test]
async fn a_request_that_meets_the_end_of_its_connection_is_sent_again() {
    for end in [End::Closed, End::Reset] {
        let (provider, arrived) = ends_after(1, end).await;
        let edge = Plan::new(&provider.url()).start().await;
        edge.client.fetch(Ask::chat("first")).await;
        let large = format!(
            r#"{{"model":"mock","messages":[],"x":"{}"}}"#,
            "x".repeat(900_000)
        );
        let answer = edge.client.fetch(Ask::body(large.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), &*answer.body),
            (200, &b"fine"[..]),
            "{end:?}"
        );
        assert_eq!(numbers(&arrived), [1, 1, 2], "{end:?}");
        let last = arrived.lock().expect("no panic").pop().expect("a request");
        assert!(last.1 == large.as_bytes(), "{end:?}: another body arrived");
        let failed = edge
            .metrics()
            .await
            .sum("reflex_upstream_failures_total", &[]);
        assert!(failed < 0.5, "{end:?}");
    }
}

#[tokio::test]
async fn a_request_without_a_body_is_sent_again_too() {
    let (provider, arrived) = ends_after(1, End::Closed).await;
    let edge = Plan::new(&provider.url()).start().await;
    for _ in 0..2 {
        assert_eq!(edge.client.fetch(Ask::get("/v1/models")).await.status, 200);
    }
    assert_eq!(numbers(&arrived), [1, 1, 2]);
}

/// A request that cannot be sent again does not go out on a connection that may be ending.
#[tokio::test]
async fn an_upload_that_is_too_long_to_keep_gets_a_connection_of_its_own() {
    let (provider, arrived) = ends_after(1, End::Closed).await;
    let edge = Plan::new(&provider.url()).start().await;
    edge.client.fetch(Ask::get("/v1/models")).await;
    let upload = Ask::body(vec![b'x'; 3 << 20]);
    assert_eq!(edge.client.fetch(upload).await.status, 200);
    assert_eq!(numbers(&arrived), [1, 2]);
}

/// A request that may have been worked on is not sent again: on a new connection, and after
/// the first byte of a response.
#[tokio::test]
async fn what_the_provider_may_have_worked_on_is_not_sent_again() {
    let check = async |answers: usize, end: End, bytes: usize| {
        let (provider, arrived) = ends_after(answers, end).await;
        let edge = Plan::new(&provider.url()).start().await;
        for _ in 0..answers {
            edge.client.fetch(Ask::get("/v1/models")).await;
        }
        let body = vec![b'x'; bytes];
        let answer = edge.client.fetch(Ask::body(body)).await;
        let message = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 502, "{end:?} {bytes}: {message}");
        assert_eq!(numbers(&arrived), vec![1; answers + 1], "{end:?} {bytes}");
    };
    check(0, End::Closed, 10).await;
    check(0, End::Reset, 10).await;
    check(1, End::Begun, 10).await;
    check(0, End::Closed, 3 << 20).await;
}

/// The daemon closes its end before the provider does: by `Keep-Alive`, or after a few seconds.
#[tokio::test]
async fn a_quiet_connection_is_closed_before_the_provider_does() {
    for keep_alive in ["", "keep-alive: timeout=3\r\n", "keep-alive: timeout=1\r\n"] {
        let (closed, mut seen) = watch::channel(false);
        let closed = Arc::new(closed);
        let provider = Raw::start(move |_, mut stream| {
            let closed = Arc::clone(&closed);
            async move {
                read_request(&mut stream).await;
                let answer = format!("HTTP/1.1 200 OK\r\n{keep_alive}content-length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).await.expect("a reader");
                let end = stream.read(&mut [0]).await;
                closed.send_replace(end.is_ok_and(|read| read == 0));
            }
        })
        .await;
        let edge = Plan::new(&provider.url()).start().await;
        edge.client.fetch(Ask::get("/v1/models")).await;
        let end = seen.wait_for(|closed| *closed);
        within("the end of a quiet connection", end)
            .await
            .expect("seen");
    }
}

/// Connections that are in use again and again stay. A request that comes just before its
/// predecessor's connection is free may begin to open another.
#[tokio::test]
async fn requests_one_after_the_other_share_a_connection() {
    let (provider, _) = ends_after(usize::MAX, End::Closed).await;
    let edge = Plan::new(&provider.url()).start().await;
    for number in 0..20 {
        let answer = edge.client.fetch(Ask::chat(&number.to_string())).await;
        assert_eq!(answer.status, 200);
    }
    assert!(provider.connections() < 10, "{}", provider.connections());
}

/// When a client leaves, its request is cancelled at the provider.
#[tokio::test]
async fn a_client_that_leaves_lets_the_provider_go() {
    let (gone, mut seen) = watch::channel(false);
    let gone = Arc::new(gone);
    let provider = Raw::start(move |_, mut stream| {
        let gone = Arc::clone(&gone);
        async move {
            read_request(&mut stream).await;
            let _ = stream.read(&mut [0]).await;
            gone.send_replace(true);
        }
    })
    .await;
    let edge = Plan::new(&provider.url()).start().await;
    let asking = tokio::spawn({
        let client = edge.client.clone();
        async move { client.try_send(Ask::get(CHAT)).await.map(drop) }
    });
    provider.connected(1).await;
    asking.abort();
    let end = seen.wait_for(|gone| *gone);
    within("the end of a request without a client", end)
        .await
        .expect("seen");
}
