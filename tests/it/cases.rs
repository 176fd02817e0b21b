//! Failures of other caches and gateways, as their users reported them in public: here they
//! cannot happen. Each test names its case and its report; `docs/cases.md` lists them all,
//! with those whose tests are beside the tests of their subject.

use std::collections::HashSet;

use reflex_tests::behaviour::Behaviour;
use reflex_tests::client::{Answer, Ask};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

use crate::apis::asks;
use crate::sdk::Script;

/// The same request of every API with another credential, or with none.
fn credential(ask: Ask, name: &str, value: &str) -> Ask {
    ask.key(None).header(name, value)
}

async fn fetch(edge: &Edge, ask: Ask, status: &str) -> Answer {
    let answer = edge.client.fetch(ask).await;
    assert_eq!(
        (answer.status.as_u16(), answer.reflex()),
        (200, status),
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    answer
}

/// The official client for Python asks what differs in one thing, and again; the provider is
/// called once for each, with what the client asked for.
async fn check_differences(kind: &str) -> Vec<Value> {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut script = Script::start_with("parameters.py", &edge.url, &[kind]);
    let asked = script.line().await;
    script.ends().await;
    assert_eq!(asked, Some(upstream.call_count().to_string()), "{kind}");
    let calls = upstream.calls();
    let bodies: Vec<Value> = calls
        .iter()
        .map(|call| serde_json::from_slice(&call.body).expect("JSON"))
        .collect();
    let distinct: HashSet<String> = bodies.iter().map(Value::to_string).collect();
    assert_eq!(distinct.len(), bodies.len(), "{kind}");
    bodies
}

/// BerriAI/litellm#29955: one team received another team's answer, and the key that they shared
/// stood in a header.
#[tokio::test]
async fn no_team_receives_another_teams_answer_and_no_header_shows_the_key() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for (api, ask) in asks("Is it ours?") {
        let [red, blue] = ["red", "blue"].map(|team| ask.clone().key(Some(team)));
        let first = fetch(&edge, red.clone(), "MISS").await;
        let other = fetch(&edge, blue.clone(), "MISS").await;
        assert_ne!(first.body, other.body, "{api}");
        let hits = [
            (fetch(&edge, red, "HIT_L1_EXACT").await, &first),
            (fetch(&edge, blue, "HIT_L1_EXACT").await, &other),
        ];
        for (hit, own) in &hits {
            assert_eq!(hit.body, own.body, "{api}");
        }
        // A key is 32 bytes. Shown in any usual way, even cut in half, it is a long word.
        for answer in [&first, &hits[0].0, &hits[1].0] {
            for (name, value) in &answer.headers {
                let value = value.to_str().expect("text");
                let longest = value
                    .split(|it: char| !it.is_ascii_alphanumeric())
                    .map(str::len)
                    .max();
                assert!(longest < Some(20), "{api}: {name}: {value}");
            }
        }
    }
}

/// vllm-project/semantic-router#1448, diegosouzapw/OmniRoute#3740: the caller was not in the key.
#[tokio::test]
async fn whichever_way_a_caller_shows_its_key_it_is_in_the_cache_key() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut bodies = HashSet::new();
    for status in ["MISS", "HIT_L1_EXACT"] {
        for (name, values) in [
            ("authorization", ["Bearer one", "Bearer two"]),
            ("x-api-key", ["one", "two"]),
            ("api-key", ["one", "two"]),
            ("x-goog-api-key", ["one", "two"]),
        ] {
            for value in values {
                let ask = credential(Ask::chat("Who am I?"), name, value);
                bodies.insert(fetch(&edge, ask, status).await.body);
            }
        }
        let contents = json!({"contents": [{"parts": [{"text": "Who am I?"}]}]});
        for key in ["one", "two"] {
            let path = format!("/v1beta/models/mock:generateContent?key={key}");
            let ask = Ask::to(&path, &contents).key(None);
            bodies.insert(fetch(&edge, ask, status).await.body);
        }
        assert_eq!(bodies.len(), 10);
    }
    assert_eq!(upstream.call_count(), 10);
}

