//! The savings of a hit: tokens in a header, tokens and money in the metrics.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::metrics::Metrics;
use reflex_tests::upstream::Upstream;
use serde_json::json;

fn check(metrics: &Metrics, name: &str, labels: &[(&str, &str)], expected: f64) {
    let counted = metrics.sum(name, labels);
    let difference = (counted - expected).abs();
    assert!(
        difference < 1e-9,
        "{name} {labels:?} is {counted}: {metrics:#?}"
    );
}

/// theopenco/llmgateway#2518, tensorzero/tensorzero#5267: hits showed a cost, and their savings
/// were unknown.
#[tokio::test]
async fn a_hit_tells_its_tokens_and_the_metrics_the_sum_in_money_too() {
    let upstream = Upstream::start().await;
    let prices = r#"
        [[price]]
        model = "mock*"
        input_per_million = 1000000
        output_per_million = 2000000
        [[price]]
        model = "*"
        input_per_million = 7
        output_per_million = 7
    "#;
    let edge = Plan::new(&upstream.url()).config(prices).start().await;
    let with_usage = json!({
        "model": "mock",
        "messages": [{"role": "user", "content": "what did it cost?"}],
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    let message = json!({
        "model": "mock-2",
        "max_tokens": 99,
        "messages": [{"role": "user", "content": "what did it cost?"}],
    });
    let (mut input, mut output) = (0, 0);
    for ask in [
        Ask::chat("what did it cost?"),
        Ask::body(with_usage.to_string()),
        Ask::to("/v1/messages", &message),
    ] {
        let first = edge.client.fetch(ask.clone()).await;
        assert_eq!(first.header("x-reflex-saved-tokens"), "", "a miss");
        let hit = edge.client.fetch(ask).await;
        assert_eq!(hit.body, first.body, "usage stays as the provider sent it");
        // The last object that counts tokens, whichever names it has.
        let text = String::from_utf8_lossy(&hit.body).into_owned();
        let number = |names: [&str; 2]| {
            let after = names.iter().find_map(|name| text.rsplit_once(*name));
            let digits = after.expect("a count of tokens").1;
            let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().expect("a number")
        };
        let told = (
            number(["\"prompt_tokens\":", "\"input_tokens\":"]),
            number(["\"completion_tokens\":", "\"output_tokens\":"]),
        );
        assert_eq!(
            hit.header("x-reflex-saved-tokens"),
            (told.0 + told.1).to_string(),
            "{text}"
        );
        input += told.0;
        output += told.1;
    }
    let (input, output) = (input as f64, output as f64);
    let metrics = edge.metrics().await;
    check(
        &metrics,
        "reflex_saved_tokens_total",
        &[("kind", "input")],
        input,
    );
    check(
        &metrics,
        "reflex_saved_tokens_total",
        &[("kind", "output")],
        output,
    );
    let money = "reflex_saved_money_total";
    check(&metrics, money, &[("model", "mock*")], input + 2.0 * output);
    check(&metrics, money, &[("model", "*")], 0.0);
}

#[tokio::test]
async fn an_answer_that_does_not_tell_its_cost_saves_nothing_known() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = edge.client.fetch(Ask::stream("untold")).await;
        assert_eq!(answer.reflex(), status);
        assert_eq!(answer.header("x-reflex-saved-tokens"), "");
    }
    let metrics = edge.metrics().await;
    check(&metrics, "reflex_saved_tokens_total", &[], 0.0);
}
