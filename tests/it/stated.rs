//! Lives of answers that state one, that come from another cache, or whose provider
//! has headers for caches; and answers that reveal what their requests did not say.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

fn ttl(cache_status: &str) -> u64 {
    let ttl = cache_status.strip_prefix("reflex; hit; ttl=");
    let ttl = ttl.and_then(|ttl| ttl.parse().ok());
    ttl.unwrap_or_else(|| panic!("no ttl in `{cache_status}`"))
}

/// A chat to which the provider gives this answer.
fn saying(prompt: &str, message: serde_json::Value) -> Ask {
    let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
    let body = json!({"object": "chat.completion", "choices": [choice]});
    Ask::chat(prompt).header("x-mock-body", &body.to_string())
}

/// Asked twice, the provider answers twice, and nothing is stored.
async fn check_not_kept(edge: &Edge, upstream: &Upstream, ask: Ask, reason: &str) {
    let calls = upstream.call_count();
    let inserts = edge.metrics().await.sum("reflex_inserts", &[]);
    for _ in 0..2 {
        assert_eq!(
            edge.client.fetch(ask.clone()).await.reflex(),
            "MISS",
            "{reason}"
        );
    }
    edge.until("two recordings", |metrics| {
        metrics.sum("reflex_not_kept_total", &[("reason", reason)]) >= 2.0
    })
    .await;
    assert_eq!(upstream.call_count(), calls + 2, "{reason}");
    assert!(edge.metrics().await.sum("reflex_inserts", &[]) - inserts < 0.5);
}

#[tokio::test]
async fn a_spoken_answer_is_gone_when_its_id_expires() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let audio = |expires_at: u64| {
        let audio = json!({"id": "a", "data": "AAAA", "transcript": "x", "expires_at": expires_at});
        saying(
            "say it",
            json!({"role": "assistant", "content": null, "audio": audio}),
        )
    };
    let soon = audio(now() + 600);
    assert_eq!(edge.client.fetch(soon.clone()).await.reflex(), "MISS");
    let hit = edge.client.fetch(soon).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert!(ttl(hit.header("cache-status")) <= 600, "{hit:?}");
    // The rule is shorter.
    let late = audio(now() + 100_000);
    edge.client.fetch(late.clone()).await;
    let hit = edge.client.fetch(late).await;
    assert!(ttl(hit.header("cache-status")) <= 3600, "{hit:?}");
    check_not_kept(&edge, &upstream, audio(now() - 1), "expired").await;
}

/// The second edge's provider is the first edge: an answer is as old as the first edge says.
#[tokio::test]
async fn two_edges_in_a_row_do_not_add_up() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("ttl_seconds = 1000")
        .start()
        .await;
    let aged = |age: u64| {
        let head = format!("age: {age}");
        Ask::chat("how old?").header("x-mock-head", &head)
    };
    edge.client.fetch(aged(400)).await;
    let hit = edge.client.fetch(aged(400)).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    let age: u64 = hit.header("age").parse().expect("an age");
    assert!((400..1000).contains(&age), "{hit:?}");
    assert!(ttl(hit.header("cache-status")) <= 600, "{hit:?}");

    let second = Plan::new(&edge.url)
        .config("ttl_seconds = 1000")
        .start()
        .await;
    let miss = second.client.fetch(aged(400)).await;
    assert_eq!(miss.body, hit.body);
    let hit = second.client.fetch(aged(400)).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert!(hit.header("age").parse::<u64>().expect("an age") >= 400);
    assert!(ttl(hit.header("cache-status")) <= 600, "{hit:?}");
    assert_eq!(upstream.call_count(), 1);

    check_not_kept(&edge, &upstream, aged(1000), "expired").await;
    let odd = Ask::chat("how old?").header("x-mock-head", "age: soon");
    for asked in 0..2 {
        assert_eq!(
            edge.client.fetch(odd.clone()).await.reflex(),
            "MISS",
            "{asked}"
        );
    }
}

#[tokio::test]
async fn what_the_provider_says_to_caches_counts_where_the_operator_has_it_obeyed() {
    let heads = ["cache-control: no-store, private", "vary: *", "expires: 0"];
    let ask = |head: &str| Ask::chat("may it be kept?").header("x-mock-head", head);
    let upstream = Upstream::start().await;
    let ignoring = Edge::before(&upstream).await;
    for head in heads {
        assert_eq!(ignoring.client.fetch(ask(head)).await.reflex(), "MISS");
        let hit = ignoring.client.fetch(ask(head)).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT", "{head}");
    }
    let obeying = Plan::new(&upstream.url())
        .config("provider_control = \"obey\"")
        .start()
        .await;
    for head in heads {
        for _ in 0..2 {
            assert_eq!(
                obeying.client.fetch(ask(head)).await.reflex(),
                "MISS",
                "{head}"
            );
        }
    }
    let minute = ask("cache-control: max-age=60");
    obeying.client.fetch(minute.clone()).await;
    let hit = obeying.client.fetch(minute).await;
    assert!(ttl(hit.header("cache-status")) <= 60, "{hit:?}");
}

#[tokio::test]
async fn an_answer_that_shows_a_search_is_not_stored() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let found = json!({
        "object": "chat.completion",
        "citations": ["https://a.test"],
        "search_results": [{"title": "A", "url": "https://a.test"}],
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
    });
    let ask = Ask::chat("what is new?").header("x-mock-body", &found.to_string());
    check_not_kept(&edge, &upstream, ask, "provider-work").await;
    // Logged once, with the remedy.
    assert_eq!(edge.log().matches("searched or ran something").count(), 1);
    let empty = saying("anything?", json!({"role": "assistant", "content": ""}));
    check_not_kept(&edge, &upstream, empty, "empty").await;
}

#[tokio::test]
async fn an_answer_that_no_filter_has_seen_is_not_stored() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let unfiltered = json!({
        "object": "chat.completion",
        "choices": [{
            "index": 0,
            "message": {"content": "x"},
            "finish_reason": "stop",
            "content_filter_results": {"error": {"code": "content_filter_error"}},
        }],
    });
    let ask = Ask::chat("filtered?").header("x-mock-body", &unfiltered.to_string());
    check_not_kept(&edge, &upstream, ask, "error").await;
}

#[tokio::test]
async fn an_answer_that_ends_in_other_words_is_stored() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let message = json!({"content": "half a smile \\ud83d"});
    let choice = json!({"index": 0, "message": message, "finish_reason": "eos_token"});
    let body = json!({"choices": [choice]}).to_string();
    // Half a pair cannot be said in a text of ours: its escape is put in here.
    let body = body.replace("\\\\ud83d", "\\ud83d");
    let ask = Ask::chat("in other words").header("x-mock-body", &body);
    let miss = edge.client.fetch(ask.clone()).await;
    assert!(miss.body.windows(6).any(|window| window == b"\\ud83d"));
    let hit = edge.client.fetch(ask).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert_eq!(hit.body, miss.body);
}