/// BerriAI/litellm#894, Continuum-AI-Corp/OrcaRouter-Lite#84: `logit_bias`, `max_tokens`, `stop`
/// and `n` were not in the key.
#[tokio::test]
async fn logit_bias_max_tokens_stop_and_n_are_in_the_key() {
    check_differences("sampling").await;
}

/// BerriAI/litellm#42400: parameters of single providers were dropped silently.
#[tokio::test]
async fn parameters_of_single_providers_are_in_the_key_and_reach_them() {
    let bodies = check_differences("of_providers").await;
    for name in ["top_k", "enable_thinking", "chat_template_kwargs"] {
        let arrived = bodies.iter().any(|body| !body[name].is_null());
        assert!(arrived, "{name} was dropped");
    }
}

/// lunargate-ai/gateway#2: `response_format`, `seed` and `reasoning_effort` were not in the key,
/// nor was `previous_response_id`: a request that builds on it is not cached at all.
#[tokio::test]
async fn response_format_seed_reasoning_effort_and_previous_response_id_are_not_missed() {
    check_differences("format").await;
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for previous in ["resp_1", "resp_2"] {
        let body = json!({"model": "mock", "input": "And then?", "store": false,
            "previous_response_id": previous});
        for _ in 0..2 {
            fetch(&edge, Ask::to("/v1/responses", &body), "BYPASS").await;
        }
    }
    assert_eq!(upstream.call_count(), 4);
}

/// NadirRouter/NadirClaw#90: tools were not in the key, and messages lost their `tool_call_id`.
#[tokio::test]
async fn tools_are_in_the_key_and_messages_keep_their_tool_call_id() {
    let bodies = check_differences("tools").await;
    let ids: HashSet<_> = bodies
        .iter()
        .filter_map(|body| body["messages"][2]["tool_call_id"].as_str())
        .collect();
    assert_eq!(ids, HashSet::from(["call_1", "call_2"]));
}

/// diegosouzapw/OmniRoute#12734, microsoft/autogen#7968: a request for no calls got a replayed call.
#[tokio::test]
async fn tool_choice_none_never_replays_a_call() {
    check_differences("tool_choice").await;
}

/// deeppavlov/AutoIntent#334: the model was not in the key.
#[tokio::test]
async fn the_model_is_in_the_key() {
    check_differences("model").await;
}

/// apache/apisix#13578: the provider that really answers was not in the key.
#[tokio::test]
async fn the_effective_upstream_is_in_the_key() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    for (upstream, status) in [(&one, "MISS"), (&other, "MISS"), (&one, "HIT_L1_EXACT")] {
        let plan = Plan::new(&upstream.url()).data_dir(&data);
        let mut edge = plan.start().await;
        fetch(&edge, Ask::chat("Who answers?"), status).await;
        edge.terminate();
        edge.ended().await;
    }
    assert_eq!((one.call_count(), other.call_count()), (1, 1));
}

/// apache/apisix#13654, mastra-ai/mastra#20655: images were not in the key, and a question about
/// an image got the answer to its text alone.
#[tokio::test]
async fn a_prompt_with_an_image_never_gets_the_answer_of_its_text_alone() {
    check_differences("pictures").await;
}

/// apache/apisix#13887: neither path nor query were in the key, so images and chats collided.
#[tokio::test]
async fn paths_and_queries_never_collide() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let body = json!({"model": "mock", "input": "A house.", "store": false,
        "messages": [{"role": "user", "content": "A house."}]});
    let paths = [
        "/v1/chat/completions",
        "/v1/chat/completions?api-version=1",
        "/v1/chat/completions?api-version=2",
        "/v1/responses",
        "/v1/embeddings",
    ];
    let mut bodies = HashSet::new();
    for status in ["MISS", "HIT_L1_EXACT"] {
        for path in paths {
            bodies.insert(fetch(&edge, Ask::to(path, &body), status).await.body);
            // No image API is known here, so nothing is cached; the mock has none at all.
            let images = Ask::to("/v1/images/generations", &body);
            let images = edge.client.fetch(images).await;
            assert_eq!((images.status.as_u16(), images.reflex()), (404, "BYPASS"));
        }
        assert_eq!(bodies.len(), paths.len());
    }
}

