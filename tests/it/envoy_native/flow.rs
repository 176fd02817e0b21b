//! The main line: a repeat is answered from memory, byte for byte, and the provider is not called.

use super::{check_bypass, check_hit, check_miss, figure, hits, line};
use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;

#[tokio::test]
async fn a_repeat_is_answered_from_memory() {
    let (upstream, envoy) = line().await;
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
        .until("two misses and six hits", |metrics| {
            figure(metrics, "reflex_hits", &[("tier", "memory")]) == 6.0
                && figure(metrics, "reflex_misses", &[]) == 2.0
                && figure(metrics, "reflex_inserts", &[]) == 2.0
        })
        .await;
}

#[tokio::test]
async fn a_hit_makes_no_connection_to_the_provider() {
    let (upstream, envoy) = line().await;
    let first = envoy.client.fetch(Ask::stream("only once")).await;
    // A call of the provider would fail now.
    let connections = envoy.connections_to("provider").await;
    upstream.stop().await;
    for _ in 0..5 {
        check_hit(&envoy.client.fetch(Ask::stream("only once")).await, &first);
    }
    assert_eq!(envoy.connections_to("provider").await, connections);
}

/// The provider gets what the client has sent, but for what concerns the cache alone.
#[tokio::test]
async fn the_provider_is_asked_for_an_answer_that_everybody_can_read() {
    let (upstream, envoy) = line().await;
    let ask = Ask::chat("as it is")
        .header("accept-encoding", "gzip")
        .header("x-reflex-ttl", "60");
    check_miss(&envoy.client.fetch(ask.clone()).await);
    let call = upstream.calls().pop().expect("a call");
    assert_eq!(call.header("accept-encoding"), "identity");
    assert_eq!(call.header("x-reflex-ttl"), "");
    assert_eq!(call.body, *ask.sent());
    let ask = ask.header("cache-control", "no-store");
    check_bypass(&envoy.client.fetch(ask).await, "no-store");
    let call = upstream.calls().pop().expect("a call");
    assert_eq!(call.header("accept-encoding"), "gzip");
}

/// BerriAI/litellm#29955: one team received another team's answer.
#[tokio::test]
async fn another_credential_gets_an_answer_of_its_own() {
    let (upstream, envoy) = line().await;
    let ask = |key| Ask::chat("whose is it?").key(Some(key));
    let first = envoy.client.fetch(ask("alice")).await;
    let other = envoy.client.fetch(ask("bob")).await;
    check_miss(&first);
    check_miss(&other);
    check_hit(&envoy.client.fetch(ask("alice")).await, &first);
    check_hit(&envoy.client.fetch(ask("bob")).await, &other);
    // By now both are recognised by their bytes.
    check_hit(&envoy.client.fetch(ask("alice")).await, &first);
    check_hit(&envoy.client.fetch(ask("bob")).await, &other);
    assert_eq!(upstream.call_count(), 2);
    let anonymous = Ask::chat("whose is it?").key(None);
    check_bypass(&envoy.client.fetch(anonymous).await, "no-credential");
    envoy
        .until("a bypass with its reason", |metrics| {
            figure(
                metrics,
                "reflex_bypasses_total",
                &[("reason", "no-credential")],
            ) == 1.0
        })
        .await;
}

#[tokio::test]
async fn cache_control_of_a_request_is_obeyed() {
    let (upstream, envoy) = line().await;
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
    envoy
        .until("what clients said is counted", |metrics| {
            let of = |directive| {
                let labels = [("directive", directive), ("stream", "false")];
                figure(metrics, "reflex_client_control_total", &labels)
            };
            of("no-cache") == 1.0 && of("no-store") == 1.0
        })
        .await;
}

#[tokio::test]
async fn http2_clients_are_answered_too() {
    let (_upstream, envoy) = line().await;
    let client = Client::http2(&envoy.url);
    let first = client.fetch(Ask::stream("over HTTP/2")).await;
    check_miss(&first);
    check_hit(&client.fetch(Ask::stream("over HTTP/2")).await, &first);
}

#[tokio::test]
async fn other_paths_and_bad_bodies_go_to_the_provider() {
    let (upstream, envoy) = line().await;
    check_bypass(&envoy.client.fetch(Ask::body("no JSON")).await, "not-json");
    let models = envoy.client.fetch(Ask::get("/v1/models")).await;
    assert_eq!(models.reflex(), "BYPASS");
    assert_eq!(upstream.call_count(), 2);
}

#[tokio::test]
async fn samples_are_served_in_turn_by_all_workers_together() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .workers(2)
        .plugin("samples", 3)
        .start()
        .await;
    let ask = || Ask::chat("roll a die");
    let mut answers = Vec::new();
    for _ in 0..3 {
        let answer = super::apart(&envoy, ask()).await;
        check_miss(&answer);
        answers.push(answer);
    }
    for round in 0..6 {
        check_hit(&super::apart(&envoy, ask()).await, &answers[round % 3]);
    }
    assert_eq!(upstream.call_count(), 3);
    let any = ask().header("cache-control", "only-if-cached");
    assert_eq!(envoy.client.fetch(any).await.status, 200);
}

/// After this behaviour of the provider, the next equal request goes to the provider again.
#[tokio::test]
async fn what_is_not_good_is_not_stored() {
    let (upstream, envoy) = line().await;
    for (behaviour, reason) in [
        ("status=500", "status"),
        ("status=429", "status"),
        ("length", "length"),
        ("refusal", "refusal"),
        ("cut", "cut"),
        ("gzip", "content-encoding"),
    ] {
        let asks = match behaviour {
            // The provider compresses no streams.
            "gzip" => vec![Ask::chat(behaviour)],
            _ => vec![Ask::chat(behaviour), Ask::stream(behaviour)],
        };
        let rejected = 2.0 * asks.len() as f64;
        for ask in asks {
            for _ in 0..2 {
                let calls = upstream.call_count();
                let sent = envoy.client.try_send(ask.clone().mock(behaviour)).await;
                if let Ok(mut answer) = sent {
                    while let Ok(Some(_)) = answer.chunk().await {}
                }
                assert_eq!(upstream.call_count(), calls + 1, "{behaviour}");
            }
        }
        envoy
            .until(&format!("{behaviour} is rejected"), |metrics| {
                figure(metrics, "reflex_not_kept_total", &[("reason", reason)]) >= rejected
            })
            .await;
    }
    let metrics = envoy.metrics().await;
    assert_eq!(figure(&metrics, "reflex_inserts", &[]), 0.0);
    assert_eq!(hits(&metrics), 0.0);
}
