//! Other filters of the chain. A hit is answered where the filter stands: filters before it see
//! each request, and filters behind it see no hit.

use super::{check_hit, check_miss, patient};
use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// An Envoy with this change of its connection manager.
async fn started(
    change: impl FnOnce(&mut Value) + Send + 'static,
    more: impl FnOnce(EnvoyPlan) -> EnvoyPlan,
) -> (Upstream, Edge, Envoy) {
    let upstream = Upstream::start().await;
    let daemon = Plan::daemon().start().await;
    let plan = patient(&upstream, &daemon);
    let plan = more(plan).edit(move |config| change(config.pointer_mut(MANAGER).expect("one")));
    let envoy = plan.start().await;
    (upstream, daemon, envoy)
}

fn insert(manager: &mut Value, at: usize, filter: Value) {
    let filters = manager["http_filters"].as_array_mut();
    filters.expect("filters").insert(at, filter);
}

/// Admits requests with this header.
fn rbac() -> Value {
    json!({"name": "rbac", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": "ALLOW", "policies": {"members": {
            "permissions": [{"any": true}],
            "principals": [{"header": {"name": "x-role", "string_match": {"exact": "member"}}}],
        }}},
    }})
}

fn role(role: &str) -> Ask {
    Ask::chat("Am I allowed to ask?").header("x-role", role)
}

#[tokio::test]
async fn rbac_before_the_filter_denies_what_is_cached() {
    let change = |manager: &mut Value| insert(manager, 0, rbac());
    let ignore = |plan: EnvoyPlan| plan.plugin("ignored_headers", json!(["x-role"]));
    let (upstream, _daemon, envoy) = started(change, ignore).await;
    let first = envoy.client.fetch(role("member")).await;
    check_miss(&first);
    for _ in 0..3 {
        check_hit(&envoy.client.fetch(role("member")).await, &first);
        assert_eq!(envoy.client.fetch(role("stranger")).await.status, 403);
    }
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn a_rate_limit_before_the_filter_counts_hits() {
    let limit = json!({"name": "limit", "typed_config": {
        "@type": "type.googleapis.com/\
                  envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 3, "tokens_per_fill": 3, "fill_interval": "86400s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    }});
    let change = |manager: &mut Value| insert(manager, 0, limit);
    let (upstream, _daemon, envoy) = started(change, |plan| plan).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let answer = envoy.client.fetch(Ask::chat("once more?")).await;
        statuses.push((answer.status.as_u16(), answer.reflex().to_owned()));
    }
    let expected = [
        (200, "MISS"),
        (200, "HIT_L1_EXACT"),
        (200, "HIT_L1_EXACT"),
        (429, ""),
        (429, ""),
    ];
    let expected = expected.map(|(status, reflex)| (status, reflex.to_owned()));
    assert_eq!(statuses, expected);
    assert_eq!(upstream.call_count(), 1);
}

/// Adds a mark to each answer.
fn marker() -> Value {
    json!({"name": "marker", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": "
            function envoy_on_response(handle)
              local body = handle:body()
              body:setBytes(body:getBytes(0, body:length()) .. '\\n')
            end
        "},
    }})
}

/// Checks that an answer, miss or hit, has one mark.
async fn marked_once(envoy: &Envoy, upstream: &Upstream) {
    let first = envoy.client.fetch(Ask::chat("marked?")).await;
    check_miss(&first);
    for _ in 0..3 {
        check_hit(&envoy.client.fetch(Ask::chat("marked?")).await, &first);
    }
    let body = String::from_utf8_lossy(&first.body).into_owned();
    assert!(body.ends_with("}\n") && !body.ends_with("\n\n"), "{body}");
    assert_eq!(upstream.call_count(), 1);
}

/// The filter records what the provider sent, and each answer is changed on its way to the client.
#[tokio::test]
async fn a_filter_before_ours_changes_each_answer_once() {
    let change = |manager: &mut Value| insert(manager, 0, marker());
    let (upstream, _daemon, envoy) = started(change, |plan| plan).await;
    marked_once(&envoy, &upstream).await;
}

/// A hit passes no filter of the cluster; a recorded answer has passed them.
#[tokio::test]
async fn a_filter_of_the_cluster_changes_each_answer_once() {
    let in_cluster = |plan: EnvoyPlan| {
        plan.edit(|config| {
            let options = "/static_resources/clusters/0/typed_extension_protocol_options\
                           /envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
            let options = config.pointer_mut(options).expect("the provider's options");
            let codec = json!({"name": "codec", "typed_config": {
                "@type": "type.googleapis.com/\
                          envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
            }});
            options["http_filters"] = json!([marker(), codec]);
        })
    };
    let (upstream, _daemon, envoy) = started(|_| {}, in_cluster).await;
    marked_once(&envoy, &upstream).await;
}

/// The mapper of `docs/envoy.md`, before a format for all local replies.
#[tokio::test]
async fn mappers_of_local_replies_can_leave_hits_as_they_are() {
    const DOCS: &str = include_str!("../../../docs/envoy.md");
    let block = DOCS
        .split("```yaml\n")
        .find(|block| block.starts_with("local_reply_config:"));
    let block = block.and_then(|block| block.split("```").next());
    let config: Value = serde_yaml_ng::from_str(block.expect("a block of YAML")).expect("YAML");
    let config = config["local_reply_config"].clone();
    assert!(config["body_format"].is_object());
    let change = |manager: &mut Value| {
        manager["local_reply_config"] = config;
        insert(manager, 0, rbac());
    };
    let ignore = |plan: EnvoyPlan| plan.plugin("ignored_headers", json!(["x-role"]));
    let (_upstream, _daemon, envoy) = started(change, ignore).await;
    for stream in [false, true] {
        let ask = || match stream {
            true => Ask::stream("rewritten?").header("x-role", "member"),
            false => role("member"),
        };
        let first = envoy.client.fetch(ask()).await;
        check_miss(&first);
        check_hit(&envoy.client.fetch(ask()).await, &first);
    }
    // Other local replies keep the operator's format.
    let denied = envoy.client.fetch(role("stranger")).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.json()["error"]["code"], 403);
}