/// zilliztech/GPTCache#8, radicalbit/radicalbit-ai-gateway#29: only the last message was in the
/// key, so an agent called the same tool forever.
#[tokio::test]
async fn all_messages_are_in_the_key_and_an_agent_gets_on() {
    check_differences("conversation").await;
}

/// lingyuins/octopus#235: neither the system prompt nor tools were in the key.
#[tokio::test]
async fn the_system_prompt_is_in_the_key() {
    check_differences("system").await;
}

/// mastra-ai/mastra#17900: two prompts had one short hash, and one got the other's answer.
#[tokio::test]
async fn prompts_that_collide_in_a_short_hash_are_two_answers() {
    check_differences("short_hashes").await;
}

/// vllm-project/semantic-router#2030: while a request was running, its placeholder stood before
/// the entry, and no request was a hit.
#[tokio::test]
async fn a_running_request_does_not_shadow_the_entry() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = || Ask::stream("Still there?").header("x-mock", "gated");
    let first = edge.client.send(ask()).await;
    upstream.release(100);
    let first = first.whole().await;
    upstream.forget_permits();
    // A refresh that has begun, and waits for its provider.
    let refresh = ask().header("cache-control", "no-cache");
    let running = edge.client.send(refresh).await;
    upstream.called(2).await;
    for _ in 0..3 {
        assert_eq!(fetch(&edge, ask(), "HIT_L1_EXACT").await.body, first.body);
    }
    upstream.release_all();
    let fresh = running.whole().await;
    assert_ne!(fresh.body, first.body);
    assert_eq!(fetch(&edge, ask(), "HIT_L1_EXACT").await.body, fresh.body);
}

/// BerriAI/litellm#32068 and #42244: a hit had lost `reasoning_content`, or the details of usage.
#[tokio::test]
async fn reasoning_content_and_usage_details_are_there_on_a_hit() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("thoughts.py", &edge.url).ends().await;
    assert_eq!(upstream.call_count(), 2);
}

/// vllm-project/semantic-router#913 and #378, gumieri/nenya#18: streams that were none, JSON for a
/// client that asked for a stream, and the reverse.
#[tokio::test]
async fn a_request_for_json_gets_json_and_one_for_a_stream_gets_valid_events() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let mut kinds = HashSet::new();
    for status in ["MISS", "HIT_L1_EXACT"] {
        for (api, ask) in asks("In which form?") {
            let sent = String::from_utf8_lossy(ask.sent()).into_owned();
            let wants_events = sent.contains("\"stream\":true") || ask.path().ends_with("alt=sse");
            let answer = fetch(&edge, ask, status).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let kind = answer.header("content-type");
            if wants_events {
                assert!(kind.starts_with("text/event-stream"), "{api}: {kind}");
                let frames = text.strip_suffix("\n\n").expect("a frame that ends");
                for data in frames.split("\n\n") {
                    let data = data.rsplit_once("data: ").expect("data").1;
                    let is_json = serde_json::from_str::<Value>(data).is_ok();
                    assert!(is_json || data == "[DONE]", "{api}: {data}");
                }
            } else {
                assert_eq!(kind, "application/json", "{api}");
                answer.json();
            }
            kinds.insert((api, wants_events));
        }
    }
    assert!(kinds.len() > 6, "{kinds:?}");
}

/// Higress' ai-cache, read from its code: an answer that ends in a double quote came back broken.
#[tokio::test]
async fn an_answer_that_ends_in_a_double_quote_comes_back_whole() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    for prompt in ["the end", "\\", "\"", "quoted \"twice\"\""] {
        let end = format!("You asked: \"{prompt}\"");
        for status in ["MISS", "HIT_L1_EXACT"] {
            let whole = fetch(&edge, Ask::chat(prompt), status).await.json();
            let said = whole["choices"][0]["message"]["content"].as_str();
            assert!(said.is_some_and(|said| said.ends_with(&end)), "{said:?}");
            let stream = fetch(&edge, Ask::stream(prompt), status).await;
            let stream = String::from_utf8_lossy(&stream.body).into_owned();
            let said: String = stream
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
                .filter_map(|chunk| {
                    let content = &chunk["choices"][0]["delta"]["content"];
                    content.as_str().map(str::to_owned)
                })
                .collect();
            assert!(said.ends_with(&end), "{said}");
        }
    }
}

