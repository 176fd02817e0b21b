//! `drain_seconds_max`, and signals.

use super::*;
use rustix::process::Signal;

/// Half a request on the operators' address kept the daemon from ending.
#[tokio::test]
async fn sigterm_ends_a_daemon_whatever_is_half_sent() {
    let upstream = Upstream::start().await;
    let whole = b"PUT /v1/entries HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345";
    let head = whole.len() - 7;
    for cut in [0, 1, head, whole.len()] {
        let mut edge = edge(&upstream, "drain_seconds_max = 1").await;
        let mut open = each(&edge).await;
        for (_, raw) in &mut open {
            raw.send(&whole[..cut]).await;
        }
        let mut two = each(&edge).await;
        for (_, raw) in &mut two {
            raw.send(HTTP2_PREFACE).await;
        }
        // It has seen all of that.
        for (_, raw) in &mut each(&edge).await {
            raw.send("GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n").await;
            raw.answer().await;
        }
        edge.terminate();
        assert_eq!(edge.ended().await, Some(0), "{cut}: {}", edge.log());
    }
}

#[tokio::test]
async fn what_takes_longer_than_the_drain_is_cut() {
    let upstream = Upstream::start().await;
    let mut edge = edge(&upstream, "drain_seconds_max = 1").await;
    let mut stream = edge
        .client
        .send(Ask::stream("too long").mock("gated"))
        .await;
    upstream.release(1);
    stream.until("assistant").await;
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
    while let Ok(part) = stream.chunk().await {
        assert!(part.is_some(), "it looks whole");
    }
    assert!(edge.log().contains("were cut"), "{}", edge.log());
    upstream.abandoned(1).await;
}

/// SIGHUP ended the daemon.
#[tokio::test]
async fn signals_that_ask_for_a_reload_change_nothing() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream, "").await;
    let known = edge.client.fetch(Ask::chat("known")).await;
    edge.recorded(1, 0).await;
    for (name, signal) in [
        ("SIGHUP", Signal::HUP),
        ("SIGUSR1", Signal::USR1),
        ("SIGUSR2", Signal::USR2),
    ] {
        edge.signal(signal);
        let said = async {
            while !edge.log().contains(name) {
                edge.health().await;
            }
        };
        reflex_tests::within("a line in the log", said).await;
        let hit = edge.client.fetch(Ask::chat("known")).await;
        assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &known.body));
    }
}
