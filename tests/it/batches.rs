//! Batches of embeddings: each text is cached for itself, and a batch of which part is known asks
//! the provider only for the rest. If an answer is odd in any way, the client gets the right one.

use http::Method;
use reflex_tests::behaviour::{Behaviour, Oddity};
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::envoy::patient;

pub(crate) const PARTIAL: &str = "reflex; fwd=partial";
pub(crate) const MISS: &str = "reflex; fwd=miss";

pub(crate) fn ask(input: impl Into<Value>) -> Ask {
    let body = json!({"model": "mock", "user": "u", "input": input.into()});
    Ask::to("/v1/embeddings", &body)
}

async fn fetch(edge: &Edge, input: impl Into<Value>) -> Answer {
    edge.client.fetch(ask(input)).await
}

/// The texts that each call of the provider asked for.
pub(crate) fn inputs(upstream: &Upstream) -> Vec<Value> {
    let calls = upstream.calls();
    let input = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("JSON")["input"].clone();
    calls.iter().map(|call| input(&call.body)).collect()
}

/// The vectors of an answer, whose indexes are right.
pub(crate) fn vectors(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let body = answer.json();
    let items = body["data"].as_array().expect("data");
    for (index, item) in items.iter().enumerate() {
        assert_eq!(item["index"], index, "{body}");
        assert_eq!(item["object"], "embedding", "{body}");
    }
    let vectors = items.iter().map(|item| item["embedding"].clone());
    vectors.collect()
}

/// Each vector is that of its text, whichever call made it.
pub(crate) fn check(answer: &Answer, texts: &[&str]) {
    let own = |vector: &Value| [vector[0].clone(), vector[1].clone()];
    let told: Vec<_> = vectors(answer).iter().map(own).collect();
    let mixed = |text: &str, seed: u64| {
        let step = |hash: u64, byte: u8| (hash * 31 + u64::from(byte)) % 999_983;
        json!(text.bytes().fold(seed, step))
    };
    let right: Vec<_> = texts
        .iter()
        .map(|text| [mixed(text, 7), mixed(text, 11)])
        .collect();
    assert_eq!(told, right, "{texts:?}");
}

#[tokio::test]
async fn only_what_is_not_known_is_asked_for_and_the_rest_of_the_request_is_as_it_was() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .config("ignored_fields = [\"user\"]\n")
        .start()
        .await;
    let first = fetch(&edge, json!(["a", "b b"])).await;
    assert_eq!(first.header("cache-status"), MISS);
    let texts = ["c", "b b", "d d d", "c", "a"];
    let around =
        |input: &str| format!("{{ \"input\": {input},\n \"user\":\"v\",\"model\": \"mock\"}}");
    let body = around(r#"["c","b b" , "d \u0064 d", "c", "a"]"#);
    let partial = Ask::new(Method::POST, "/v1/embeddings", body)
        .header("authorization", "Bearer test")
        .header("content-type", "application/json");
    // Another header is another key, for the texts too.
    let other = partial.clone().header("x-client", "counts");
    assert_eq!(edge.client.fetch(other).await.header("cache-status"), MISS);

    let partial = edge.client.fetch(partial).await;
    assert_eq!(partial.header("cache-status"), PARTIAL);
    assert_eq!(partial.reflex(), "MISS");
    check(&partial, &texts);
    let call = upstream.calls().pop().expect("a call");
    let sent = around(r#"["c","d \u0064 d"]"#);
    assert_eq!(call.body, sent);
    assert_eq!(call.header("content-length"), sent.len().to_string());
    assert_eq!(call.header("content-type"), "application/json");
    assert_eq!(call.header("authorization"), "Bearer test");
    assert_eq!(call.header("accept-encoding"), "identity");
    assert_eq!(call.path, "/v1/embeddings");
    // The answer has the head of the provider's answer.
    assert_eq!(partial.header("x-request-id"), "req_3");
    assert_eq!(partial.header("content-type"), "application/json");
}

#[tokio::test]
async fn a_text_alone_and_a_text_in_a_batch_are_one_entry() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let alone = fetch(&edge, "alone").await;
    for input in [json!(["alone"]), json!("alone"), json!(["alone", "alone"])] {
        let count = if input.is_string() {
            1
        } else {
            input.as_array().map_or(0, Vec::len)
        };
        let hit = fetch(&edge, input).await;
        assert_eq!(hit.reflex(), "HIT_L1_EXACT");
        assert_eq!(vectors(&hit), vec![vectors(&alone)[0].clone(); count]);
    }
    fetch(&edge, json!(["x", "y"])).await;
    let edge = edge.restart().await;
    let hit = fetch(&edge, "y").await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    check(&hit, &["y"]);
    let hit = fetch(&edge, json!(["y", "alone", "x"])).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    check(&hit, &["y", "alone", "x"]);
    assert_eq!(inputs(&upstream), [json!("alone"), json!(["x", "y"])]);
}

