//! Hits are answered before any component, and instances are held by requests that have work for
//! them: not by slow clients, nor by requests that wait for the same answer as another one.

use crate::coalescing::{ask, waiting};
use crate::guest::edge_with_test_guest;
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::raw_client::RawClient;
use reflex_tests::upstream::Upstream;

/// What answers hits. In both modes nothing else differs.
const MODES: [&str; 2] = ["hits = \"native\"\n", "hits = \"component\"\n"];

async fn edge(upstream: &Upstream, mode: &str, config: &str) -> Edge {
    let config = format!("{mode}{config}");
    Plan::new(&upstream.url()).config(&config).start().await
}

async fn fetch(edge: &Edge, prompt: &str, expected: &str) {
    let answer = edge.client.fetch(Ask::chat(prompt)).await;
    let told = (answer.status.as_u16(), answer.reflex());
    assert_eq!(told, (200, expected), "{prompt}");
}

async fn busy(edge: &Edge) -> f64 {
    let metrics = edge.metrics().await;
    metrics.sum("reflex_guest_failures_total", &[("reason", "busy")])
}

/// A hundred of them made every hit a call of the provider.
#[tokio::test]
async fn clients_that_send_half_a_body_hold_no_instance() {
    for mode in MODES {
        let upstream = Upstream::start().await;
        let edge = edge(&upstream, mode, "instances_max = 1").await;
        fetch(&edge, "known", "MISS").await;
        let mut clients = Vec::new();
        for path in ["/v1/chat/completions", "/v1/files"] {
            for _ in 0..20 {
                let mut client = RawClient::connect(&edge.url).await;
                client
                    .send(format!(
                        "POST {path} HTTP/1.1\r\nhost: edge\r\nauthorization: Bearer sk-test\r\n\
                         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"model\""
                    ))
                    .await;
                clients.push(client);
            }
        }
        // They have been accepted: later requests are behind them.
        fetch(&edge, "known", "HIT_L1_EXACT").await;
        fetch(&edge, "unknown", "MISS").await;
        fetch(&edge, "unknown", "HIT_L1_EXACT").await;
        assert!(busy(&edge).await < 0.5, "{mode}");
        drop(clients);
    }
}

/// A slow provider does not turn hits into calls.
#[tokio::test]
async fn without_a_free_instance_the_native_flow_answers_and_records() {
    for mode in MODES {
        let upstream = Upstream::start().await;
        let edge = edge(&upstream, mode, "instances_max = 1").await;
        fetch(&edge, "known", "MISS").await;
        let calls = upstream.call_count();
        let slow = ask(&edge.client, &Ask::chat("slow").header("x-hold", "1"));
        upstream.called(calls + 1).await;
        fetch(&edge, "known", "HIT_L1_EXACT").await;
        fetch(&edge, "unknown", "MISS").await;
        fetch(&edge, "unknown", "HIT_L1_EXACT").await;
        let stream = || edge.client.fetch(Ask::stream("unknown"));
        assert_eq!(stream().await.reflex(), "MISS");
        assert_eq!(stream().await.reflex(), "HIT_L1_EXACT");
        assert!(busy(&edge).await > 0.5, "{mode}");
        // Requests without an instance share their call, too.
        let calls = upstream.call_count();
        let held = Ask::chat("together").header("x-hold", "2");
        let herd: Vec<_> = (0..10).map(|_| ask(&edge.client, &held)).collect();
        upstream.called(calls + 1).await;
        waiting(&edge, 9).await;
        upstream.release_all();
        for answer in herd {
            assert_eq!(answer.await.expect("an answer").reflex(), "MISS");
        }
        assert_eq!(upstream.call_count(), calls + 1, "{mode}");
        assert_eq!(slow.await.expect("an answer").reflex(), "MISS");
    }
}

#[tokio::test]
async fn requests_that_wait_for_the_same_answer_hold_no_instance() {
    for mode in MODES {
        let upstream = Upstream::start().await;
        let edge = edge(&upstream, mode, "instances_max = 2").await;
        let held = Ask::chat("together").header("x-hold", "1");
        let herd: Vec<_> = (0..10).map(|_| ask(&edge.client, &held)).collect();
        upstream.called(1).await;
        waiting(&edge, 9).await;
        // The leader has one instance, this request the other.
        fetch(&edge, "another", "MISS").await;
        assert!(busy(&edge).await < 0.5, "{mode}");
        upstream.release_all();
        let mut bodies = Vec::new();
        for answer in herd {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.reflex(), "MISS", "{mode}");
            bodies.push(answer.body);
        }
        assert!(bodies.iter().all(|body| *body == bodies[0]));
        assert_eq!(upstream.call_count(), 2, "{mode}");
    }
}

