//! Filters in front of ours that have Envoy choose the route anew, after ours has read it.

use super::*;

fn ip_tagging() -> Value {
    let tag = |name: &str, address: &str| {
        json!({
            "ip_tag_name": name,
            "ip_list": [{"address_prefix": address, "prefix_len": 16}],
        })
    };
    let tags = json!([tag("eu", "10.1.0.0"), tag("us", "10.2.0.0")]);
    filter(
        "ip_tagging.v3.IPTagging",
        json!({"request_type": "BOTH", "ip_tags": tags}),
    )
}

fn lua() -> Value {
    let script = r#"
        function envoy_on_request(handle)
            local address = handle:headers():get("x-forwarded-for")
            local region = address == "10.1.1.1" and "eu" or "us"
            handle:headers():replace("x-region", region)
            handle:clearRouteCache()
        end
    "#;
    filter(
        "lua.v3.Lua",
        json!({"default_source_code": {"inline_string": script}}),
    )
}

/// Clients of two regions, whose requests differ only in a header of the filter in front.
async fn check(front: fn() -> Value, header: &str, is_fresh: bool) {
    let two = Two::start().await;
    let eu = two.route("other", json!({"match": by_header(header, "eu")}));
    let us = two.route("provider", json!({}));
    let mut plan = in_front(routes(two.plan(), vec![eu, us]), front());
    if is_fresh {
        plan = in_front(plan, fresh_route());
    }
    let envoy = plan.start().await;
    let from = |region: &str| {
        let address = match region {
            "eu" => "10.1.1.1",
            _ => "10.2.2.2",
        };
        Ask::chat("where am I?").header("x-forwarded-for", address)
    };
    let mut firsts = Vec::new();
    for region in ["us", "eu", "us", "eu", "eu"] {
        let calls = two.calls();
        let answer = envoy.client.fetch(from(region)).await;
        assert_eq!(answer.status, 200);
        let after = two.calls();
        let own = usize::from(region == "eu");
        assert_eq!(after[1 - own], calls[1 - own], "{region}: another provider");
        let asked = two.calls()[own] - calls[own];
        if asked == 0 {
            let (_, first) = firsts.iter().find(|(it, _)| *it == region).expect("a miss");
            check_hit(&answer, first);
        } else if answer.reflex() == "MISS" {
            firsts.push((region, answer));
        }
    }
    let [us, eu] = two.calls();
    if is_fresh {
        assert_eq!([us, eu], [1, 1], "each region has its own answer");
    } else {
        assert_eq!(eu, 3, "what another cluster answers is not kept");
        not_kept(&envoy, "rerouted", "cluster `other` answered").await;
    }
    for call in two.other.calls() {
        assert_eq!(call.header("host"), two.other.address().to_string());
    }
}

#[tokio::test]
async fn clients_of_a_region_never_get_the_answers_of_another_one() {
    check(ip_tagging, "x-envoy-ip-tags", false).await;
    check(lua, "x-region", false).await;
}

#[tokio::test]
async fn with_a_fresh_route_each_region_has_answers_of_its_own() {
    check(ip_tagging, "x-envoy-ip-tags", true).await;
    check(lua, "x-region", true).await;
}

/// Dynamic metadata chooses the route, by a value that no key covers and no header shows.
#[tokio::test]
async fn a_fresh_route_tells_providers_apart_that_no_header_tells_apart() {
    let script = r#"
        function envoy_on_request(handle)
            local region = handle:headers():get("x-request-id")
            handle:streamInfo():dynamicMetadata():set("test", "region", region)
            handle:clearRouteCache()
        end
    "#;
    let lua = filter(
        "lua.v3.Lua",
        json!({"default_source_code": {"inline_string": script}}),
    );
    let two = Two::start().await;
    let metadata = json!([{
        "filter": "test",
        "path": [{"key": "region"}],
        "value": {"string_match": {"exact": "eu"}},
    }]);
    let eu = two.route("other", json!({"match": {"dynamic_metadata": metadata}}));
    let us = two.route("provider", json!({}));
    let plan = in_front(routes(two.plan(), vec![eu, us]), lua);
    let envoy = in_front(plan, fresh_route()).start().await;
    let from = |region: &str| Ask::chat("where am I?").header("x-request-id", region);
    let us = envoy.client.fetch(from("us")).await;
    let eu = envoy.client.fetch(from("eu")).await;
    check_miss(&us);
    check_miss(&eu);
    assert_eq!(two.calls(), [1, 1]);
    check_hit(&envoy.client.fetch(from("eu")).await, &eu);
    check_hit(&envoy.client.fetch(from("us")).await, &us);
}

/// A filter behind ours answers instead of the provider.
#[tokio::test]
async fn what_another_filter_answers_is_not_kept() {
    let two = Two::start().await;
    let envoy = two
        .plan()
        .edit(|config| {
            let script = r#"
                function envoy_on_request(handle)
                    if handle:headers():get("x-request-id") == "mine" then
                        local body = '{"object": "chat.completion", "choices": [{"index": 0, ' ..
                            '"finish_reason": "stop", "message": {"role": "assistant", ' ..
                            '"content": "of a filter"}}]}'
                        handle:respond({[":status"] = "200",
                            ["content-type"] = "application/json"}, body)
                    end
                end
            "#;
            let lua = json!({"default_source_code": {"inline_string": script}});
            let filters = config.pointer_mut(&format!("{MANAGER}/http_filters"));
            let filters = filters.and_then(Value::as_array_mut).expect("filters");
            let router = filters.len() - 1;
            filters.insert(router, filter("lua.v3.Lua", lua));
        })
        .start()
        .await;
    let mine = Ask::chat("hello").header("x-request-id", "mine");
    let local = envoy.client.fetch(mine).await;
    assert!(String::from_utf8_lossy(&local.body).contains("of a filter"));
    let first = envoy.client.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    assert_eq!(two.calls(), [1, 0]);
    check_hit(&envoy.client.fetch(Ask::chat("hello")).await, &first);
}