#[tokio::test]
async fn a_batch_that_is_known_is_a_hit_with_the_usage_that_the_provider_told() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let texts = json!(["one", "two of them", "and a third one, longer"]);
    let first = fetch(&edge, texts.clone()).await;
    let hit = fetch(&edge, texts).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert!(hit.header("cache-status").starts_with("reflex; hit; ttl="));
    assert!(hit.header("age").parse::<u64>().is_ok());
    assert_eq!(hit.header("openai-version"), "2020-10-01");
    assert_eq!(hit.header("x-request-id"), "");
    assert_eq!(hit.body, first.body);
    let total = first.json()["usage"]["total_tokens"].to_string();
    assert_eq!(hit.header("x-reflex-saved-tokens"), total);

    // The known part counts with its cost when it was new, as far as stated, the rest with its own.
    let partial = fetch(&edge, json!(["two of them", "four words are new"])).await;
    let saved: u64 = partial
        .header("x-reflex-saved-tokens")
        .parse()
        .expect("a number");
    let usage = partial.json()["usage"].clone();
    let alone = fetch(&edge, "four words are new").await.json()["usage"].clone();
    let number = |usage: &Value| usage["total_tokens"].as_u64().expect("a number");
    assert!(saved > 0);
    assert_eq!(number(&usage), saved + number(&alone));
    assert_eq!(usage["prompt_tokens"], usage["total_tokens"]);

    let metrics = edge.metrics().await;
    let counted = |from| metrics.sum("reflex_batch_texts_total", &[("from", from)]);
    assert!((counted("cache") - 4.0).abs() < 0.5, "{metrics:#?}");
    assert!((counted("provider") - 4.0).abs() < 0.5, "{metrics:#?}");
    let partial = metrics.sum("reflex_requests_total", &[("detail", "partial")]);
    assert!((partial - 1.0).abs() < 0.5, "{metrics:#?}");
}

/// If the provider's answer to the rest does not fit the known part, the whole batch is asked for.
#[tokio::test]
async fn an_odd_answer_to_the_rest_has_the_whole_batch_asked_for() {
    for oddity in [
        Oddity::Short,
        Oddity::Shuffled,
        Oddity::Twice,
        Oddity::Field,
        Oddity::Model,
        Oddity::Length,
    ] {
        let upstream = Upstream::start().await;
        let edge = Edge::before(&upstream).await;
        fetch(&edge, json!(["a", "b"])).await;
        upstream.behave(Behaviour::Odd(oddity));
        let whole = json!(["n", "a", "m", "b"]);
        let answer = fetch(&edge, whole.clone()).await;
        assert_eq!(answer.header("cache-status"), MISS, "{oddity:?}");
        let calls = [json!(["a", "b"]), json!(["n", "m"]), whole.clone()];
        assert_eq!(inputs(&upstream), calls, "{oddity:?}");
        // The provider's answer, unchanged.
        let direct = Client::new(&upstream.url()).fetch(ask(whole.clone())).await;
        let without_call = |answer: &Answer| {
            let mut body = answer.json();
            body["tag"] = Value::Null;
            for item in body["data"].as_array_mut().expect("data") {
                item["embedding"][2] = Value::Null;
            }
            body
        };
        assert_eq!(without_call(&answer), without_call(&direct), "{oddity:?}");
        // No part of an odd answer is stored for a text.
        upstream.behave(Behaviour::Answer);
        for (texts, input) in [(&["n"][..], json!("n")), (&["m", "a"], json!(["m", "a"]))] {
            check(&fetch(&edge, input).await, texts);
        }
    }
}

