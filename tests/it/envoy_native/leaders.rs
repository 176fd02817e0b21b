//! A leader, its client or its provider in trouble; clients that leave in any stage.

use super::{check_hit, figure, under_way};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::raw::Raw;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{Semaphore, watch};

/// Past [`reflex_tests::PATIENCE`], so a test that waits for it fails.
const FOREVER_MS: u64 = 600_000;

async fn patient(upstream: &Upstream) -> Envoy {
    EnvoyPlan::native(&upstream.url())
        .workers(2)
        .plugin("fill_wait_ms", FOREVER_MS)
        .plugin("entry_bytes_max", 30 << 20)
        .start()
        .await
}

/// The next follower leads, over all workers, and the answer is kept.
#[tokio::test]
async fn when_the_leader_leaves_a_follower_leads() {
    const FOLLOWERS: usize = 6;
    let upstream = Upstream::start().await;
    let envoy = patient(&upstream).await;
    let ask = Ask::stream("half").mock("gated");
    let mut leader = RawClient::connect(&envoy.url).await;
    leader.send(http1(&ask)).await;
    upstream.called(1).await;
    let mut followers = tokio::task::JoinSet::new();
    for _ in 0..FOLLOWERS {
        let (client, ask) = (Client::new(&envoy.url), ask.clone());
        followers.spawn(async move { client.fetch(ask).await });
    }
    under_way(&envoy, FOLLOWERS + 1).await;
    drop(leader);
    upstream.abandoned(1).await;
    upstream.called(2).await;
    upstream.release_all();
    let first = followers.join_next().await.expect("one").expect("no panic");
    assert_eq!(first.status, 200);
    while let Some(answer) = followers.join_next().await {
        assert_eq!(answer.expect("no panic").body, first.body);
    }
    assert_eq!(upstream.call_count(), 2);
    check_hit(&envoy.client.fetch(ask).await, &first);
}

/// A client that did not read its answer held all followers for as long as they may wait.
#[tokio::test]
async fn a_leader_that_does_not_read_holds_no_follower() {
    let upstream = Upstream::start().await;
    let envoy = patient(&upstream).await;
    let ask = Ask::chat("long").mock(&format!("large={}", 25 << 20));
    let mut leader = RawClient::connect(&envoy.url).await;
    leader.send(http1(&ask)).await;
    upstream.called(1).await;
    let follower = Client::new(&envoy.url);
    let answer = follower.fetch(ask).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.len() > 25 << 20);
    assert_eq!(upstream.call_count(), 2);
    drop(leader);
}

/// The provider breaks off its answers in the middle: the followers ask for themselves, at once and
/// not one after the other.
#[tokio::test]
async fn when_the_provider_breaks_off_all_followers_ask_at_once() {
    const CLIENTS: usize = 8;
    let breaks = Arc::new(Semaphore::new(0));
    let asked = Arc::new(watch::Sender::new(0));
    let provider = {
        let (breaks, asked) = (Arc::clone(&breaks), Arc::clone(&asked));
        Raw::start(move |_, mut stream| {
            let (breaks, asked) = (Arc::clone(&breaks), Arc::clone(&asked));
            async move {
                let mut read = vec![0; 64 << 10];
                if stream.read(&mut read).await.unwrap_or(0) == 0 {
                    return;
                }
                let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                              content-length: 1000\r\n\r\n{";
                let _ = stream.write_all(answer.as_bytes()).await;
                asked.send_modify(|count| *count += 1);
                let permit = breaks.acquire().await;
                permit.expect("an open gate").forget();
            }
        })
        .await
    };
    let envoy = EnvoyPlan::native(&provider.url())
        .plugin("fill_wait_ms", FOREVER_MS)
        .start()
        .await;
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

#[tokio::test]
async fn an_aborted_client_leaves_nothing() {
    let upstream = Upstream::start().await;
    let envoy = patient(&upstream).await;
    let ask = || Ask::stream("half").mock("gated");
    let mut left = envoy.client.send(ask()).await;
    upstream.release(2);
    left.until("assistant").await;
    drop(left);
    upstream.abandoned(1).await;
    envoy
        .until("the cut answer is rejected", |metrics| {
            figure(metrics, "reflex_not_kept_total", &[("reason", "cut")]) == 1.0
        })
        .await;
    upstream.release_all();
    let again = envoy.client.fetch(ask()).await;
    assert_eq!(again.reflex(), "MISS");
    assert!(again.body.ends_with(b"data: [DONE]\n\n"));
}

/// Clients that leave before the body is there, while they follow, and while the answer comes.
#[tokio::test]
async fn clients_may_leave_at_any_time() {
    const ROUNDS: usize = 20;
    let upstream = Upstream::start().await;
    let envoy = patient(&upstream).await;
    let ask = Ask::stream("leaving").mock("gated");
    let whole = http1(&ask);
    let head = whole.len() - ask.sent().len();
    for _ in 0..ROUNDS {
        let calls = upstream.call_count();
        let mut clients = Vec::new();
        for cut in [head / 2, head, whole.len() - 1, whole.len(), whole.len()] {
            let mut client = RawClient::connect(&envoy.url).await;
            client.send(&whole[..cut]).await;
            clients.push(client);
        }
        upstream.called(calls + 1).await;
        // Half a head is no request yet.
        under_way(&envoy, clients.len() - 1).await;
        drop(clients);
        under_none(&envoy).await;
    }
    upstream.release_all();
    assert_eq!(envoy.client.fetch(ask).await.status, 200);
    under_none(&envoy).await;
}

/// Nothing of those that left is left.
async fn under_none(envoy: &Envoy) {
    envoy
        .until("no request in Envoy", |metrics| {
            let labels = [("envoy_http_conn_manager_prefix", "llm")];
            metrics.sum("envoy_http_downstream_rq_active", &labels) == 0.0
        })
        .await;
}
