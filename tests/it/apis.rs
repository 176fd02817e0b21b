//! Every API, plain and streamed, is answered from the cache byte for byte; and what gateways put
//! behind the end of a stream neither costs the answer nor changes it.

use reflex_tests::client::Ask;
use reflex_tests::edge::Edge;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

/// A request of each API, and of those that stream, the stream.
pub(crate) fn asks(prompt: &str) -> Vec<(&'static str, Ask)> {
    let mut asks = Vec::new();
    for stream in [false, true] {
        for (name, path, mut body) in [
            ("completions", "/v1/completions", json!({"prompt": prompt})),
            (
                "responses",
                "/v1/responses",
                json!({"input": prompt, "store": false}),
            ),
            ("messages", "/v1/messages", messages(prompt)),
        ] {
            body["model"] = json!("mock");
            body["stream"] = json!(stream);
            asks.push((name, Ask::to(path, &body)));
        }
    }
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": prompt}]}]});
    for path in [
        "/v1beta/models/mock:generateContent",
        "/v1/models/mock:streamGenerateContent?alt=sse",
        "/v1alpha/models/mock:streamGenerateContent",
    ] {
        asks.push(("gemini", Ask::to(path, &contents)));
    }
    let embed = json!({"content": {"parts": [{"text": prompt}]}});
    let embed = Ask::to("/v1beta/models/mock:embedContent", &embed);
    asks.push(("gemini embeddings", embed));
    let embed = json!({"model": "mock", "input": [prompt, "and another"]});
    asks.push(("embeddings", Ask::to("/v1/embeddings", &embed)));
    asks
}

fn messages(prompt: &str) -> Value {
    json!({"max_tokens": 99, "messages": [{"role": "user", "content": prompt}]})
}

/// BerriAI/litellm#25653 and #24579: `/v1/messages` and streamed responses were not cached.
#[tokio::test]
async fn every_api_is_answered_from_the_cache_byte_for_byte() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (index, (api, ask)) in asks("Why is the \"sky\" blue?").into_iter().enumerate() {
        let first = edge.client.fetch(ask.clone()).await;
        assert_eq!(
            (first.status.as_u16(), first.reflex()),
            (200, "MISS"),
            "{api}"
        );
        let again = edge.client.fetch(ask).await;
        assert_eq!(again.reflex(), "HIT_L1_EXACT", "{api}, request {index}");
        assert_eq!(again.body, first.body, "{api}");
        let kind = first.header("content-type");
        assert_eq!(again.header("content-type"), kind, "{api}");
        assert_eq!(upstream.call_count(), index + 1, "{api}");
    }
}

#[tokio::test]
async fn no_api_has_bad_answers_kept() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut calls = 0;
    for behaviour in ["length", "refusal", "error", "status=529"] {
        for (api, ask) in asks(behaviour) {
            // These have neither ends nor refusals, and a bare prompt is never refused.
            let has_none = api.contains("embeddings") || api == "completions";
            if has_none && ["length", "refusal"].contains(&behaviour) {
                continue;
            }
            for _ in 0..2 {
                let answer = edge.client.fetch(ask.clone().mock(behaviour)).await;
                assert_eq!(answer.reflex(), "MISS", "{api}: {behaviour}");
                calls += 1;
                assert_eq!(upstream.call_count(), calls, "{api}: {behaviour}");
                edge.recorded(0, u32::try_from(calls).expect("few calls"))
                    .await;
            }
        }
    }
    assert!(edge.metrics().await.sum("reflex_inserts", &[]) < 0.5);
}

/// A stream, and the event that ends it.
fn streams(prompt: &str) -> [(&'static str, Ask); 2] {
    let responses = json!({"model": "mock", "input": prompt, "store": false, "stream": true});
    let mut message = messages(prompt);
    message["model"] = json!("mock");
    message["stream"] = json!(true);
    [
        ("response.completed", Ask::to("/v1/responses", &responses)),
        ("message_stop", Ask::to("/v1/messages", &message)),
    ]
}

/// Gateways add `[DONE]` to streams that have an end of their own. The recorder took it for a
/// second end and removed the entry: such answers never hit.
#[tokio::test]
async fn done_behind_the_end_of_a_stream_is_part_of_it() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (index, (end, ask)) in streams("and done").into_iter().enumerate() {
        let ask = ask.mock("done");
        let first = edge.client.send(ask.clone()).await;
        upstream.release(100);
        let first = first.whole().await;
        let text = String::from_utf8_lossy(&first.body);
        assert!(
            text.contains(end) && text.ends_with("data: [DONE]\n\n"),
            "{text}"
        );
        let again = edge.client.fetch(ask).await;
        assert_eq!(again.reflex(), "HIT_L1_EXACT", "{end}");
        assert_eq!(again.body, first.body, "{end}");
        assert_eq!(upstream.call_count(), index + 1);
        // Permits left over must not release frames of the next stream early.
        upstream.forget_permits();
    }
}

#[tokio::test]
async fn a_stream_may_be_left_at_its_end_and_its_answer_is_kept() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (index, (end, ask)) in streams("left at its end").into_iter().enumerate() {
        let frames = ends_after(&upstream, ask.clone()).await;
        let ask = ask.mock("done");
        let mut first = edge.client.send(ask.clone()).await;
        upstream.release(frames);
        let text = first.until(end).await;
        drop(first);
        // The provider has not sent `[DONE]`, and need not.
        let again = edge.client.fetch(ask).await;
        assert_eq!(again.reflex(), "HIT_L1_EXACT", "{end}");
        assert!(String::from_utf8_lossy(&again.body).starts_with(&text));
        // Until then it could take one of the frames that are released for the next stream.
        upstream.abandoned(index + 1).await;
    }
}

/// How many frames a stream has until its own end, by asking the provider itself.
async fn ends_after(upstream: &Upstream, ask: Ask) -> usize {
    let client = reflex_tests::client::Client::new(&upstream.url());
    let plain = client.fetch(ask).await;
    let text = String::from_utf8_lossy(&plain.body).into_owned();
    text.matches("\n\n").count()
}

#[tokio::test]
async fn an_event_behind_the_end_of_a_stream_undoes_it() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (index, (end, ask)) in streams("and more").into_iter().enumerate() {
        let ask = ask.mock("more");
        let first = edge.client.send(ask.clone()).await;
        upstream.release(100);
        let first = first.whole().await;
        assert!(first.body.ends_with(b"data: {}\n\n"), "{end}");
        let rejected = u32::try_from(index + 1).expect("a small number");
        edge.recorded(rejected, rejected).await;
        let entries = edge.health().await["entries"].clone();
        assert_eq!(entries, 0, "{end}");
        upstream.forget_permits();
    }
}
