//! Many requests for one new answer are one call of the provider: a follower reads it from its
//! first byte.

use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use tokio::task::JoinHandle;

const COLLAPSED: &str = "reflex; fwd=miss; collapsed";

/// A request in the background.
pub(crate) fn ask(client: &Client, ask: &Ask) -> JoinHandle<Answer> {
    let (client, ask) = (client.clone(), ask.clone());
    tokio::spawn(async move { client.fetch(ask).await })
}

/// Waits until so many requests wait for another one's answer to begin.
pub(crate) async fn waiting(edge: &Edge, count: u32) {
    edge.until(&format!("{count} wait"), |metrics| {
        let waiting = metrics.sum("reflex_fill_waiters", &[]);
        (waiting - f64::from(count)).abs() < 0.5
    })
    .await;
}

/// envoyproxy/envoy#34595: a thundering herd on one cold key.
#[tokio::test]
async fn a_herd_on_one_cold_key_is_one_call() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for one in [Ask::chat("all at once"), Ask::stream("all at once")] {
        let calls = upstream.call_count();
        let held = one.header("x-hold", "1");
        let herd: Vec<_> = (0..20).map(|_| ask(&edge.client, &held)).collect();
        upstream.called(calls + 1).await;
        waiting(&edge, 19).await;
        upstream.release(1);
        let mut bodies = Vec::new();
        let mut collapsed = 0;
        for answer in herd {
            let answer = answer.await.expect("an answer");
            assert_eq!((answer.status.as_u16(), answer.reflex()), (200, "MISS"));
            if answer.header("cache-status") == COLLAPSED {
                collapsed += 1;
                // Headers of the first exchange stay with it.
                assert_eq!(answer.header("x-request-id"), "");
                assert_eq!(answer.header("set-cookie"), "");
                assert_eq!(answer.header("openai-version"), "2020-10-01");
            }
            bodies.push(answer.body);
        }
        assert_eq!(collapsed, 19);
        assert!(bodies.iter().all(|body| *body == bodies[0]));
        assert_eq!(upstream.call_count(), calls + 1);
        let hit = edge.client.fetch(held).await;
        assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &bodies[0]));
    }
    let metrics = edge.metrics().await;
    let collapsed = metrics.sum("reflex_requests_total", &[("detail", "collapsed")]);
    assert!((collapsed - 38.0).abs() < 0.5, "{metrics:#?}");
}

#[tokio::test]
async fn a_request_in_the_middle_of_a_stream_gets_it_from_its_first_byte() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::stream("in the middle").mock("gated");
    let mut first = edge.client.send(one.clone()).await;
    upstream.release(3);
    let mut start = first.until("assistant").await;
    let mut second = edge.client.send(one).await;
    assert_eq!(second.headers["cache-status"], COLLAPSED);
    let mut seen = second.until("assistant").await;
    // Neither has to wait for the other.
    upstream.release_all();
    let rest = second.whole().await.body;
    seen.push_str(&String::from_utf8_lossy(&rest));
    let rest = first.whole().await.body;
    start.push_str(&String::from_utf8_lossy(&rest));
    assert_eq!(seen, start);
    assert!(seen.ends_with("data: [DONE]\n\n"));
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn a_slow_reader_holds_up_no_other() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    // More than the buffers between two programs: the reply repeats the prompt, for each choice.
    let prompt = "x".repeat(900_000);
    let messages = json!([{"role": "user", "content": prompt}]);
    let body = json!({"model": "mock", "stream": true, "n": 12, "messages": messages});
    let one = Ask::body(body.to_string()).mock("gated");
    let slow_first = edge.client.send(one.clone()).await;
    let slow_second = edge.client.send(one.clone()).await;
    let quick = edge.client.send(one).await;
    upstream.release_all();
    let quick = quick.whole().await.body;
    assert!(quick.len() > 10_000_000 && quick.ends_with(b"data: [DONE]\n\n"));
    assert!(slow_second.whole().await.body == quick);
    assert!(slow_first.whole().await.body == quick);
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn the_first_client_may_leave_a_stream_to_the_others() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::stream("left to others").mock("gated");
    let mut first = edge.client.send(one.clone()).await;
    upstream.release(1);
    first.until("assistant").await;
    let second = edge.client.send(one.clone()).await;
    assert_eq!(second.headers["cache-status"], COLLAPSED);
    drop(first);
    upstream.release_all();
    let whole = second.whole().await.body;
    assert!(whole.ends_with(b"data: [DONE]\n\n"));
    let hit = edge.client.fetch(one).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &whole));
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn the_first_client_may_leave_before_the_answer_begins() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::chat("left early").header("x-hold", "1");
    let first = ask(&edge.client, &one);
    upstream.called(1).await;
    let second = ask(&edge.client, &one);
    waiting(&edge, 1).await;
    first.abort();
    assert!(first.await.is_err());
    // A third request shows that the second one still waits.
    let third = ask(&edge.client, &one);
    waiting(&edge, 2).await;
    upstream.release(1);
    let second = second.await.expect("an answer");
    let third = third.await.expect("an answer");
    assert_eq!(second.header("cache-status"), COLLAPSED);
    assert_eq!(second.body, third.body);
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn when_all_have_left_the_provider_is_let_go() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::stream("left by all").mock("gated");
    let mut first = edge.client.send(one.clone()).await;
    upstream.release(1);
    first.until("assistant").await;
    let second = edge.client.send(one.clone()).await;
    drop(first);
    drop(second);
    upstream.abandoned(1).await;
    upstream.release_all();
    assert_eq!(edge.client.fetch(one).await.reflex(), "MISS");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn an_error_of_the_provider_goes_to_each_follower_once() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for status in ["500", "429"] {
        let calls = upstream.call_count();
        let one = Ask::chat(status)
            .header("x-hold", "1")
            .mock(&format!("status={status}"));
        let herd: Vec<_> = (0..4).map(|_| ask(&edge.client, &one)).collect();
        upstream.called(calls + 1).await;
        waiting(&edge, 3).await;
        upstream.release(1);
        for answer in herd {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.status.as_str(), status);
            assert!(answer.json()["error"]["message"].is_string());
        }
        assert_eq!(upstream.call_count(), calls + 1);
        upstream.release(1);
        assert_eq!(edge.client.fetch(one).await.status.as_str(), status);
        assert_eq!(upstream.call_count(), calls + 2);
    }
}

