//! The instructions of clients to the cache, and the operator's rules: controls, lives, groups.

use std::process::Stdio;

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{self, Edge, Plan};
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

async fn edge_with(upstream: &Upstream, config: &str) -> Edge {
    Plan::new(&upstream.url()).config(config).start().await
}

async fn check(client: &Client, ask: Ask, status: &str, what: &str) -> String {
    let answer = client.fetch(ask).await;
    assert_eq!(answer.reflex(), status, "{what}");
    answer.header("cache-status").to_owned()
}

fn ttl(cache_status: &str) -> u64 {
    let ttl = cache_status.strip_prefix("reflex; hit; ttl=");
    let ttl = ttl.and_then(|ttl| ttl.parse().ok());
    ttl.unwrap_or_else(|| panic!("no ttl in `{cache_status}`"))
}

#[tokio::test]
async fn the_operator_may_forbid_refreshes() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "client_control = \"no-refresh\"").await;
    let ask = |control: &str| Ask::chat("again?").header("cache-control", control);
    let client = &edge.client;
    check(client, ask("no-cache"), "MISS", "nothing is stored yet").await;
    for control in ["no-cache", "max-age=0", "min-fresh=99999"] {
        check(client, ask(control), "HIT_L1_EXACT", control).await;
    }
    check(client, ask("no-store"), "BYPASS", "no-store").await;
    let absent = Ask::chat("not there").header("cache-control", "only-if-cached");
    assert_eq!(client.fetch(absent).await.status, 504);
}

#[tokio::test]
async fn the_operator_may_ignore_all_that_clients_ask() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "client_control = \"ignore\"").await;
    let client = &edge.client;
    let ask = |control: &str| Ask::chat("at all?").header("cache-control", control);
    check(client, ask("no-store"), "MISS", "no-store").await;
    for control in ["no-store", "no-cache", "max-age=0", "only-if-cached"] {
        check(client, ask(control), "HIT_L1_EXACT", control).await;
    }
    let pragma = Ask::chat("at all?").header("pragma", "no-cache");
    check(client, pragma, "HIT_L1_EXACT", "pragma").await;
    let unkept = || Ask::chat("for how long?").header("x-reflex-ttl", "0");
    check(client, unkept(), "MISS", "the first").await;
    let hit = check(client, unkept(), "HIT_L1_EXACT", "x-reflex-ttl").await;
    assert!(ttl(&hit) > 3000, "{hit}");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn a_client_says_how_long_its_answer_is_kept_and_is_clamped() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "ttl_seconds_max = 600").await;
    let client = &edge.client;
    let ask = |seconds: &str| Ask::chat(seconds).header("x-reflex-ttl", seconds);
    for (seconds, least, most) in [("100", 40, 100), ("99999", 540, 600)] {
        check(client, ask(seconds), "MISS", seconds).await;
        let hit = check(client, ask(seconds), "HIT_L1_EXACT", seconds).await;
        assert!((least..=most).contains(&ttl(&hit)), "{seconds}: {hit}");
    }
    for seconds in ["0", "soon"] {
        for _ in 0..2 {
            let ask = ask(seconds).header("accept-encoding", "gzip");
            check(client, ask, "MISS", seconds).await;
            // The answer is for this client alone, which reads gzip.
            let call = upstream.calls().pop().expect("a call");
            assert_eq!(call.header("accept-encoding"), "gzip", "{seconds}");
        }
    }
    for call in upstream.calls() {
        assert_eq!(call.header("x-reflex-ttl"), "", "it went to the provider");
    }
}

/// BerriAI/litellm#7467 and #6010: a life could not be switched off, and some were −1.
#[tokio::test]
async fn lives_follow_the_rules_and_can_be_switched_off_for_array_input_too() {
    let upstream = Upstream::start().await;
    let rules = r#"
        ttl_seconds = 1000
        [[ttl]]
        path = "*/embeddings"
        seconds = "never"
        [[ttl]]
        model = "live-*"
        seconds = 0
        [[ttl]]
        path = "/v1/chat/completions"
        model = "slow"
        seconds = 9000
    "#;
    let edge = edge_with(&upstream, rules).await;
    let client = &edge.client;
    let chat = |model: &str| {
        let messages = json!([{"role": "user", "content": "by the rules"}]);
        Ask::to(
            "/v1/chat/completions",
            &json!({"model": model, "messages": messages}),
        )
    };
    let embed = || {
        let input = json!(["one", "two"]);
        Ask::to(
            "/v1/embeddings",
            &json!({"model": "live-e", "input": input}),
        )
    };
    check(client, embed(), "MISS", "embeddings").await;
    let hit = check(client, embed(), "HIT_L1_EXACT", "embeddings").await;
    assert_eq!(hit, "reflex; hit");
    for _ in 0..2 {
        check(client, chat("live-1"), "MISS", "live").await;
    }
    for (model, least, most) in [("slow", 8900, 9000), ("other", 900, 1000)] {
        check(client, chat(model), "MISS", model).await;
        let hit = check(client, chat(model), "HIT_L1_EXACT", model).await;
        assert!((least..=most).contains(&ttl(&hit)), "{model}: {hit}");
    }
}

