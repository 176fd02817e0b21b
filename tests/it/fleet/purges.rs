//! Purges through one edge hold on all: those that listen, those that were away, and those that come later.

use super::{Fleet, HIT, entry_path, shared};
use reflex_tests::client::Ask;
use serde_json::{Value, json};

/// Purges through the first edge and waits for the others; all of which have followed.
async fn purge_and_wait(fleet: &Fleet, what: Value) {
    let mut what = what;
    what["wait"] = json!(true);
    let said = fleet.purge(0, &what).await;
    assert_eq!(said["fleet"], json!({"behind": []}), "{said}");
}

/// The 64 digits of the tenant of `Ask::chat`, and `TENANT/DIGEST` of what is asked.
fn names(fleet: &Fleet, ask: &Ask) -> (String, String) {
    let path = entry_path(&fleet.upstream.url(), ask);
    let key = path.trim_start_matches("/v1/entries/").to_owned();
    let tenant = key.split('/').next().expect("a tenant").to_owned();
    (tenant, key)
}

#[tokio::test]
async fn a_purge_of_a_key_a_tenant_and_everything_reaches_all_edges() {
    let Some(fleet) = Fleet::of(5).await else {
        return;
    };
    let (tenant, key) = names(&fleet, &Ask::chat("purged"));
    for what in [
        json!({ "key": key }),
        json!({ "tenant": tenant }),
        json!({"all": true}),
    ] {
        let before = fleet.upstream.call_count();
        fleet.share(0, "purged").await;
        for edge in 1..5 {
            assert_eq!(fleet.ask(edge, "purged").await.reflex(), HIT, "{what}");
        }
        assert_eq!(fleet.upstream.call_count(), before + 1, "{what}");
        purge_and_wait(&fleet, what.clone()).await;
        // Each edge would have its own copy, and the engine one for all.
        for edge in 1..5 {
            assert_eq!(fleet.look(edge, "purged").await, 504, "{what} at {edge}");
        }
        // A removed key is not shared anew for a minute.
        fleet.purge(0, &json!({"all": true, "wait": true})).await;
    }
}

#[tokio::test]
async fn a_removed_answer_is_not_shared_anew_at_once() {
    let Some(fleet) = Fleet::of(3).await else {
        return;
    };
    fleet.share(0, "removed").await;
    let (_, key) = names(&fleet, &Ask::chat("removed"));
    purge_and_wait(&fleet, json!({ "key": key })).await;
    // As an edge that had asked the provider before it heard of the removal would.
    let refresh = Ask::chat("removed").header("cache-control", "no-cache");
    assert_eq!(fleet.edges[1].client.fetch(refresh).await.status, 200);
    fleet.edges[1]
        .until("an answer that is kept to itself", |metrics| {
            shared(metrics, "there") > 0.5
        })
        .await;
    assert_eq!(fleet.look(2, "removed").await, 504);
}

#[tokio::test]
async fn a_purge_of_a_tenant_leaves_the_others() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    fleet.share(0, "mine").await;
    let other = || Ask::chat("theirs").key(Some("another"));
    assert_eq!(fleet.edges[1].client.fetch(other()).await.reflex(), "MISS");
    let (tenant, _) = names(&fleet, &Ask::chat("mine"));
    purge_and_wait(&fleet, json!({ "tenant": tenant })).await;
    assert_eq!(fleet.edges[1].client.fetch(other()).await.reflex(), HIT);
    assert_eq!(fleet.ask(1, "mine").await.reflex(), "MISS");
}

#[tokio::test]
async fn an_edge_that_was_away_never_serves_what_was_purged() {
    let Some(mut fleet) = Fleet::of(2).await else {
        return;
    };
    let (tenant, key) = names(&fleet, &Ask::chat("by key"));
    for (what, prompt) in [
        (json!({ "key": key }), "by key"),
        (json!({ "tenant": tenant }), "by tenant"),
        (json!({"all": true}), "everything"),
    ] {
        fleet.share(0, prompt).await;
        assert_eq!(fleet.ask(1, prompt).await.reflex(), HIT);
        let mut away = fleet.edges.remove(1);
        away.written().await;
        away.terminate();
        assert_eq!(away.ended().await, Some(0), "{}", away.log());
        fleet.purge(0, &what).await;
        fleet.edges.push(away.start_again().await);
        let calls = fleet.upstream.call_count();
        let answer = fleet.ask(1, prompt).await;
        assert_eq!(answer.reflex(), "MISS", "{what}: {}", fleet.edges[1].log());
        assert_eq!(fleet.upstream.call_count(), calls + 1);
    }
}

#[tokio::test]
async fn a_purge_names_the_edges_that_have_not_followed() {
    let Some(fleet) = Fleet::of(2).await else {
        return;
    };
    fleet.engine().freeze();
    let what = json!({"all": true, "wait": true});
    let said = fleet.purge(0, &what).await;
    let behind = said["fleet"]["behind"].as_array().expect("a list");
    assert!(!behind.is_empty(), "{said}");
    fleet.engine().thaw();
    purge_and_wait(&fleet, json!({"all": true})).await;
}

#[tokio::test]
async fn a_restored_engine_brings_nothing_back() {
    let Some(mut fleet) = Fleet::of(2).await else {
        return;
    };
    for prompt in ["purged", "removed"] {
        fleet.share(0, prompt).await;
    }
    let snapshot = fleet.engine().snapshot();
    let (tenant, _) = names(&fleet, &Ask::chat("purged"));
    let (_, key) = names(&fleet, &Ask::chat("removed"));
    purge_and_wait(&fleet, json!({ "key": key })).await;
    purge_and_wait(&fleet, json!({ "tenant": tenant })).await;
    fleet.engine_mut().kill();
    fleet.engine().restore(&snapshot);
    fleet.engine_mut().start_again().await;
    // The others tell the engine again what it has forgotten.
    purge_and_wait(&fleet, json!({"key": "00".repeat(32)})).await;
    let fresh = fleet.plan("").start().await;
    fleet.edges.push(fresh);
    fleet.all_know(3).await;
    for prompt in ["purged", "removed"] {
        for edge in [1, 2] {
            assert_eq!(fleet.look(edge, prompt).await, 504, "{prompt} at {edge}");
        }
    }
}