/// If a whole answer has an unknown field, it is one entry, as it came.
#[tokio::test]
async fn an_answer_of_an_unknown_shape_is_one_entry() {
    let upstream = Upstream::start_with(Behaviour::Odd(Oddity::Field)).await;
    let edge = Edge::before(&upstream).await;
    let first = fetch(&edge, json!(["a", "b"])).await;
    let hit = fetch(&edge, json!(["a", "b"])).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &first.body));
    assert_eq!(fetch(&edge, "a").await.reflex(), "MISS");
    // It is refreshed by one that can be taken apart.
    upstream.behave(Behaviour::Answer);
    let anew = ask(json!(["a", "b"])).header("cache-control", "no-cache");
    let anew = edge.client.fetch(anew).await;
    assert_eq!(anew.header("cache-status"), "reflex; fwd=request");
    let hit = fetch(&edge, json!(["a", "b"])).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &anew.body));
}

#[tokio::test]
async fn inputs_that_are_no_texts_are_one_entry() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for input in [json!([[1, 2], [3]]), json!([7, 8]), json!(["a", [1]])] {
        let first = fetch(&edge, input.clone()).await;
        assert_eq!(first.status, 200);
        let hit = fetch(&edge, input).await;
        assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &first.body));
    }
    let metrics = edge.metrics().await;
    assert!(metrics.sum("reflex_batch_texts_total", &[]) < 0.5);
}

#[tokio::test]
async fn errors_of_the_provider_about_the_rest_reach_the_client() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    fetch(&edge, json!(["a", "b"])).await;
    // The provider fails: the cached part does not change that.
    for status in [500, 429, 503] {
        upstream.behave(Behaviour::Status(status));
        let calls = upstream.call_count();
        let answer = fetch(&edge, json!(["new", "a"])).await;
        assert_eq!(answer.status, status);
        assert_eq!(inputs(&upstream)[calls..], [json!(["new"])]);
        let direct = Client::new(&upstream.url()).fetch(ask("x")).await;
        assert_eq!(answer.body, direct.body);
    }
    // The provider refuses, perhaps with places of an input that the client has not sent.
    let calls = upstream.call_count();
    upstream.behave(Behaviour::Status(400));
    let answer = fetch(&edge, json!(["new", "a"])).await;
    assert_eq!(answer.status, 400);
    let asked = &inputs(&upstream)[calls..];
    assert_eq!(asked, [json!(["new"]), json!(["new", "a"])]);
    // An error in a good answer, and one that cannot be read.
    for behaviour in [Behaviour::Error, Behaviour::Gzip] {
        upstream.behave(behaviour);
        let calls = upstream.call_count();
        let answer = fetch(&edge, json!(["new", "a"])).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("cache-status"), MISS);
        assert_eq!(
            inputs(&upstream)[calls..],
            [json!(["new"]), json!(["new", "a"])]
        );
    }
    upstream.behave(Behaviour::Answer);
    let answer = fetch(&edge, json!(["new", "a"])).await;
    assert_eq!(answer.header("cache-status"), PARTIAL);
    check(&answer, &["new", "a"]);
    upstream.stop().await;
    assert_eq!(fetch(&edge, json!(["newer", "a"])).await.status, 502);
    assert_eq!(
        fetch(&edge, json!(["new", "a"])).await.reflex(),
        "HIT_L1_EXACT"
    );
}

/// 64 MiB, by the length of what is known: the answer to the whole would not be taken apart either.
#[tokio::test]
async fn a_rest_that_would_be_too_long_to_keep_is_not_asked_for_by_itself() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    upstream.behave(Behaviour::Large(400_000));
    let long = fetch(&edge, json!(["a"])).await;
    assert!(long.body.len() > 4_300_000, "{}", long.body.len());
    edge.recorded(1, 0).await;
    upstream.behave(Behaviour::Answer);
    let many: Vec<String> = (0..16).map(|text| format!("text {text}")).collect();
    let texts = [&["a".to_owned()], &many[..]].concat();
    let answer = fetch(&edge, texts.clone()).await;
    assert_eq!(answer.header("cache-status"), MISS);
    check(
        &answer,
        &texts.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(inputs(&upstream), [json!(["a"]), json!(texts)]);
}