#[tokio::test]
async fn a_temperature_over_the_limit_is_not_cached() {
    let upstream = Upstream::start().await;
    let edge = edge_with(&upstream, "temperature_max = 0.5").await;
    let ask = |temperature: serde_json::Value| {
        let messages = json!([{"role": "user", "content": "how warm?"}]);
        let mut body = json!({"model": "mock", "messages": messages});
        body["temperature"] = temperature;
        Ask::body(body.to_string())
    };
    let warm = check(&edge.client, ask(json!(0.7)), "BYPASS", "0.7").await;
    assert_eq!(warm, r#"reflex; fwd=bypass; detail="temperature""#);
    for temperature in [json!(0.5), json!(0), json!(null)] {
        check(&edge.client, ask(temperature), "MISS", "cool").await;
    }
}

#[tokio::test]
async fn rules_tell_which_api_answers_at_a_path() {
    let upstream = Upstream::start().await;
    let rules = r#"
        [[path]]
        path = "/llm/*/talk"
        api = "chat-completions"
        [[path]]
        path = "/private/*"
        api = "none"
    "#;
    let edge = edge_with(&upstream, rules).await;
    let messages = json!([{"role": "user", "content": "where?"}]);
    let body = json!({"model": "mock", "messages": messages});
    let ask = |path: &str| Ask::to(path, &body);
    let (talk, usual) = ("/llm/v2/talk", "/v1/chat/completions");
    for path in [talk, usual] {
        check(&edge.client, ask(path), "MISS", path).await;
        check(&edge.client, ask(path), "HIT_L1_EXACT", path).await;
    }
    for _ in 0..2 {
        let path = "/private/v1/chat/completions";
        let status = check(&edge.client, ask(path), "BYPASS", path).await;
        assert_eq!(status, r#"reflex; fwd=bypass; detail="path""#);
    }

    // Without the rules the results are the reverse.
    let edge = edge_with(&upstream, "").await;
    check(&edge.client, ask(talk), "BYPASS", talk).await;
    let path = "/private/v1/chat/completions";
    check(&edge.client, ask(path), "MISS", path).await;
}

/// Asks the program itself, as an operator does, and gives the credential by standard input.
async fn tenant_of(header: &str) -> String {
    let mut child = Command::new(edge::binary())
        .arg("tenant")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("reflex-edge can be started");
    let mut stdin = child.stdin.take().expect("its stdin");
    stdin.write_all(header.as_bytes()).await.expect("written");
    drop(stdin);
    let output = within("the end of reflex-edge tenant", child.wait_with_output()).await;
    let output = output.expect("its output");
    assert!(output.status.success());
    String::from_utf8(output.stdout)
        .expect("digits")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn only_the_members_of_a_group_share() {
    let upstream = Upstream::start().await;
    let alice = tenant_of("Authorization: Bearer alice").await;
    let bob = tenant_of("authorization: Bearer bob").await;
    assert_eq!((alice.len(), bob.len()), (64, 64));
    let config = format!("[[group]]\nname = \"us\"\ntenants = [\"{alice}\", \"{bob}\"]");
    let edge = edge_with(&upstream, &config).await;
    let ask = |key: &str| Ask::chat("ours").key(Some(key));
    check(&edge.client, ask("alice"), "MISS", "alice").await;
    check(&edge.client, ask("bob"), "HIT_L1_EXACT", "bob").await;
    check(&edge.client, ask("carol"), "MISS", "carol").await;
    // A further credential makes another tenant; without a credential there is no tenant.
    let more = ask("alice").header("x-api-key", "other");
    check(&edge.client, more, "MISS", "two credentials").await;
    let none = Ask::chat("ours").key(None);
    check(&edge.client, none, "BYPASS", "no credential").await;
}

#[tokio::test]
async fn teams_that_a_gateway_names_may_form_a_group() {
    let upstream = Upstream::start().await;
    let config = r#"
        tenant_header = "x-team"
        [[group]]
        name = "research"
        trusted = ["red", "blue"]
        [[group]]
        name = "sales"
        trusted = ["green"]
    "#;
    let edge = edge_with(&upstream, config).await;
    let ask = |team: &str| Ask::chat("whose?").header("x-team", team);
    check(&edge.client, ask("red"), "MISS", "red").await;
    check(&edge.client, ask("blue"), "HIT_L1_EXACT", "blue").await;
    check(&edge.client, ask("green"), "MISS", "green").await;
    check(&edge.client, ask("research"), "MISS", "the group's name").await;
    for call in upstream.calls() {
        assert_eq!(call.header("x-team"), "", "it went to the provider");
    }
}

#[tokio::test]
async fn what_is_not_cached_is_a_504_in_the_words_of_each_api() {
    let upstream = Upstream::start().await;
    let edge = Edge::before(&upstream).await;
    let only = |path: &str, body: serde_json::Value| {
        Ask::to(path, &body).header("cache-control", "only-if-cached")
    };
    let messages = json!([{"role": "user", "content": "there?"}]);
    let contents = json!({"contents": [{"parts": [{"text": "there?"}]}]});
    let chat = only("/v1/chat/completions", json!({"messages": messages}));
    let message = json!({"max_tokens": 9, "messages": messages, "stream": true});
    let anthropic = only("/v1/messages", message);
    let gemini = only("/v1/models/mock:generateContent", contents.clone());
    let array = only("/v1/models/mock:streamGenerateContent", contents);
    for (ask, at, expected) in [
        (chat, "/error/code", json!("504")),
        (anthropic, "/error/type", json!("timeout_error")),
        (gemini, "/error/code", json!(504)),
        (array, "/0/error/status", json!("DEADLINE_EXCEEDED")),
    ] {
        let absent = edge.client.fetch(ask).await;
        assert_eq!(absent.status, 504);
        assert_eq!(absent.header("content-type"), "application/json");
        assert_eq!(absent.json().pointer(at), Some(&expected));
    }
    assert_eq!(upstream.call_count(), 0);
}
