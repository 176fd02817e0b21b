//! Bodies around the bounds, and answers that clients do not read.

use super::{check_bypass, check_hit, check_miss, figure, hits, line};
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;

/// As in `request_bytes_max`.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A chat completion whose body has so many bytes.
fn long(bytes: usize) -> Ask {
    let around = Ask::chat("").sent().len();
    Ask::chat(&"p".repeat(bytes - around))
}

#[tokio::test]
async fn the_client_sees_the_first_chunk_before_the_last_was_sent() {
    let (upstream, envoy) = line().await;
    let mut stream = envoy.client.send(Ask::stream("slowly").mock("gated")).await;
    upstream.release(1);
    let start = stream.until("assistant").await;
    upstream.release_all();
    let rest = stream.whole().await;
    let rest = String::from_utf8_lossy(&rest.body).into_owned();
    assert!(!start.contains("[DONE]"));
    assert!(rest.ends_with("data: [DONE]\n\n"));
}

/// Envoy answers a body that it cannot hold with 413; the module stops holding before.
#[tokio::test]
async fn requests_around_the_bound_are_looked_at_or_pass_untouched() {
    let (upstream, envoy) = line().await;
    let http2 = Client::http2(&envoy.url);
    for bytes in [
        100_000,
        REQUEST_BYTES_MAX - 1,
        REQUEST_BYTES_MAX,
        REQUEST_BYTES_MAX + 1,
        REQUEST_BYTES_MAX + 200_000,
        3 * REQUEST_BYTES_MAX,
    ] {
        let ask = long(bytes);
        assert_eq!(ask.sent().len(), bytes);
        let asks = [ask.clone(), ask.clone().chunked(10_000), ask.clone()];
        for (number, (ask, client)) in asks
            .into_iter()
            .zip([&envoy.client, &envoy.client, &http2])
            .enumerate()
        {
            let calls = upstream.call_count();
            let sent = ask.sent().clone();
            let answer = client.fetch(ask).await;
            match bytes > REQUEST_BYTES_MAX {
                true => check_bypass(&answer, "body-too-large"),
                false if number == 0 => check_miss(&answer),
                false => {
                    assert_eq!(answer.reflex(), "HIT_L1_EXACT", "{bytes} {number}");
                    assert_eq!(upstream.call_count(), calls);
                    continue;
                }
            }
            let call = upstream.calls().pop().expect("a call");
            assert_eq!(call.body, sent, "{bytes} {number}");
        }
    }
}

#[tokio::test]
async fn answers_around_the_bound_are_kept_whole_or_not_at_all() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .plugin("entry_bytes_max", 4 << 20)
        .start()
        .await;
    // Long ones are judged on a thread of their own.
    for large in [100_000, 1 << 20, 3 << 20] {
        let ask = || Ask::chat("long").mock(&format!("large={large}"));
        let before = figure(&envoy.metrics().await, "reflex_inserts", &[]);
        let first = envoy.client.fetch(ask()).await;
        check_miss(&first);
        envoy
            .until("it is stored", |metrics| {
                figure(metrics, "reflex_inserts", &[]) > before
            })
            .await;
        check_hit(&envoy.client.fetch(ask()).await, &first);
        let http2 = Client::http2(&envoy.url);
        check_hit(&http2.fetch(ask()).await, &first);
    }
    let ask = || Ask::chat("too long").mock(&format!("large={}", 5 << 20));
    for _ in 0..2 {
        let answer = envoy.client.fetch(ask()).await;
        check_miss(&answer);
        assert!(answer.body.len() > 5 << 20);
    }
    envoy
        .until("the long answers are rejected", |metrics| {
            figure(metrics, "reflex_not_kept_total", &[("reason", "too-large")]) == 2.0
        })
        .await;
}

/// Envoy takes an answer of a module whole, whatever its buffers are.
#[tokio::test]
async fn clients_that_do_not_read_their_hits_cost_no_more_than_the_bound() {
    const CLIENTS: usize = 60;
    const LONG: usize = 10 << 20;
    let upstream = Upstream::start_with(Behaviour::Large(LONG)).await;
    let envoy = EnvoyPlan::native(&upstream.url()).start().await;
    let ask = Ask::chat("long");
    check_miss(&envoy.client.fetch(ask.clone()).await);
    super::stored(&envoy, 1).await;
    // Long answers take time to make, and this test is not about that.
    upstream.behave(Behaviour::Answer);
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(&envoy.url).await;
        client.send(http1(&ask)).await;
        clients.push(client);
    }
    let bypassed = |metrics: &_| figure(metrics, "reflex_bypasses_total", &[("reason", "memory")]);
    envoy
        .until("all have been answered or passed on", |metrics| {
            hits(metrics) + bypassed(metrics) == CLIENTS as f64
        })
        .await;
    let metrics = envoy.metrics().await;
    assert!(hits(&metrics) >= 1.0 && bypassed(&metrics) >= 1.0);
    // Each still gets its answer, from the cache or the provider.
    for mut client in clients {
        client.until("HTTP/1.1 200").await;
    }
}
