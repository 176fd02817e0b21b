//! Routes that change requests.

use super::*;

/// A route beside the plain one to the same cluster, chosen by a header that no key covers, changes
/// what the provider gets.
async fn check(
    name: &str,
    change: Value,
    is_changed: impl Fn(&reflex_tests::upstream::Call) -> bool,
) {
    let two = Two::start().await;
    // Canaries are often chosen by a header of the load balancer.
    let mut changing = two.route("provider", json!({"match": by_header("x-request-id", "b")}));
    merge(&mut changing, json!({"name": name}));
    merge(&mut changing, change);
    let plain = two.route("provider", json!({"name": "plain"}));
    let envoy = routes(two.plan(), vec![changing, plain]).start().await;
    let ask = |prompt: &str| Ask::chat(prompt);
    let changed = |prompt: &str| ask(prompt).header("x-request-id", "b");

    let first = envoy.client.fetch(ask("one")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(ask("one")).await, &first);
    // By the route that changes it, the same question is another request to the provider.
    for prompt in ["one", "one", "two"] {
        let calls = two.provider.call_count();
        let answer = envoy.client.fetch(changed(prompt)).await;
        assert_eq!(answer.status, 200);
        let last = two.provider.calls().pop().expect("a call");
        assert_eq!(two.provider.call_count(), calls + 1, "the provider answers");
        assert!(is_changed(&last));
        assert_ne!(answer.body, first.body);
    }
    not_kept(&envoy, "rewritten", "the provider gets another request").await;
    check_hit(&envoy.client.fetch(ask("one")).await, &first);
    let second = envoy.client.fetch(ask("two")).await;
    check_miss(&second);
    check_hit(&envoy.client.fetch(ask("two")).await, &second);
}

#[tokio::test]
async fn an_answer_to_a_rewritten_path_is_not_shared() {
    let change = json!({
        "match": {"prefix": "/v1/"},
        "route": {"prefix_rewrite": "/private/v1/"},
    });
    check("canary", change, |call| call.path.starts_with("/private/")).await;
}

#[tokio::test]
async fn an_answer_to_a_request_with_a_header_more_is_not_shared() {
    let change = json!({"request_headers_to_add": add_header("x-variant", "b")});
    check("canary", change, |call| call.header("x-variant") == "b").await;
}

#[tokio::test]
async fn an_answer_to_another_credential_is_not_shared() {
    let change = json!({"request_headers_to_add": add_header("authorization", "Bearer sk-route")});
    let is_changed =
        |call: &reflex_tests::upstream::Call| call.header("authorization") == "Bearer sk-route";
    check("canary", change, is_changed).await;
}

/// Only the route's name shows the filter beforehand that a share of requests goes elsewhere.
#[tokio::test]
async fn a_share_of_requests_that_is_changed_gets_no_answer_of_the_rest() {
    let two = Two::start().await;
    let share = json!({
        "name": "canary",
        "match": {"runtime_fraction": {"default_value": {"numerator": 50}}},
        "request_headers_to_add": add_header("x-variant", "b"),
        "response_headers_to_add": add_header("x-route", "canary"),
    });
    let share = two.route("provider", share);
    let plain = two.route("provider", json!({"name": "plain"}));
    let envoy = routes(two.plan(), vec![share, plain]).start().await;
    let mut seen = [0, 0];
    let mut hits = 0;
    while seen[0] < 10 || seen[1] < 10 {
        let calls = two.provider.call_count();
        let answer = envoy.client.fetch(Ask::chat("the same")).await;
        assert_eq!(answer.status, 200);
        let is_canary = answer.header("x-route") == "canary";
        seen[usize::from(is_canary)] += 1;
        hits += u32::from(answer.reflex() == "HIT_L1_EXACT");
        if is_canary {
            assert_eq!(two.provider.call_count(), calls + 1, "{seen:?}");
            let last = two.provider.calls().pop().expect("a call");
            assert_eq!(last.header("x-variant"), "b");
        }
    }
    assert!(hits >= 5, "{hits}");
}

/// The key does not cover `Host`, so it must not choose the provider.
#[tokio::test]
async fn an_answer_of_another_host_than_the_key_names_is_not_kept() {
    let two = Two::start().await;
    let route = two.route("provider", json!({"route": {"host_rewrite_literal": null}}));
    let envoy = routes(two.plan(), vec![route]).start().await;
    for _ in 0..2 {
        let ask = Ask::chat("which host?").header("host", "elsewhere.example");
        let answer = envoy.client.fetch(ask).await;
        assert_ne!(answer.reflex(), "HIT_L1_EXACT");
        let call = two.provider.calls().pop().expect("a call");
        assert_eq!(call.header("host"), "elsewhere.example");
    }
    not_kept(&envoy, "rewritten", "the host differs").await;
}

