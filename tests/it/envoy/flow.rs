//! The main line through Envoy: a repeat is answered from the hot tier or the daemon, byte for
//! byte, and the provider is not called.

use super::{check_hit, check_miss, cold_line, count, hits, line, patient, stored};
use crate::sdk::Script;
use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::Plan;
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;

#[tokio::test]
async fn a_repeat_is_answered_by_the_hot_tier() {
    let (upstream, _daemon, envoy) = line().await;
    for ask in [
        Ask::chat("Why is the sky blue?"),
        Ask::stream("Why is the sky blue?"),
    ] {
        let calls = upstream.call_count();
        let first = envoy.client.fetch(ask.clone()).await;
        check_miss(&first);
        for _ in 0..3 {
            check_hit(&envoy.client.fetch(ask.clone()).await, &first);
        }
        assert_eq!(upstream.call_count(), calls + 1);
    }
    envoy
        .until("two misses and six hits of the hot tier", |metrics| {
            hits(metrics, "hot") == 6.0 && count(metrics, "reflex_misses") == 2.0
        })
        .await;
    assert_eq!(hits(&envoy.metrics().await, "daemon"), 0.0);
}

#[tokio::test]
async fn a_hit_makes_no_connection_to_the_provider() {
    let (upstream, daemon, envoy) = cold_line().await;
    let first = envoy.client.fetch(Ask::stream("only once")).await;
    stored(&daemon, 1).await;
    // A call of the provider would fail now.
    let connections = envoy.connections_to("provider").await;
    upstream.stop().await;
    for _ in 0..5 {
        check_hit(&envoy.client.fetch(Ask::stream("only once")).await, &first);
    }
    assert_eq!(envoy.connections_to("provider").await, connections);
    envoy
        .until("five hits of the daemon", |metrics| {
            hits(metrics, "daemon") == 5.0 && count(metrics, "reflex_lookup_us_count") >= 6.0
        })
        .await;
}

/// Both compute the same key, so one's answers are the other's.
#[tokio::test]
async fn what_serve_has_cached_is_a_hit_through_envoy_and_the_reverse() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).edge_socket(true).start().await;
    let envoy = patient(&upstream, &edge).start().await;
    for (prompt, stream) in [("one", false), ("two", true)] {
        let ask = |name: &str| match stream {
            true => Ask::stream(&format!("{prompt} {name}")),
            false => Ask::chat(&format!("{prompt} {name}")),
        };
        let first = edge.client.fetch(ask("through serve")).await;
        check_miss(&first);
        check_hit(&envoy.client.fetch(ask("through serve")).await, &first);

        let puts = edge.metrics().await.sum(
            "reflex_edge_requests_total",
            &[("method", "PUT"), ("code", "201")],
        );
        let first = envoy.client.fetch(ask("through Envoy")).await;
        check_miss(&first);
        stored(&edge, puts as u32 + 1).await;
        check_hit(&edge.client.fetch(ask("through Envoy")).await, &first);
    }
    assert_eq!(upstream.call_count(), 4);
}

#[tokio::test]
async fn the_openai_client_sees_the_same_through_envoy() {
    for script in [
        "same_completion_twice.py",
        "same_stream_twice.py",
        "two_keys.py",
        "many_at_once.py",
    ] {
        let (_upstream, _daemon, envoy) = line().await;
        Script::start(script, &envoy.url).ends().await;
    }
}

/// BerriAI/litellm#29955: one team received another team's answer.
#[tokio::test]
async fn another_credential_gets_an_answer_of_its_own() {
    let (upstream, _daemon, envoy) = line().await;
    let ask = |key| Ask::chat("whose is it?").key(Some(key));
    let first = envoy.client.fetch(ask("alice")).await;
    let other = envoy.client.fetch(ask("bob")).await;
    check_miss(&first);
    check_miss(&other);
    check_hit(&envoy.client.fetch(ask("alice")).await, &first);
    check_hit(&envoy.client.fetch(ask("bob")).await, &other);
    assert_eq!(upstream.call_count(), 2);
    let anonymous = envoy
        .client
        .fetch(Ask::chat("whose is it?").key(None))
        .await;
    let why = r#"reflex; fwd=bypass; detail="no-credential""#;
    assert_eq!(anonymous.header("cache-status"), why);
    envoy
        .until("a bypass with its reason", |metrics| {
            metrics.sum("reflex_bypasses_total", &[("reason", "no-credential")]) == 1.0
        })
        .await;
}

/// apache/apisix#13578: the effective upstream was not in the key.
#[tokio::test]
async fn two_providers_behind_one_envoy_share_nothing() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let daemon = Plan::daemon().start().await;
    let envoy = EnvoyPlan::new(&one.url())
        .provider("other", &other.url(), "/v1/chat/completions?other")
        .daemon(&daemon.socket())
        .edit(|config| {
            // By a header, so that all else in the two requests is the same.
            let routes = config
                .pointer_mut(
                    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                     /route_config/virtual_hosts/0/routes",
                )
                .and_then(|routes| routes.as_array_mut())
                .expect("routes");
            for route in routes.iter_mut() {
                route["match"] = serde_json::json!({"prefix": "/"});
                if route["route"]["cluster"] == "other" {
                    route["match"]["headers"] = serde_json::json!([
                        {"name": "x-request-id", "string_match": {"exact": "other"}}
                    ]);
                }
            }
            routes.sort_by_key(|route| route["match"].get("headers").is_none());
        })
        .start()
        .await;
    let ask = || Ask::chat("who are you?");
    let to_other = || ask().header("x-request-id", "other");
    let first = envoy.client.fetch(ask()).await;
    let second = envoy.client.fetch(to_other()).await;
    check_miss(&first);
    check_miss(&second);
    assert_eq!((one.call_count(), other.call_count()), (1, 1));
    check_hit(&envoy.client.fetch(ask()).await, &first);
    check_hit(&envoy.client.fetch(to_other()).await, &second);
}

#[tokio::test]
async fn cache_control_of_a_request_is_obeyed() {
    let (upstream, _daemon, envoy) = line().await;
    let ask = |control: &str| Ask::chat("controlled").header("cache-control", control);
    let absent = envoy.client.fetch(ask("only-if-cached")).await;
    assert_eq!(absent.status, 504);
    assert_eq!(absent.json()["error"]["code"], "504");
    assert_eq!(upstream.call_count(), 0);

    let unstored = envoy.client.fetch(ask("no-store")).await;
    assert_eq!(unstored.reflex(), "BYPASS");
    let first = envoy.client.fetch(Ask::chat("controlled")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(ask("only-if-cached")).await, &first);
    check_hit(&envoy.client.fetch(ask("max-age=60")).await, &first);

    let fresh = envoy.client.fetch(ask("no-cache")).await;
    assert_eq!(fresh.header("cache-status"), "reflex; fwd=request");
    assert_ne!(fresh.body, first.body);
    check_hit(&envoy.client.fetch(Ask::chat("controlled")).await, &fresh);
}

#[tokio::test]
async fn http2_clients_are_answered_too() {
    let (_upstream, _daemon, envoy) = line().await;
    let client = Client::http2(&envoy.url);
    let first = client.fetch(Ask::stream("over HTTP/2")).await;
    check_miss(&first);
    check_hit(&client.fetch(Ask::stream("over HTTP/2")).await, &first);
}
