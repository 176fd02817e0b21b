//! Several answers to one request, in turn.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;

async fn edge(upstream: &Upstream) -> Edge {
    let plan = Plan::new(&upstream.url()).config("samples = 3");
    plan.start().await
}

/// UKGovernmentBEIS/inspect_ai#2580: 30 samples were wanted, and one answer came 30 times.
#[tokio::test]
async fn a_request_for_many_samples_gets_that_many_answers_in_turn() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream).await;
    let mut rounds = Vec::new();
    for status in ["MISS", "HIT_L1_EXACT", "HIT_L1_EXACT"] {
        let mut bodies = Vec::new();
        for _ in 0..3 {
            let answer = edge.client.fetch(Ask::chat("something else")).await;
            assert_eq!(answer.reflex(), status);
            bodies.push(answer.body);
        }
        assert!(bodies[0] != bodies[1] && bodies[1] != bodies[2] && bodies[0] != bodies[2]);
        rounds.push(bodies);
    }
    assert!(rounds.iter().all(|round| *round == rounds[0]));
    assert_eq!(upstream.call_count(), 3);
    // They are on disk like any other, and another request has turns of its own.
    let edge = edge.restart().await;
    let again = edge.client.fetch(Ask::chat("something else")).await;
    assert_eq!(
        (again.reflex(), &again.body),
        ("HIT_L1_EXACT", &rounds[0][0])
    );
    let other = edge.client.fetch(Ask::chat("anything else")).await;
    assert_eq!(other.reflex(), "MISS");
}

#[tokio::test]
async fn only_if_cached_gets_any_of_them() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream).await;
    let only = || Ask::chat("any").header("cache-control", "only-if-cached");
    assert_eq!(edge.client.fetch(only()).await.status, 504);
    let first = edge.client.fetch(Ask::chat("any")).await;
    for _ in 0..4 {
        let any = edge.client.fetch(only()).await;
        assert_eq!((any.reflex(), &any.body), ("HIT_L1_EXACT", &first.body));
    }
    assert_eq!(upstream.call_count(), 1);
}
