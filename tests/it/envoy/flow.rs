//! The main line through Envoy: a repeat is answered from the hot tier or the daemon, byte for
//! byte, and the provider hears nothing of it.

use super::{check_hit, check_miss, line};
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;

#[tokio::test]
async fn a_repeat_is_answered_without_the_provider() {
    let (upstream, _daemon, envoy) = line().await;
    for ask in [
        Ask::chat("Why is the sky blue?"),
        Ask::stream("Why is the sky blue?"),
    ] {
        let calls = upstream.call_count();
        let first = envoy.client.fetch(ask.clone()).await;
        check_miss(&first);
        for _ in 0..3 {
            check_hit(&envoy.client.fetch(ask.clone()).await, &first);
        }
        assert_eq!(upstream.call_count(), calls + 1);
    }
    let metric = async |name: &str| envoy.metrics().await.sum(name, &[]);
    envoy
        .until("six hits of the hot tier", |metrics| {
            metrics.sum("envoy_wasmcustom_reflex_hits_hot", &[]) == 6.0
        })
        .await;
    assert_eq!(metric("envoy_wasmcustom_reflex_misses").await, 2.0);
    assert_eq!(metric("envoy_wasmcustom_reflex_hits_daemon").await, 0.0);
}
