//! Several at once: requests for the same answer, workers, purges, and very many answers.

use super::{apart, check_miss, count, hits, patient, stored};
use http::Method;
use reflex_tests::PATIENCE;
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use std::collections::HashSet;
use tokio::task::JoinSet;

const WORKERS: u32 = 2;

/// Requests in a row, each over a connection of its own, that one of two workers gets all of once in
/// 32,768 times.
const IN_A_ROW: usize = 16;

/// As many as two workers and their connections to the daemon have to do with at once.
const AT_ONCE: usize = 98;

async fn two_workers(upstream: &Upstream, daemon: &Edge) -> Envoy {
    patient(upstream, daemon)
        .workers(WORKERS)
        .plugin("fill_wait_ms", 30_000)
        .start()
        .await
}

/// The same request so many times at once, each over a connection of its own.
async fn at_once(envoy: &Envoy, ask: &Ask) -> JoinSet<Answer> {
    let mut all = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, ask) = (Client::new(&envoy.url), ask.clone());
        all.spawn(async move { client.fetch(ask).await });
    }
    all
}

/// envoyproxy/envoy#34595: a thundering herd on one cold key.
#[tokio::test]
async fn identical_misses_at_once_cause_one_call() {
    for ask in [Ask::chat("all"), Ask::stream("all")] {
        let upstream = Upstream::start().await;
        let daemon = Plan::daemon().start().await;
        let envoy = two_workers(&upstream, &daemon).await;
        let ask = ask.mock("gated");
        let mut all = at_once(&envoy, &ask).await;
        // All have come in before the first is answered: a request not held asks the provider.
        envoy
            .until("98 requests more in Envoy", |metrics| {
                let name = "envoy_http_downstream_rq_active";
                metrics.sum(name, &[("envoy_http_conn_manager_prefix", "llm")]) >= AT_ONCE as f64
            })
            .await;
        upstream.release_all();
        let first = all.join_next().await.expect("one").expect("no panic");
        while let Some(answer) = all.join_next().await {
            let answer = answer.expect("no panic");
            assert_eq!(answer.status, 200);
            let status = answer.header("cache-status");
            assert_eq!(answer.body, first.body, "{status}");
        }
        assert_eq!(upstream.call_count(), 1);
        envoy
            // A worker that reads a request after the answer was stored finds a hit.
            .until("the rest are collapsed into it, or hits", |metrics| {
                let collapsed = count(metrics, "reflex_collapsed");
                collapsed > 0.0 && collapsed + count(metrics, "reflex_hits") == AT_ONCE as f64 - 1.0
            })
            .await;
    }
}

#[tokio::test]
async fn without_a_daemon_there_is_one_call_per_worker_at_most() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .workers(WORKERS)
        .plugin("fill_wait_ms", 30_000)
        .start()
        .await;
    let mut all = at_once(&envoy, &Ask::chat("all").mock("gated")).await;
    envoy
        .until("98 requests in Envoy", |metrics| {
            let name = "envoy_http_downstream_rq_active";
            metrics.sum(name, &[("envoy_http_conn_manager_prefix", "llm")]) >= AT_ONCE as f64
        })
        .await;
    upstream.release_all();
    while let Some(answer) = all.join_next().await {
        assert_eq!(answer.expect("no panic").status, 200);
    }
    assert!(upstream.call_count() <= WORKERS as usize);
}

/// When the answer is not kept, the followers ask for themselves.
#[tokio::test]
async fn a_follower_of_an_answer_that_is_not_kept_asks_again() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = two_workers(&upstream, &daemon).await;
    let mut all = at_once(&envoy, &Ask::chat("refused").mock("refusal")).await;
    while let Some(answer) = all.join_next().await {
        let answer = answer.expect("no panic");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.reflex(), "MISS");
    }
}

/// Waits until no worker serves an answer any more. Their counters do not tell: Envoy's main thread counts
/// some of what it hears, too.
async fn forgotten(envoy: &Envoy, ask: impl Fn() -> Ask, answer: &Answer) {
    let heard = async {
        let mut others = 0;
        while others < IN_A_ROW {
            let is_other = apart(envoy, ask()).await.body != answer.body;
            others = if is_other { others + 1 } else { 0 };
        }
    };
    reflex_tests::within("all workers to hear of it", heard).await;
}

