//! Followers of a leader whose provider or client is in trouble.

use super::{count, under_way};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::raw::Raw;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};

/// Past [`reflex_tests::PATIENCE`], so a test that waits for it fails.
const FOREVER_MS: u64 = 600_000;

/// The provider broke off its answers in the middle. The followers asked one after the other, each
/// when the one before had failed.
#[tokio::test]
async fn when_the_provider_breaks_off_all_followers_ask_at_once() {
    for rest in [
        "content-length: 1000\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    ] {
        breaks_off(rest).await;
    }
}

async fn breaks_off(rest: &'static str) {
    const CLIENTS: usize = 8;
    let breaks = Arc::new(Semaphore::new(0));
    let asked = Arc::new(watch::Sender::new(0));
    let provider = {
        let (breaks, asked) = (Arc::clone(&breaks), Arc::clone(&asked));
        Raw::start(move |_, mut stream| {
            let (breaks, asked) = (Arc::clone(&breaks), Arc::clone(&asked));
            async move {
                let mut read = vec![0; 64 << 10];
                let count = stream.read(&mut read).await.unwrap_or(0);
                if count == 0 {
                    return;
                }
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
                let answer = format!("{head}{rest}");
                let _ = stream.write_all(answer.as_bytes()).await;
                asked.send_modify(|count| *count += 1);
                let permit = breaks.acquire().await;
                permit.expect("an open gate").forget();
            }
        })
        .await
    };
    let envoy = EnvoyPlan::new(&provider.url())
        .plugin("fill_wait_ms", FOREVER_MS)
        .start()
        .await;
    // They stay until the end, with any answer.
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(&envoy.url).await;
        client.send(http1(&Ask::chat("cut"))).await;
        clients.push(client);
    }
    under_way(&envoy, CLIENTS).await;
    let all_have_asked = async |count: usize| {
        let mut seen = asked.subscribe();
        let enough = seen.wait_for(|seen| *seen >= count);
        let what = format!("{count} requests at the provider");
        assert!(reflex_tests::within(&what, enough).await.is_ok());
    };
    all_have_asked(1).await;
    assert_eq!(*asked.borrow(), 1, "one asks for all");
    breaks.add_permits(1);
    // None of these is answered before all are there.
    all_have_asked(CLIENTS).await;
    breaks.add_permits(CLIENTS);
    for mut client in clients {
        client.rest().await;
    }
}

/// A client that did not read its answer held all followers for as long as they may wait.
#[tokio::test]
async fn a_leader_that_does_not_read_holds_no_follower() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("fill_wait_ms", FOREVER_MS)
        .plugin("entry_bytes_max", 30 << 20)
        .start()
        .await;
    let ask = Ask::chat("long").mock(&format!("large={}", 25 << 20));
    let mut leader = RawClient::connect(&envoy.url).await;
    leader.send(http1(&ask)).await;
    upstream.called(1).await;
    let follower = Client::new(&envoy.url);
    let answer = follower.fetch(ask).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > 25 << 20);
    assert_eq!(upstream.call_count(), 2);
    assert_eq!(count(&envoy.metrics().await, "reflex_misses"), 2.0);
    drop(leader);
}
