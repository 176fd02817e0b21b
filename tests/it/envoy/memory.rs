//! Answers that clients do not read cost Envoy little memory.

use super::{count, hits};
use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::Ask;
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::metrics::Metrics;
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;

const CLIENTS: usize = 100;
const LONG: usize = 10 << 20;
/// As the filter's.
const UNREAD_BYTES_MAX: usize = 128 << 20;

fn bypassed(metrics: &Metrics) -> f64 {
    metrics.sum("reflex_bypasses_total", &[("reason", "memory")])
}

/// Envoy takes an answer of a module whole, whatever its buffers are: a hundred such clients took more
/// than a gigabyte.
#[tokio::test]
async fn clients_that_do_not_read_their_hits_cost_no_more_than_the_bound() {
    /// For what the allocator keeps, and for a machine so slow that by the filter's clock the first
    /// clients have read when the last ones ask.
    const SLACK: usize = 2 * UNREAD_BYTES_MAX;
    let upstream = Upstream::start_with(Behaviour::Large(LONG)).await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("hot_entry_bytes_max", LONG * 2)
        .start()
        .await;
    let ask = Ask::chat("long");
    assert_eq!(envoy.client.fetch(ask.clone()).await.reflex(), "MISS");
    // Long answers take time to make, and this test is not about that.
    upstream.behave(Behaviour::Answer);
    let before = envoy.memory_bytes();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let mut client = RawClient::connect(&envoy.url).await;
        client.send(http1(&ask)).await;
        clients.push(client);
    }
    envoy
        .until("all have been answered or passed on", |metrics| {
            hits(metrics, "hot") + bypassed(metrics) == CLIENTS as f64
        })
        .await;
    let metrics = envoy.metrics().await;
    assert!(hits(&metrics, "hot") >= 1.0 && bypassed(&metrics) >= 1.0);
    let unread = count(&metrics, "reflex_unread_bytes");
    assert!(unread <= UNREAD_BYTES_MAX as f64, "{unread}");
    let grown = envoy.memory_bytes().saturating_sub(before);
    assert!(grown < (UNREAD_BYTES_MAX + SLACK) as u64, "{grown} more");
    const { assert!(UNREAD_BYTES_MAX + SLACK < CLIENTS * LONG / 2) };
    // Each still gets its answer, from the cache or the provider.
    for mut client in clients {
        client.until("HTTP/1.1 200").await;
    }
}

/// A client that keeps its connection may have hit after hit: it has read the one before.
#[tokio::test]
async fn a_client_that_reads_gets_every_hit() {
    const HITS: usize = 40;
    let upstream = Upstream::start_with(Behaviour::Large(LONG)).await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("hot_entry_bytes_max", LONG * 2)
        .start()
        .await;
    let ask = Ask::chat("long");
    let first = envoy.client.fetch(ask.clone()).await;
    for number in 0..HITS {
        let hit = envoy.client.fetch(ask.clone()).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT", "{number}");
        assert_eq!(hit.body, first.body);
    }
    assert_eq!(upstream.call_count(), 1);
}