#[tokio::test]
async fn what_a_client_wants_of_the_cache_goes_for_each_text() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    fetch(&edge, json!(["a", "b"])).await;
    let with = |input: Value, name: &str, value: &str| {
        let ask = ask(input).header(name, value);
        edge.client.fetch(ask)
    };
    let control = "cache-control";
    let absent = with(json!(["a", "new"]), control, "only-if-cached").await;
    assert_eq!(absent.status, 504);
    let hit = with(json!(["b", "a"]), control, "only-if-cached").await;
    check(&hit, &["b", "a"]);
    assert_eq!(upstream.call_count(), 1);

    let bypass = with(json!(["b", "a"]), control, "no-store").await;
    assert_eq!(bypass.reflex(), "BYPASS");
    assert_eq!(upstream.call_count(), 2);
    // Asks for all anew, and refreshes each.
    let anew = with(json!(["b", "a"]), control, "no-cache").await;
    assert_eq!(anew.header("cache-status"), "reflex; fwd=request");
    assert_eq!(upstream.call_count(), 3);
    assert_eq!(vectors(&fetch(&edge, "a").await)[0][2], 3);
    // No entry lives that long.
    let fresh = with(json!(["a", "b"]), control, "min-fresh=999999").await;
    assert_eq!(fresh.header("cache-status"), MISS);
    assert_eq!(upstream.call_count(), 4);

    let unkept = with(json!(["a", "unkept"]), "x-reflex-ttl", "0").await;
    assert_eq!(unkept.header("cache-status"), PARTIAL);
    check(&unkept, &["a", "unkept"]);
    assert_eq!(
        upstream
            .calls()
            .pop()
            .expect("a call")
            .header("x-reflex-ttl"),
        ""
    );
    assert_eq!(fetch(&edge, "unkept").await.reflex(), "MISS");
}

#[tokio::test]
async fn each_credential_has_its_own_texts_and_a_group_has_them_together() {
    let upstream = Upstream::start().await;
    let config = r#"
        tenant_header = "x-team"
        [[group]]
        name = "both"
        trusted = ["red", "blue"]
    "#;
    let edge = Plan::new(&upstream.url()).config(config).start().await;
    let team = |name: &str, input: Value| edge.client.fetch(ask(input).header("x-team", name));
    team("red", json!(["a", "b"])).await;
    let partial = team("blue", json!(["b", "c"])).await;
    assert_eq!(partial.header("cache-status"), PARTIAL);
    check(&partial, &["b", "c"]);
    assert_eq!(upstream.calls()[1].header("x-team"), "");
    let other = team("green", json!(["b", "c"])).await;
    assert_eq!(other.header("cache-status"), MISS);
    let other = edge
        .client
        .fetch(ask(json!(["b", "c"])).key(Some("other")))
        .await;
    assert_eq!(other.header("cache-status"), MISS);
}

#[tokio::test]
async fn samples_are_of_the_whole_batch() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).config("samples = 2");
    let edge = plan.start().await;
    for status in ["MISS", "MISS", "HIT_L1_EXACT", "HIT_L1_EXACT"] {
        assert_eq!(fetch(&edge, json!(["a", "b"])).await.reflex(), status);
    }
    assert_eq!(fetch(&edge, json!(["b"])).await.reflex(), "MISS");
}

#[tokio::test]
async fn a_herd_with_one_batch_of_which_part_is_known_is_one_call() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    // The header counts, so that what is known must be known with it.
    let one = |input: Value| ask(input).header("x-hold", "1");
    upstream.release(1);
    edge.client.fetch(one(json!(["a", "b"]))).await;
    let whole = json!(["n", "a", "m"]);
    let herd: Vec<_> = (0..10)
        .map(|_| {
            let (client, ask) = (edge.client.clone(), one(whole.clone()));
            tokio::spawn(async move { client.fetch(ask).await })
        })
        .collect();
    upstream.called(2).await;
    edge.until("nine wait", |metrics| {
        (metrics.sum("reflex_fill_waiters", &[]) - 9.0).abs() < 0.5
    })
    .await;
    upstream.release(1);
    let mut partial = 0;
    for answer in herd {
        let answer = answer.await.expect("an answer");
        check(&answer, &["n", "a", "m"]);
        match answer.header("cache-status") {
            PARTIAL => partial += 1,
            _ => assert_eq!(answer.reflex(), "HIT_L1_EXACT"),
        }
    }
    assert_eq!((partial, upstream.call_count()), (1, 2));
}

