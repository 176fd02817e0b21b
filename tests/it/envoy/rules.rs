//! The operator's rules in the filter: the same words as in the daemon's file, and the same
//! meaning.

use super::{apart, check_hit, check_miss, patient, stored};
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

/// An Envoy with a rule, with a hot tier or without: then all hits are the daemon's.
async fn line(tier: &str, field: &str, value: Value) -> (Upstream, Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let mut plan = patient(&upstream, &daemon)
        .plugin(field, value)
        .plugin("tenant_header", "x-team");
    if tier == "daemon" {
        plan = plan.plugin("hot_bytes_max", 0);
    }
    let envoy = plan.start().await;
    (upstream, daemon, envoy)
}

const TIERS: [&str; 2] = ["hot", "daemon"];

#[tokio::test]
async fn only_the_members_of_a_group_share() {
    let groups = json!([
        {"name": "research", "trusted": ["red", "blue"]},
        {"name": "sales", "trusted": ["green"]},
    ]);
    for tier in TIERS {
        let (upstream, daemon, envoy) = line(tier, "group", groups.clone()).await;
        let ask = |team: &str| Ask::chat("whose?").header("x-team", team);
        let first = envoy.client.fetch(ask("red")).await;
        check_miss(&first);
        stored(&daemon, 1).await;
        check_hit(&envoy.client.fetch(ask("blue")).await, &first);
        check_miss(&envoy.client.fetch(ask("green")).await);
        check_miss(&envoy.client.fetch(ask("research")).await);
        check_miss(&envoy.client.fetch(Ask::chat("whose?")).await);
        let calls = upstream.calls();
        assert!(calls.iter().all(|call| call.header("x-team").is_empty()));
    }
}

/// A group of one surface is a group of the other: they share the group's answers.
#[tokio::test]
async fn a_group_is_the_same_here_and_in_serve() {
    let upstream = Upstream::start().await;
    let group = r#"
        tenant_header = "x-team"
        [[group]]
        name = "research"
        trusted = ["red", "blue"]
    "#;
    let serve = Plan::new(&upstream.url())
        .edge_socket(true)
        .config(group)
        .start()
        .await;
    let envoy = patient(&upstream, &serve)
        .plugin("tenant_header", "x-team")
        .plugin(
            "group",
            json!([{"name": "research", "trusted": ["red", "blue"]}]),
        )
        .start()
        .await;
    let ask = |team: &str| Ask::chat("ours").header("x-team", team);
    let first = serve.client.fetch(ask("red")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(ask("blue")).await, &first);
    assert_eq!(upstream.call_count(), 1);
}

fn chat(model: &str) -> Ask {
    let messages = json!([{"role": "user", "content": "by the rules"}]);
    let body = json!({"model": model, "messages": messages});
    Ask::to("/v1/chat/completions", &body)
}

fn ttl(answer: &Answer) -> Option<u64> {
    let cache_status = answer.header("cache-status");
    let rest = cache_status.strip_prefix("reflex; hit").expect("a hit");
    let ttl = rest.strip_prefix("; ttl=")?;
    Some(ttl.parse().expect("seconds"))
}

#[tokio::test]
async fn lives_follow_the_rules_by_path_and_model() {
    let rules = json!([
        {"path": "*/embeddings", "seconds": "never"},
        {"model": "live-*", "seconds": 0},
        {"path": "/v1/chat/completions", "model": "slow", "seconds": 9000},
    ]);
    for tier in TIERS {
        let (_upstream, daemon, envoy) = line(tier, "ttl", rules.clone()).await;
        let embed = || {
            let body = json!({"model": "live-e", "input": ["one", "two"]});
            Ask::to("/v1/embeddings", &body)
        };
        check_miss(&envoy.client.fetch(embed()).await);
        stored(&daemon, 1).await;
        assert_eq!(ttl(&envoy.client.fetch(embed()).await), None, "{tier}");
        for (number, model, least, most) in [(2, "slow", 8900, 9000), (3, "other", 3500, 3600)] {
            check_miss(&envoy.client.fetch(chat(model)).await);
            stored(&daemon, number).await;
            let ttl = ttl(&envoy.client.fetch(chat(model)).await).expect("an end");
            assert!((least..=most).contains(&ttl), "{tier}: {model}: {ttl}");
        }
        // Had it been sent to the daemon, another would be stored by the end of this.
        for _ in 0..2 {
            check_miss(&envoy.client.fetch(chat("live-1")).await);
        }
        check_miss(&envoy.client.fetch(chat("last")).await);
        stored(&daemon, 4).await;
        let metrics = daemon.metrics().await;
        let puts = metrics.sum("reflex_edge_requests_total", &[("method", "PUT")]);
        assert_eq!(puts, 4.0);
    }
}

#[tokio::test]
async fn the_operator_may_ignore_what_clients_ask() {
    let upstream = Upstream::start().await;
    let plan = |mode: &str| EnvoyPlan::new(&upstream.url()).plugin("client_control", mode);
    let ask = |control: &str| Ask::chat("again?").header("cache-control", control);
    let deaf = plan("ignore").start().await;
    let first = deaf.client.fetch(ask("no-store")).await;
    check_miss(&first);
    for control in ["no-store", "no-cache", "max-age=0"] {
        check_hit(&deaf.client.fetch(ask(control)).await, &first);
    }
    let firm = plan("no-refresh").start().await;
    let first = firm.client.fetch(ask("no-cache")).await;
    check_miss(&first);
    check_hit(&firm.client.fetch(ask("max-age=0")).await, &first);
    assert_eq!(firm.client.fetch(ask("no-store")).await.reflex(), "BYPASS");
    let unknown = Ask::chat("unknown").header("cache-control", "only-if-cached");
    assert_eq!(firm.client.fetch(unknown).await.status, 504);
    let kept = Ask::chat("how long?").header("x-reflex-ttl", "100");
    check_miss(&firm.client.fetch(kept.clone()).await);
    let hit = firm.client.fetch(kept).await;
    assert!(ttl(&hit).is_some_and(|ttl| ttl <= 100));
    for call in upstream.calls() {
        assert_eq!(call.header("x-reflex-ttl"), "", "it went to the provider");
    }
}

/// UKGovernmentBEIS/inspect_ai#2580: 30 samples were wanted, and one answer came 30 times. Here
/// each worker would have begun at the first.
#[tokio::test]
async fn samples_are_served_in_turn_by_all_workers_together() {
    const SAMPLES: u32 = 6;
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = patient(&upstream, &daemon)
        .workers(2)
        .plugin("samples", SAMPLES)
        .start()
        .await;
    let mut rounds = Vec::new();
    for round in 0..3 {
        let mut bodies = Vec::new();
        for number in 1..=SAMPLES {
            let answer = apart(&envoy, Ask::chat("something else")).await;
            match round {
                0 => {
                    check_miss(&answer);
                    stored(&daemon, number).await;
                }
                _ => assert_eq!(answer.reflex(), "HIT_L1_EXACT"),
            }
            assert!(!bodies.contains(&answer.body), "{round}: {number}");
            bodies.push(answer.body);
        }
        rounds.push(bodies);
    }
    assert!(rounds.iter().all(|round| *round == rounds[0]));
    assert_eq!(upstream.call_count(), SAMPLES as usize);
}