#[tokio::test]
async fn a_provider_that_goes_down_is_an_error_for_each_follower_once() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::chat("gone").header("x-hold", "1");
    let herd: Vec<_> = (0..4).map(|_| ask(&edge.client, &one)).collect();
    upstream.called(1).await;
    waiting(&edge, 3).await;
    upstream.stop().await;
    for answer in herd {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status, 502);
    }
    assert_eq!(edge.client.fetch(one).await.status, 502);
}

#[tokio::test]
async fn what_is_not_to_be_kept_is_shared_only_while_it_comes() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (calls, one) in [Ask::chat("no"), Ask::stream("no")].into_iter().enumerate() {
        let one = one.header("x-hold", "1").mock("refusal");
        let first = ask(&edge.client, &one);
        upstream.called(2 * calls + 1).await;
        let second = ask(&edge.client, &one);
        waiting(&edge, 1).await;
        upstream.release(1);
        let first = first.await.expect("an answer");
        let second = second.await.expect("an answer");
        assert_eq!(first.body, second.body);
        upstream.release(1);
        let third = edge.client.fetch(one).await;
        assert_eq!(third.header("cache-status"), "reflex; fwd=miss");
        assert_ne!(third.body, first.body);
        assert_eq!(upstream.call_count(), 2 * calls + 2);
    }
}

#[tokio::test]
async fn what_may_not_be_shared_is_asked_for_by_each() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (index, behaviour) in ["status=400", "gzip"].into_iter().enumerate() {
        let calls = 3 * index;
        let one = Ask::chat("each").header("x-hold", "1").mock(behaviour);
        let herd: Vec<_> = (0..3).map(|_| ask(&edge.client, &one)).collect();
        upstream.called(calls + 1).await;
        waiting(&edge, 2).await;
        upstream.release(3);
        for answer in herd {
            let answer = answer.await.expect("an answer");
            assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
        }
        assert_eq!(upstream.call_count(), calls + 3, "{behaviour}");
    }
}

#[tokio::test]
async fn no_follower_waits_longer_than_the_operator_allows() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("fill_wait_seconds_max = 1")
        .start()
        .await;
    let one = Ask::chat("too long").header("x-hold", "1");
    let first = ask(&edge.client, &one);
    upstream.called(1).await;
    let second = ask(&edge.client, &one);
    upstream.called(2).await;
    upstream.release(2);
    for answer in [first, second] {
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.header("cache-status"), "reflex; fwd=miss");
    }
}

#[tokio::test]
async fn a_request_for_a_new_answer_does_not_join() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let one = Ask::chat("a new one").header("x-hold", "1");
    let first = ask(&edge.client, &one);
    upstream.called(1).await;
    for control in ["no-cache", "no-store"] {
        let calls = upstream.call_count();
        let own = ask(&edge.client, &one.clone().header("cache-control", control));
        upstream.called(calls + 1).await;
        upstream.release(1);
        // Either of them may have gone on.
        drop(own);
    }
    let absent = one.header("cache-control", "only-if-cached");
    let absent = edge.client.fetch(absent).await;
    assert!(absent.status == 504 || absent.reflex() == "HIT_L1_EXACT");
    upstream.release_all();
    assert_eq!(first.await.expect("an answer").status, 200);
}

/// Two tenants do not share an answer under way either.
#[tokio::test]
async fn another_tenant_does_not_join() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let of = |key: &str| Ask::stream("mine").key(Some(key)).mock("gated");
    let mine = edge.client.send(of("alice")).await;
    let theirs = edge.client.send(of("bob")).await;
    assert_eq!(theirs.headers["cache-status"], "reflex; fwd=miss");
    upstream.release_all();
    assert_ne!(mine.whole().await.body, theirs.whole().await.body);
    assert_eq!(upstream.call_count(), 2);
}
