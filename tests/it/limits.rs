//! Limits of each tenant: what becomes of a miss over one, of a hit, and of another tenant.

use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;

use crate::coalescing::{ask, waiting};

const APPLIED: &str = "applied";

/// Less than one request in the time of a test.
const RATE: &str = "[[limit]]\nrequests_per_second = 0.0001\nburst = 2";

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    Plan::new(&upstream.url()).config(config).start().await
}

fn of(tenant: &str, prompt: &str) -> Ask {
    Ask::chat(prompt).key(Some(tenant))
}

async fn fetch(edge: &Edge, ask: Ask, expected: &str) -> Answer {
    let answer = edge.client.fetch(ask).await;
    assert_eq!((answer.status.as_u16(), answer.reflex()), (200, expected));
    answer
}

async fn passes(edge: &Edge, ask: Ask, why: &str) {
    let answer = fetch(edge, ask, "BYPASS").await;
    let told = answer.header("cache-status");
    assert_eq!(told, format!("reflex; fwd=bypass; detail=\"{why}\""));
}

async fn is_kept(edge: &Edge, ask: Ask) -> bool {
    let ask = ask.header("cache-control", "only-if-cached");
    let answer = edge.client.fetch(ask).await;
    assert!([200, 504].contains(&answer.status.as_u16()));
    answer.status == 200
}

fn over(metrics: &Metrics, limit: &str, action: &str) -> f64 {
    let labels = [("limit", limit), ("action", action)];
    metrics.sum("reflex_over_limit_total", &labels)
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_passed_by_or_refused_and_others_are_not() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, RATE).await;
    for prompt in ["one", "two"] {
        fetch(&edge, of("a", prompt), "MISS").await;
    }
    edge.recorded(2, 0).await;
    // Neither stored, nor the client's trouble.
    for _ in 0..2 {
        passes(&edge, of("a", "three"), "tenant-rate").await;
    }
    let no_cache = of("a", "one").header("cache-control", "no-cache");
    passes(&edge, no_cache, "tenant-rate").await;
    fetch(&edge, of("a", "one"), "HIT_L1_EXACT").await;
    fetch(&edge, of("b", "three"), "MISS").await;
    edge.recorded(3, 0).await;

    edge.reload(&format!("over_rate = \"refuse\"\n{RATE}"), APPLIED)
        .await;
    let calls = upstream.call_count();
    let refused = edge.client.fetch(of("a", "three")).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["code"], "429");
    let wait: u64 = refused.header("retry-after").parse().expect("seconds");
    assert!(wait > 1000, "{wait}");
    assert_eq!(upstream.call_count(), calls);
    // A client that asks for nothing new of the provider is not over anything.
    assert!(!is_kept(&edge, of("a", "three")).await);
    fetch(&edge, of("a", "two"), "HIT_L1_EXACT").await;
    fetch(&edge, of("b", "three"), "HIT_L1_EXACT").await;
    let metrics = edge.metrics().await;
    assert_eq!(over(&metrics, "rate", "passed").to_string(), "3");
    assert_eq!(over(&metrics, "rate", "refused").to_string(), "1");

    edge.reload("", APPLIED).await;
    fetch(&edge, of("a", "three"), "MISS").await;
}

/// A client that shows another credential with each request.
#[tokio::test]
async fn tenants_that_nothing_names_have_one_rate_if_the_operator_says_so() {
    let upstream = Upstream::start().await;
    let config = format!(
        "unnamed_tenants = \"together\"\n[[group]]\nname = \"team\"\ntrusted = [\"blue\"]\n{RATE}"
    );
    let config = format!("tenant_header = \"x-team\"\n{config}");
    let edge = edge_with(&upstream, &config).await;
    let named = |team: &str, prompt: &str| Ask::chat(prompt).header("x-team", team);
    for number in 0..2 {
        let team = format!("t{number}");
        fetch(&edge, named(&team, "one"), "MISS").await;
    }
    for number in 2..5 {
        let team = format!("t{number}");
        passes(&edge, named(&team, "one"), "tenant-rate").await;
    }
    fetch(&edge, named("blue", "one"), "MISS").await;
    edge.recorded(3, 0).await;
    // They share a limit and no answer.
    fetch(&edge, named("t1", "one"), "HIT_L1_EXACT").await;
    passes(&edge, named("t9", "one"), "tenant-rate").await;
}

#[tokio::test]
async fn a_tenant_with_as_many_fills_as_it_may_have_passes_by_until_one_ends() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "[[limit]]\nfills_max = 1").await;
    let slow = of("a", "slow").header("x-hold", "1");
    let leader = ask(&edge.client, &slow);
    upstream.called(1).await;
    passes(&edge, of("a", "other"), "tenant-fills").await;
    fetch(&edge, of("b", "other"), "MISS").await;
    // A follower leads nothing.
    let follower = ask(&edge.client, &slow);
    waiting(&edge, 1).await;
    upstream.release(1);
    for answer in [leader, follower] {
        let answer = within("an answer", answer).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "MISS"));
    }
    edge.recorded(2, 0).await;
    assert!(!is_kept(&edge, of("a", "other")).await);
    let metrics = edge.metrics().await;
    assert_eq!(over(&metrics, "fills", "passed").to_string(), "1");
    // A moment after its answer is recorded.
    let ended = async {
        let other = || edge.client.fetch(of("a", "other"));
        while other().await.reflex() != "MISS" {}
    };
    within("the end of the fill", ended).await;
}

#[tokio::test]
async fn a_tenant_that_stores_too_much_loses_its_own_oldest_answers_also_after_a_restart() {
    let upstream = Upstream::start().await;
    let limit = "[[limit]]\nentries_max = 5";
    let edge = edge_with(&upstream, limit).await;
    for number in 0..3 {
        fetch(&edge, of("b", &number.to_string()), "MISS").await;
    }
    for number in 0..20 {
        fetch(&edge, of("a", &number.to_string()), "MISS").await;
        edge.recorded(4 + number, 0).await;
    }
    edge.written().await;
    let check = async |edge: &Edge| {
        for number in 0..20 {
            let is_there = is_kept(edge, of("a", &number.to_string())).await;
            assert_eq!(is_there, number >= 15, "{number}");
        }
        for number in 0..3 {
            assert!(is_kept(edge, of("b", &number.to_string())).await);
        }
    };
    check(&edge).await;
    let metrics = edge.metrics().await;
    let evicted = metrics.sum("reflex_evictions_over_limit_total", &[]);
    assert_eq!(evicted.to_string(), "15");
    let edge = edge.restart().await;
    check(&edge).await;
    // An answer that went is asked for and kept anew.
    fetch(&edge, of("a", "3"), "MISS").await;
    edge.recorded(1, 0).await;
    fetch(&edge, of("a", "3"), "HIT_L1_EXACT").await;
    edge.written().await;
    assert!(!is_kept(&edge, of("a", "15")).await);
    // Less, with a reload.
    edge.reload("[[limit]]\nentries_max = 2", APPLIED).await;
    fetch(&edge, of("b", "new"), "MISS").await;
    edge.recorded(2, 0).await;
    edge.written().await;
    assert!(is_kept(&edge, of("a", "3")).await);
    assert!(!is_kept(&edge, of("a", "16")).await);
}
