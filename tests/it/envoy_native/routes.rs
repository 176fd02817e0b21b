//! Routes: the provider in the key is the one that answers, and it gets the request in the key. Where
//! the module cannot know that, it keeps nothing and serves nothing.

use super::{check_bypass, check_hit, check_miss, figure};
use reflex_tests::client::Ask;
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const HOSTS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
                     /route_config/virtual_hosts";

fn hosts(config: &mut Value) -> &mut Vec<Value> {
    let hosts = config.pointer_mut(HOSTS);
    hosts.and_then(Value::as_array_mut).expect("virtual hosts")
}

fn at(host: &str) -> Ask {
    Ask::chat("which host?").header("host", host)
}

/// Two virtual hosts have a route of the same name to the same cluster, and one of them changes
/// requests.
#[tokio::test]
async fn routes_of_one_name_in_two_virtual_hosts_are_two_routes() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .edit(|config| {
            let hosts = hosts(config);
            let mut second = hosts[0].clone();
            hosts[0]["domains"] = json!(["as-it-is.test"]);
            second["name"] = "changed".into();
            second["routes"][0]["request_headers_to_add"] =
                json!([{"header": {"key": "x-stance", "value": "other"}}]);
            hosts.push(second);
        })
        .start()
        .await;
    let first = envoy.client.fetch(at("as-it-is.test")).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(at("as-it-is.test")).await, &first);
    // The other one is seen to change requests with its first answer, which is not kept.
    check_miss(&envoy.client.fetch(at("changed.test")).await);
    envoy
        .until("it is not kept", |metrics| {
            figure(metrics, "reflex_not_kept_total", &[("reason", "rewritten")]) == 1.0
        })
        .await;
    check_bypass(&envoy.client.fetch(at("changed.test")).await, "route");
    // The first one has company now, but its answer has proven it.
    check_hit(&envoy.client.fetch(at("as-it-is.test")).await, &first);
    let log = envoy.log();
    assert!(log.contains("header `x-stance` differs"), "{log}");
    assert_eq!(upstream.call_count(), 3);
}

#[tokio::test]
async fn two_providers_behind_one_envoy_share_nothing() {
    let (one, other) = (Upstream::start().await, Upstream::start().await);
    let envoy = EnvoyPlan::native(&one.url())
        .provider("other", &other.url(), "/other")
        .edit(|config| {
            let routes = hosts(config)[0]["routes"].as_array_mut().expect("routes");
            for route in routes.iter_mut() {
                route["match"] = json!({"prefix": "/"});
                if route["route"]["cluster"] == "other" {
                    // By a header, so that all else in the two requests is the same.
                    route["match"]["headers"] = json!([
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
async fn a_route_without_a_name_bypasses() {
    let upstream = Upstream::start().await;
    let envoy = EnvoyPlan::native(&upstream.url())
        .edit(|config| {
            let route = &mut hosts(config)[0]["routes"][0];
            route.as_object_mut().expect("a route").remove("name");
        })
        .start()
        .await;
    for _ in 0..2 {
        check_bypass(&envoy.client.fetch(Ask::chat("nameless")).await, "route");
    }
    assert!(envoy.log().contains("give it a name"), "{}", envoy.log());
}