/// A path in `upstreams` is what the route puts before each request's, as `--upstream` does.
#[tokio::test]
async fn a_path_of_the_upstream_is_one_that_the_provider_gets() {
    let two = Two::start().await;
    let upstream = json!({"provider": format!("{}/private", two.provider.url())});
    for (rewrite, is_kept) in [(json!("/private/"), true), (Value::Null, false)] {
        let route = two.route("provider", json!({"route": {"prefix_rewrite": rewrite}}));
        let envoy = routes(two.plan(), vec![route])
            .plugin("upstreams", upstream.clone())
            .start()
            .await;
        let ask = || Ask::chat(&format!("kept: {is_kept}"));
        let first = envoy.client.fetch(ask()).await;
        check_miss(&first);
        if is_kept {
            check_hit(&envoy.client.fetch(ask()).await, &first);
        } else {
            check_bypass(&envoy.client.fetch(ask()).await, "route");
            not_kept(&envoy, "rewritten", "the path differs").await;
        }
    }
}

/// It used to be the provider's own name.
#[tokio::test]
async fn x_forwarded_host_is_the_host_that_the_client_has_asked() {
    let two = Two::start().await;
    let route = two.route(
        "provider",
        json!({"route": {"append_x_forwarded_host": true}}),
    );
    let envoy = routes(two.plan(), vec![route])
        .plugin("ignored_headers", json!(["x-forwarded-host"]))
        .start()
        .await;
    let ask = || Ask::chat("which host?").header("host", "gateway.example");
    let first = envoy.client.fetch(ask()).await;
    check_miss(&first);
    let call = two.provider.calls().pop().expect("a call");
    assert_eq!(call.header("x-forwarded-host"), "gateway.example");
    assert_eq!(call.header("host"), two.provider.address().to_string());
    check_hit(&envoy.client.fetch(ask()).await, &first);
}

#[tokio::test]
async fn a_tenant_that_the_route_adds_has_no_answers_here() {
    let two = Two::start().await;
    let adds = json!({"request_headers_to_add": add_header("x-team", "blue")});
    let route = two.route("provider", adds);
    let envoy = routes(two.plan(), vec![route])
        .plugin("tenant_header", "x-team")
        .edit(|config| {
            // The example's virtual host removes it again.
            merge(
                &mut hosts(config)[0],
                json!({"request_headers_to_remove": null}),
            );
        })
        .start()
        .await;
    check_miss(&envoy.client.fetch(Ask::chat("whose?")).await);
    check_bypass(&envoy.client.fetch(Ask::chat("whose?")).await, "route");
    not_kept(&envoy, "rewritten", "the credential differs").await;
}

/// With `keyed_routes`, the route's name stands for its changes.
#[tokio::test]
async fn a_keyed_route_has_answers_of_its_own() {
    let two = Two::start().await;
    let keyed = json!({
        "name": "own-key",
        "match": by_header("x-request-id", "b"),
        "request_headers_to_add": add_header("authorization", "Bearer sk-route"),
    });
    let keyed = two.route("provider", keyed);
    let plain = two.route("provider", json!({"name": "plain"}));
    let envoy = routes(two.plan(), vec![keyed, plain])
        .plugin("keyed_routes", json!(["own-*"]))
        .start()
        .await;
    let ask = || Ask::chat("by which route?");
    let keyed = || ask().header("x-request-id", "b");
    let first = envoy.client.fetch(keyed()).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(keyed()).await, &first);
    let plain = envoy.client.fetch(ask()).await;
    check_miss(&plain);
    check_hit(&envoy.client.fetch(ask()).await, &plain);
    check_hit(&envoy.client.fetch(keyed()).await, &first);
    assert_eq!(two.provider.call_count(), 2);
}

#[tokio::test]
async fn where_routes_are_always_proven_the_first_answer_is_the_proof() {
    let two = Two::start().await;
    let route = two.route("provider", json!({"name": "named"}));
    let envoy = routes(two.plan(), vec![route])
        .plugin("prove_routes", "always")
        .start()
        .await;
    check_miss(&envoy.client.fetch(Ask::chat("one")).await);
    let first = envoy.client.fetch(Ask::chat("two")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(Ask::chat("two")).await, &first);
}

/// Routes without names cannot be told apart: a runtime fraction may choose among them.
#[tokio::test]
async fn a_route_without_a_name_passes_by() {
    let two = Two::start().await;
    let route = two.route("provider", json!({"name": null}));
    let envoy = routes(two.plan(), vec![route]).start().await;
    for _ in 0..2 {
        check_bypass(&envoy.client.fetch(Ask::chat("one")).await, "route");
    }
    assert_eq!(two.provider.call_count(), 2);
}