#[tokio::test]
async fn a_purge_reaches_every_worker() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = two_workers(&upstream, &daemon).await;
    let ask = || Ask::chat("to be purged");
    let first = apart(&envoy, ask()).await;
    check_miss(&first);
    stored(&daemon, 1).await;
    // Until both workers have it in their memory: each got it from the daemon or the provider.
    while hits(&envoy.metrics().await, "daemon") < 1.0 {
        assert_eq!(apart(&envoy, ask()).await.body, first.body);
        assert_eq!(upstream.call_count(), 1);
    }
    let everything = Ask::new(Method::DELETE, "/v1/entries", "").key(Some(&daemon.token()));
    let purge = Unix::http1(&daemon.socket()).fetch(everything).await;
    assert_eq!(purge.status, 204);
    forgotten(&envoy, ask, &first).await;
    assert_eq!(upstream.call_count(), 2);
}

/// The other worker served the older answer for five minutes.
#[tokio::test]
async fn a_refresh_reaches_every_worker() {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let envoy = two_workers(&upstream, &daemon).await;
    let ask = || Ask::chat("to be refreshed");
    let first = apart(&envoy, ask()).await;
    check_miss(&first);
    stored(&daemon, 1).await;
    // As with a purge: until both have it in their memory.
    while hits(&envoy.metrics().await, "daemon") < 1.0 {
        assert_eq!(apart(&envoy, ask()).await.body, first.body);
    }
    let refresh = ask().header("cache-control", "no-cache");
    let second = apart(&envoy, refresh).await;
    assert_ne!(second.body, first.body);
    stored(&daemon, 2).await;
    forgotten(&envoy, ask, &first).await;
    for _ in 0..IN_A_ROW {
        assert_eq!(apart(&envoy, ask()).await.body, second.body);
    }
    assert_eq!(upstream.call_count(), 2);
}

/// Without a daemon, too.
#[tokio::test]
async fn a_refresh_reaches_every_worker_without_a_daemon() {
    let upstream = Upstream::start().await;
    let plan = EnvoyPlan::new(&upstream.url()).workers(WORKERS);
    let envoy = plan.start().await;
    let ask = || Ask::chat("to be refreshed");
    // Until both workers have asked for it.
    let mut old = Vec::new();
    while upstream.call_count() < WORKERS as usize {
        old.push(apart(&envoy, ask()).await.body);
    }
    let refresh = ask().header("cache-control", "no-cache");
    let refreshed = apart(&envoy, refresh).await;
    // The worker that has refreshed it keeps it. The other one hears of it with its next tick, and asks once.
    let heard = async {
        while upstream.call_count() < 4 {
            apart(&envoy, ask()).await;
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    heard.expect("the other worker hears of it");
    let mut bodies = HashSet::new();
    for _ in 0..IN_A_ROW {
        let answer = apart(&envoy, ask()).await;
        assert!(!old.contains(&answer.body));
        bodies.insert(answer.body);
    }
    // The refreshed one, and what the other worker asked for.
    bodies.insert(refreshed.body);
    assert!(bodies.len() <= 2, "{bodies:?}");
    assert_eq!(upstream.call_count(), 4);
}

/// BerriAI/litellm#4366: memory grew without bound. A hundred thousand distinct answers pass
/// through a tier that holds a few hundred.
#[tokio::test]
async fn memory_stays_bounded_under_very_many_answers() {
    const ANSWERS: usize = 100_000;
    const CLIENTS: usize = 16;
    const HOT_BYTES_MAX: u64 = 1 << 20;
    /// What an allocator may hold beyond; the answers together are 60 MiB.
    const SLACK: u64 = 32 << 20;
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::new(&upstream.url())
        .plugin("hot_bytes_max", HOT_BYTES_MAX)
        .start()
        .await;
    let ask_all = async |range: std::ops::Range<usize>| {
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let connection = Client::new(&envoy.url);
            let mine: Vec<usize> = range.clone().skip(client).step_by(CLIENTS).collect();
            clients.spawn(async move {
                for number in mine {
                    let answer = connection
                        .fetch(Ask::chat(&format!("number {number}")))
                        .await;
                    assert_eq!(answer.reflex(), "MISS");
                }
            });
        }
        while let Some(done) = clients.join_next().await {
            done.expect("no panic");
        }
    };
    // Buffers, pools and the tier are at their size after the first tenth.
    ask_all(0..ANSWERS / 10).await;
    let before = envoy.memory_bytes();
    ask_all(ANSWERS / 10..ANSWERS).await;
    let after = envoy.memory_bytes();
    assert!(after < before + SLACK, "{before} bytes, then {after}");
    let hot = count(&envoy.metrics().await, "reflex_hot_bytes");
    assert!(hot <= HOT_BYTES_MAX as f64 && hot > 0.0, "{hot}");
}
