//! Requests that proxies and servers may cut in different places: real nginx, HAProxy and Envoy in front of
//! the daemon, on connections that all clients share.
//!
//! Each front marks what it passes on as one request. A request that reaches the provider without the mark
//! was hidden in another one's body. And a hidden one that the cache answers would put all later answers
//! of that connection out of step: so each attack is followed by honest clients, who know their answers.

mod attacks;
mod front;

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::Edge;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;

use attacks::attacks;
use front::{Front, MARK};

/// Prompts of honest clients, which the cache knows.
const HONEST: usize = 6;

fn honest(number: usize) -> Ask {
    Ask::chat(&format!("honest {number}")).key(Some(&format!("client-{number}")))
}

/// What the attacker hides: an answer of the attacker's own, which the cache knows.
fn hidden() -> Ask {
    Ask::chat("poison").key(Some("attacker"))
}

/// Runs all attacks through a front, and honest clients after each.
async fn attack(start: impl AsyncFnOnce(&Edge) -> Option<Front>) {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let Some(front) = start(&edge).await else {
        return;
    };
    // Not through the front, whose mark is in the key.
    assert_eq!(edge.client.fetch(hidden()).await.reflex(), "MISS");
    for number in 0..HONEST {
        let first = front.fetch(honest(number)).await;
        assert_eq!((first.status.as_u16(), first.reflex()), (200, "MISS"));
    }
    edge.recorded(1 + HONEST as u32, 0).await;

    for attack in attacks(&http1(&hidden())) {
        let name = &attack.name;
        let mut client = front.raw().await;
        // The front may refuse it before it is whole.
        let _ = client.try_send(&attack.bytes).await;
        let _ = client.try_end().await;
        let said = client.rest_text().await;
        assert!(!said.contains("honest"), "{name}: {said}");
        for number in 0..HONEST {
            let answer = front.fetch(honest(number)).await;
            let body = String::from_utf8_lossy(&answer.body);
            assert_eq!(
                (answer.status.as_u16(), answer.reflex()),
                (200, "HIT_L1_EXACT"),
                "{name}"
            );
            assert!(body.contains(&format!("honest {number}")), "{name}: {body}");
        }
        let calls = upstream.calls();
        let unmarked = calls.iter().skip(1).find(|call| call.header(MARK) != "1");
        assert!(unmarked.is_none(), "{name}: {unmarked:?}");
    }
    // They were not all turned away: the daemon has seen some.
    assert!(upstream.call_count() > 1 + HONEST, "no attack got through");
}

#[tokio::test]
async fn nothing_is_smuggled_past_nginx() {
    attack(Front::nginx).await;
}

#[tokio::test]
async fn nothing_is_smuggled_past_haproxy() {
    attack(Front::haproxy).await;
}

#[tokio::test]
async fn nothing_is_smuggled_past_envoy() {
    attack(Front::envoy).await;
}

/// Without a front, the daemon's own framing is what counts. Whatever it makes of an attack, the connection
/// belongs to the attacker, and nobody else's answer is on it.
#[tokio::test]
async fn what_is_ambiguous_gets_nothing_of_others_from_the_daemon_itself() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let client = Client::new(&edge.url);
    for number in 0..HONEST {
        client.fetch(honest(number)).await;
    }
    for attack in attacks(&http1(&hidden())) {
        let mut raw = RawClient::connect(&edge.url).await;
        let _ = raw.try_send(&attack.bytes).await;
        let _ = raw.try_end().await;
        let said = raw.rest_text().await;
        assert!(!said.contains("honest"), "{}: {said}", attack.name);
        let refused = said.starts_with("HTTP/1.1 400 ") || said.starts_with("HTTP/1.0 400 ");
        assert!(
            refused || !attack.must_be_refused,
            "{}: {said}",
            attack.name
        );
        let answer = client.fetch(honest(0)).await;
        assert_eq!(answer.reflex(), "HIT_L1_EXACT", "{}", attack.name);
    }
}
