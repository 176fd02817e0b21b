//! Every miss can explain itself, in Envoy's statistics and log.

use super::*;

/// A counter, its labels, and its value.
type Expected = (&'static str, &'static [(&'static str, &'static str)], f64);

#[tokio::test]
async fn the_same_words_stand_in_envoys_statistics() {
    let (_upstream, _daemon, envoy) = line().await;
    for number in 0..3 {
        let ask = Ask::chat("hi").header("x-acme-call", &format!("private-{number}"));
        check_miss(&envoy.client.fetch(ask).await);
    }
    let controlled = |ask: Ask, control| ask.header("cache-control", control);
    envoy
        .client
        .fetch(controlled(Ask::stream("hello"), "no-cache"))
        .await;
    envoy
        .client
        .fetch(controlled(Ask::stream("hello"), "no-store"))
        .await;
    let unwanted = Ask::chat("hello").header("x-reflex-ttl", "0");
    envoy.client.fetch(unwanted.key(Some("sk-other"))).await;
    let cut_short = Ask::chat("hello").mock("length");
    envoy.client.fetch(cut_short).await;
    let expected: [Expected; 6] = [
        ("reflex_key_splits_total", &[("by", "header")], 2.0),
        ("reflex_bypasses_total", &[("reason", "no-store")], 1.0),
        ("reflex_not_kept_total", &[("reason", "length")], 1.0),
        ("reflex_not_kept_total", &[("reason", "ttl")], 1.0),
        (
            "reflex_client_control_total",
            &[("directive", "no-cache"), ("stream", "true")],
            1.0,
        ),
        (
            "reflex_client_control_total",
            &[("directive", "no-store"), ("stream", "true")],
            1.0,
        ),
    ];
    for (name, labels, count) in expected {
        let what = format!("{name} {labels:?}");
        envoy
            .until(&what, |metrics| metrics.sum(name, labels) >= count)
            .await;
    }
    let log = envoy.log();
    assert_eq!(log.matches("`x-acme-call`").count(), 1, "{log}");
    assert!(!log.contains("private"), "{log}");
}

/// The daemon's log named the cause, and Envoy's log did not.
#[tokio::test]
async fn what_an_answer_reveals_stands_in_envoys_log_once() {
    let (_upstream, _daemon, envoy) = line().await;
    let found = serde_json::json!({
        "object": "chat.completion",
        "citations": ["https://private.test"],
        "choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": "stop"}],
    });
    for number in 0..3 {
        let ask = Ask::chat(&format!("what is new? {number}"));
        check_miss(
            &envoy
                .client
                .fetch(ask.header("x-mock-body", &found.to_string()))
                .await,
        );
    }
    let labels = [("reason", "provider-work")];
    envoy
        .until("three answers are not kept", |metrics| {
            metrics.sum("reflex_not_kept_total", &labels) >= 3.0
        })
        .await;
    let log = envoy.log();
    assert_eq!(log.matches("searched or ran something").count(), 1, "{log}");
    assert!(!log.contains("private"), "{log}");
}