/// A leader's instance that fails frees its followers, and one of them asks.
#[tokio::test]
async fn what_is_done_for_a_guest_that_fails_is_not_left_undone() {
    for behaviour in ["trap", "trap-after-reading", "trap-as-leader"] {
        let upstream = Upstream::start().await;
        let native = "on_component_failure = \"native\"";
        let edge = edge_with_test_guest(&upstream, native).await;
        let failing = Ask::chat("who answers").header("x-test-guest", behaviour);
        let herd: Vec<_> = (0..5).map(|_| ask(&edge.client, &failing)).collect();
        for answer in herd {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status, 200, "{behaviour}");
        }
        // A guest that has taken the lead takes it along, and another one asks.
        if behaviour != "trap-as-leader" {
            assert_eq!(upstream.call_count(), 1, "{behaviour}");
        }
        let again = edge.client.fetch(failing).await;
        assert_eq!(again.reflex(), "HIT_L1_EXACT", "{behaviour}");
    }
}

#[tokio::test]
async fn the_operator_decides_what_answers_for_a_component_that_fails() {
    let upstream = Upstream::start().await;
    for (setting, status, told) in [
        ("", 200, ["BYPASS", "BYPASS"]),
        ("on_component_failure = \"pass\"", 200, ["BYPASS", "BYPASS"]),
        (
            "on_component_failure = \"native\"",
            200,
            ["MISS", "HIT_L1_EXACT"],
        ),
        ("on_component_failure = \"refuse\"", 503, ["", ""]),
    ] {
        let edge = edge_with_test_guest(&upstream, setting).await;
        let calls = upstream.call_count();
        for told in told {
            let failing = Ask::chat("who answers").header("x-test-guest", "trap");
            let answer = edge.client.fetch(failing).await;
            assert_eq!(answer.status, status, "{setting}");
            assert_eq!(answer.header("x-reflex-status"), told, "{setting}");
        }
        let asked = upstream.call_count() - calls;
        assert_eq!(asked > 0, status == 200, "{setting}");
        // A path of no LLM API is treated the same way.
        let other = Ask::get("/v1/models").header("x-test-guest", "trap");
        let answer = edge.client.fetch(other).await;
        assert_eq!(answer.status, status, "{setting}");
        // Without a failure, nothing changes.
        fetch(&edge, "without a failure", "MISS").await;
        fetch(&edge, "without a failure", "HIT_L1_EXACT").await;
    }
}

/// A component that guards answers must not be bypassed once it has sent the request.
#[tokio::test]
async fn a_component_that_guards_is_not_gone_around_with_the_providers_answer() {
    let upstream = Upstream::start().await;
    let refuse = "on_component_failure = \"refuse\"";
    let edge = edge_with_test_guest(&upstream, refuse).await;
    for (behaviour, calls) in [("trap-with-the-answer", 1), ("read-the-answer", 2)] {
        let failing = Ask::chat(behaviour).header("x-test-guest", behaviour);
        let answer = edge.client.fetch(failing).await;
        assert_eq!(answer.status, 503, "{behaviour}");
        let kind = &answer.json()["error"]["type"];
        assert_eq!(kind, "gateway_error", "{behaviour}");
        assert_eq!(upstream.call_count(), calls, "{behaviour}");
    }
    // The provider has this call under way, or not yet: it is cancelled.
    let failing = Ask::chat("given up").header("x-test-guest", "trap-after-sending");
    assert_eq!(edge.client.fetch(failing).await.status, 503);
}

/// With `hits = "native"`, a component of the operator's own sees all misses.
#[tokio::test]
async fn a_component_of_ones_own_sees_hits_only_if_asked_to() {
    let upstream = Upstream::start().await;
    for setting in ["", "hits = \"native\"\n"] {
        let config = format!("{setting}ignored_headers = [\"x-test-guest\"]");
        let edge = edge_with_test_guest(&upstream, &config).await;
        fetch(&edge, "known", "MISS").await;
        let counted = Ask::chat("known").header("x-test-guest", "count");
        let answer = edge.client.fetch(counted).await;
        assert_eq!(answer.status, 200);
        // The component counts its requests, and answers with the count.
        let is_hit = answer.header("x-reflex-status") == "HIT_L1_EXACT";
        assert_eq!(is_hit, !setting.is_empty(), "{setting}");
    }
}