/// As many texts as OpenAI takes at once, twice.
#[tokio::test]
async fn the_longest_batch_is_taken_apart_in_time() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let texts: Vec<String> = (0..2048)
        .map(|text| format!("the text number {text}"))
        .collect();
    let first = fetch(&edge, texts.clone()).await;
    assert_eq!(first.header("cache-status"), MISS);
    edge.recorded(1, 0).await;
    let hit = fetch(&edge, texts.clone()).await;
    assert_eq!((hit.reflex(), &hit.body), ("HIT_L1_EXACT", &first.body));
    let half: Vec<String> = texts
        .iter()
        .step_by(2)
        .cloned()
        .chain(["new".into()])
        .collect();
    let partial = fetch(&edge, half.clone()).await;
    assert_eq!(partial.header("cache-status"), PARTIAL);
    check(
        &partial,
        &half.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert_eq!(inputs(&upstream).last(), Some(&json!(["new"])));
}

/// An answer that `serve` has stored for a text is the answer to a request for that text, through
/// Envoy too; there a batch is one entry.
#[tokio::test]
async fn envoy_finds_the_texts_of_a_batch() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).edge_socket(true).start().await;
    let envoy = patient(&upstream, &edge).start().await;
    fetch(&edge, json!(["a", "b"])).await;
    let through = Client::new(&envoy.url);
    let hit = through.fetch(ask("b")).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT", "{hit:?}");
    check(&hit, &["b"]);
    assert_eq!(hit.body, fetch(&edge, "b").await.body);
    assert_eq!(upstream.call_count(), 1);
    let miss = through.fetch(ask(json!(["b", "a"]))).await;
    assert_eq!(miss.reflex(), "MISS");
    assert_eq!(inputs(&upstream).last(), Some(&json!(["b", "a"])));
    check(&miss, &["b", "a"]);
}

/// 2,048 texts, 18 MB: more than an entry may have, though each of its parts is small.
#[tokio::test]
async fn a_full_batch_is_stored_though_it_is_larger_than_an_entry_may_be() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let texts: Vec<String> = (0..2048).map(|number| format!("text {number}")).collect();
    let full = |texts: &[String]| ask(json!(texts)).mock("large=800");
    let first = edge.client.fetch(full(&texts)).await;
    assert_eq!(first.reflex(), "MISS");
    assert!(first.body.len() > 16 << 20, "{}", first.body.len());
    edge.recorded(1, 0).await;
    let again = edge.client.fetch(full(&texts)).await;
    assert_eq!(again.reflex(), "HIT_L1_EXACT");
    assert!(again.body == first.body, "another answer");
    // In another order, and all but a few of them.
    let mut others: Vec<String> = texts.iter().skip(2).rev().cloned().collect();
    others.push("a new one".into());
    let partial = edge.client.fetch(full(&others)).await;
    assert_eq!(partial.header("cache-status"), PARTIAL);
    let spelled: Vec<&str> = others.iter().map(String::as_str).collect();
    check(&partial, &spelled);
    assert_eq!(inputs(&upstream), [json!(texts), json!(["a new one"])]);
    // All of these but one are unknown: the rest is as long as a whole.
    let more: Vec<String> = (0..2047).map(|number| format!("more {number}")).collect();
    let mixed = [&more[..], &texts[..1]].concat();
    let partial = edge.client.fetch(full(&mixed)).await;
    assert_eq!(partial.header("cache-status"), PARTIAL);
    let hit = edge.client.fetch(full(&mixed)).await;
    assert_eq!(hit.reflex(), "HIT_L1_EXACT");
    assert!(hit.body == partial.body, "another answer");
}
