//! Logs as text and as JSON, the access log, and traces that pass through.

use reflex_tests::PATIENCE;
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The lines of the access log, once there are so many. A reading of the metrics paces the look:
/// a file cannot be waited on.
async fn lines(edge: &Edge, count: usize) -> Vec<Value> {
    let wait = async {
        loop {
            let log = edge.log();
            let lines = log
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let lines: Vec<_> = lines.filter(|line| line["target"] == "access").collect();
            if lines.len() >= count {
                return lines;
            }
            edge.metrics().await;
        }
    };
    let lines = tokio::time::timeout(PATIENCE, wait).await;
    lines.unwrap_or_else(|_| panic!("no {count} lines: {}", edge.log()))
}

async fn edge(upstream: &Upstream) -> Edge {
    let plan = Plan::new(&upstream.url()).config("log_format = \"json\"\naccess_log = true");
    plan.start().await
}

#[tokio::test]
async fn each_request_has_one_line_with_what_an_operator_needs() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream).await;
    let ask = || Ask::chat("private prompt").header("x-request-id", "req-1");
    let first = edge.client.fetch(ask()).await;
    edge.recorded(1, 0).await;
    edge.client.fetch(ask()).await;
    edge.client.fetch(Ask::get("/v1/private-models")).await;
    let lines = lines(&edge, 3).await;
    assert_eq!(lines.len(), 3, "{lines:#?}");
    let [miss, hit, bypass] = &lines[..] else {
        panic!("{lines:#?}")
    };
    for (line, cache) in [(miss, "MISS"), (hit, "HIT_L1_EXACT")] {
        assert_eq!(line["cache"], cache, "{line:#}");
        assert_eq!(line["request_id"], "req-1", "{line:#}");
        assert_eq!(line["status"], 200, "{line:#}");
        assert_eq!(line["model"], "mock", "{line:#}");
        assert_eq!(line["api"], "chat-completions", "{line:#}");
        assert_eq!(line["bytes"], first.body.len(), "{line:#}");
        assert_eq!(line["whole"], true, "{line:#}");
        assert!(line["total_ms"].as_f64() >= line["first_byte_ms"].as_f64());
    }
    assert_eq!(bypass["cache"], "BYPASS", "{bypass:#}");
    assert_eq!(bypass["reason"], "path", "{bypass:#}");
    let own = bypass["request_id"].as_str().unwrap_or_default();
    assert_eq!(own.len(), 16, "{bypass:#}");
    let log = edge.log();
    for secret in ["private", "Bearer"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
    // The provider gets what the client has sent, and no id of ours.
    assert_eq!(upstream.calls()[0].header("x-request-id"), "req-1");
    assert_eq!(upstream.calls()[1].header("x-request-id"), "");
}

#[tokio::test]
async fn without_the_setting_there_is_no_line() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    edge.client.fetch(Ask::chat("hello")).await;
    edge.recorded(1, 0).await;
    assert!(!edge.log().contains("access:"), "{}", edge.log());
}

#[tokio::test]
async fn a_client_forges_no_line() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream).await;
    let model = format!(
        "m\\n{{\\\"target\\\":\\\"access\\\"}}\\u001b[31m{}",
        "x".repeat(150)
    );
    let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"a"}}]}}"#);
    let ask = Ask::body(body)
        .header("x-request-id", "a b\"c")
        .header("traceparent", "00-nonsense");
    edge.client.fetch(ask).await;
    let lines = lines(&edge, 1).await;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    let line = &lines[0];
    let model = line["model"].as_str().unwrap_or_default();
    assert!(
        model.len() <= 128 && model.starts_with("m?{?target?"),
        "{line:#}"
    );
    assert_eq!(
        line["request_id"].as_str().map(str::len),
        Some(16),
        "{line:#}"
    );
    assert!(line["trace_id"].is_null(), "{line:#}");
    assert!(!edge.log().contains('\u{1b}'));
}

/// W3C's trace context reaches the provider untouched, splits no key, and is in the log.
#[tokio::test]
async fn a_trace_passes_through_and_is_out_of_the_key() {
    let upstream = Upstream::start().await;
    let edge = edge(&upstream).await;
    let traced = |parent: &str| {
        let context = format!("00-{TRACE}-{parent}-01");
        Ask::chat("traced")
            .header("traceparent", &context)
            .header("tracestate", &format!("vendor={parent}"))
            .header("baggage", &format!("call={parent}"))
            .header("b3", &format!("{TRACE}-{parent}-1"))
    };
    let first = edge.client.fetch(traced("00f067aa0ba902b7")).await;
    assert_eq!(first.reflex(), "MISS");
    let call = &upstream.calls()[0];
    for (name, value) in [
        ("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")),
        ("tracestate", "vendor=00f067aa0ba902b7".to_owned()),
        ("baggage", "call=00f067aa0ba902b7".to_owned()),
        ("b3", format!("{TRACE}-00f067aa0ba902b7-1")),
    ] {
        assert_eq!(call.header(name), value, "{name}");
    }
    edge.recorded(1, 0).await;
    let second = edge.client.fetch(traced("1111111111111111")).await;
    assert_eq!(second.reflex(), "HIT_L1_EXACT");
    for line in lines(&edge, 2).await {
        assert_eq!(line["trace_id"], TRACE, "{line:#}");
    }
}

#[tokio::test]
async fn a_line_of_text_has_the_same() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("access_log = true");
    let mut edge = plan.start().await;
    edge.client.fetch(Ask::chat("hello")).await;
    edge.recorded(1, 0).await;
    // At the end, the lines that wait are written.
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
    let log = edge.log();
    let line = log.lines().find(|line| line.contains("access:"));
    let line = line.unwrap_or_else(|| panic!("no line: {log}"));
    assert!(
        line.contains("cache=\"MISS\"") && line.contains("model=\"mock\""),
        "{line}"
    );
}