/// Aharshi3614/Devwhisper#293: the text of an error was cached past the outage.
#[tokio::test]
async fn an_error_is_not_replayed_past_the_outage() {
    for outage in [
        Behaviour::Error,
        Behaviour::Status(500),
        Behaviour::Status(429),
    ] {
        let upstream = Upstream::start_with(outage).await;
        let edge = Edge::before(&upstream).await;
        let all = asks("Are you there?");
        for (_, ask) in &all {
            assert_eq!(edge.client.fetch(ask.clone()).await.reflex(), "MISS");
        }
        upstream.behave(Behaviour::Answer);
        for (api, ask) in &all {
            let well = fetch(&edge, ask.clone(), "MISS").await;
            let text = String::from_utf8_lossy(&well.body).into_owned();
            assert!(!text.contains("overloaded"), "{api}: {text}");
            let again = fetch(&edge, ask.clone(), "HIT_L1_EXACT").await;
            assert_eq!(again.body, well.body, "{api}");
        }
    }
}

/// BerriAI/litellm#41799 and #29284: where part of a batch was cached, vectors and indexes were
/// wrong.
#[tokio::test]
async fn a_batch_of_which_part_is_cached_gets_its_own_vectors_and_indexes() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    Script::start("batches.py", &edge.url).ends().await;
}

/// mnfst/llm-gateway#2329: what was kept grew without bound. Each round brings as much as may be
/// kept at all.
#[tokio::test]
async fn what_is_kept_stays_within_its_bound() {
    const DISK_BYTES_MAX: u64 = 2 << 20;
    let upstream = Upstream::start().await;
    let bounds = format!("disk_bytes_max = {DISK_BYTES_MAX}\nentry_bytes_max = 65536");
    let edge = Plan::new(&upstream.url()).config(&bounds).start().await;
    let mut stored = 0;
    for round in 0..4 {
        for number in 0..DISK_BYTES_MAX / 40_000 {
            let prompt = format!("{round}: {number}");
            let ask = Ask::chat(&prompt).mock("large=40000");
            fetch(&edge, ask, "MISS").await;
            stored += 1;
        }
        edge.recorded(stored, 0).await;
        // Waiting bytes are counted too, and may reach the same bound.
        edge.written().await;
        let on_disk: u64 = std::fs::read_dir(edge.data_dir().join("segments"))
            .expect("a folder of segments")
            .map(|file| {
                file.and_then(|file| file.metadata())
                    .map_or(0, |it| it.len())
            })
            .sum();
        assert!(on_disk <= DISK_BYTES_MAX + (64 << 10), "{on_disk} bytes");
    }
    let entries = edge.health().await["entries"].as_u64();
    assert!(entries < Some(u64::from(stored) / 2), "{entries:?}");
}

/// andreimerfu/pllm#17: a hit skipped the checks of the caller. Here a hit needs the credential
/// that the provider answered, and a credential that the provider refuses is refused.
#[tokio::test]
async fn a_credential_that_the_provider_refuses_gets_no_hit() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let ask = |key: &str| Ask::chat("Let me in.").key(Some(key));
    fetch(&edge, ask("good"), "MISS").await;
    for status in ["status=401", "status=403", "status=402"] {
        for _ in 0..2 {
            let refused = edge.client.fetch(ask("stolen").mock(status)).await;
            assert_eq!(format!("status={}", refused.status.as_u16()), status);
            assert_eq!(refused.reflex(), "MISS");
        }
    }
    fetch(&edge, ask("good"), "HIT_L1_EXACT").await;
    assert_eq!(upstream.call_count(), 7);
}
