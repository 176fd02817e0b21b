//! The data folder: kept through restarts, shared by configurations, and done without while another
//! process has it.

use super::{apart, check_hit, check_miss, ended, hits, is_in_memory, stored};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;
use serde_json::json;
use tempfile::TempDir;

fn in_folder(upstream: &Upstream, folder: &TempDir) -> EnvoyPlan {
    super::in_folder(upstream, &folder.path().join("data"))
}

#[tokio::test]
async fn answers_are_there_again_after_a_restart() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let envoy = in_folder(&upstream, &folder).start().await;
    let first = envoy.client.fetch(Ask::stream("kept")).await;
    check_miss(&first);
    stored(&envoy, 1).await;
    ended(envoy).await;
    let envoy = in_folder(&upstream, &folder).workers(2).start().await;
    // A slow machine may still be reading the folder.
    envoy
        .until("the folder is in use", |metrics| !is_in_memory(metrics))
        .await;
    for _ in 0..3 {
        check_hit(&apart(&envoy, Ask::stream("kept")).await, &first);
    }
    assert_eq!(upstream.call_count(), 1);
    envoy
        .until("three hits", |metrics| hits(metrics) == 3.0)
        .await;
    assert!(!is_in_memory(&envoy.metrics().await));
}

#[tokio::test]
async fn a_folder_in_use_is_done_without_and_taken_as_soon_as_it_is_free() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let first = in_folder(&upstream, &folder).start().await;
    check_miss(&first.client.fetch(Ask::chat("of the first")).await);
    let second = in_folder(&upstream, &folder).start().await;
    second.until("it is in memory", is_in_memory).await;
    let ask = || Ask::chat("of the second");
    let answer = second.client.fetch(ask()).await;
    check_miss(&answer);
    check_hit(&second.client.fetch(ask()).await, &answer);
    ended(first).await;
    second
        .until("it has the folder", |metrics| !is_in_memory(metrics))
        .await;
    check_hit(&second.client.fetch(ask()).await, &answer);
    let of_first = second.client.fetch(Ask::chat("of the first")).await;
    assert_eq!(of_first.reflex(), "HIT_L1_EXACT");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn two_listeners_with_one_folder_have_one_cache() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let envoy = in_folder(&upstream, &folder)
        .edit(|config| {
            let listeners = config["static_resources"]["listeners"].as_array_mut();
            let listeners = listeners.expect("listeners");
            let mut second = listeners[0].clone();
            second["name"] = "second".into();
            listeners.push(second);
        })
        .start()
        .await;
    let urls = envoy.listeners().await;
    assert_eq!(urls.len(), 2);
    let [one, other] = [Client::new(&urls[0]), Client::new(&urls[1])];
    let first = one.fetch(Ask::chat("both")).await;
    check_miss(&first);
    // Two routes lead to one upstream, so an answer has to prove this one before it has hits.
    let proof = other.fetch(Ask::chat("a proof")).await;
    check_miss(&proof);
    check_hit(&other.fetch(Ask::chat("both")).await, &first);
    check_hit(&one.fetch(Ask::chat("a proof")).await, &proof);
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn updates_of_the_configuration_keep_the_answers() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let plan = in_folder(&upstream, &folder).updatable(1);
    let mut envoy = plan.start().await;
    let first = apart(&envoy, Ask::chat("before")).await;
    check_miss(&first);
    for round in 0..4 {
        envoy.update(&json!({ "ttl_seconds": 3000 + round })).await;
        // A route of another configuration has to be proven anew.
        check_miss(&apart(&envoy, Ask::chat(&format!("round {round}"))).await);
        check_hit(&apart(&envoy, Ask::chat("before")).await, &first);
    }
    assert_eq!(upstream.call_count(), 5);
    assert!(!is_in_memory(&envoy.metrics().await));
}
