//! Routes as operators write them: the provider in the key is the one that answers, and it gets the
//! request in the key. Where the filter cannot know that, it keeps nothing and serves
//! nothing.

mod changed;
mod held;
mod reloaded;
mod stale;

use super::{check_hit, check_miss, patient};
use reflex_tests::client::{Answer, Ask, Client};
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::envoy::{Envoy, EnvoyPlan};
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// Two providers, the clusters `provider` and `other`, behind one Envoy with a daemon.
struct Two {
    provider: Upstream,
    other: Upstream,
    daemon: Edge,
}

impl Two {
    async fn start() -> Self {
        Self {
            provider: Upstream::start().await,
            other: Upstream::start().await,
            daemon: Plan::daemon().start().await,
        }
    }

    /// An Envoy that knows both, with the example's one route, to `provider`.
    fn plan(&self) -> EnvoyPlan {
        patient(&self.provider, &self.daemon)
            .provider("other", &self.other.url(), "/other")
            .edit(|config| {
                let hosts = hosts(config);
                let routes = hosts[0]["routes"].as_array_mut().expect("routes");
                routes.retain(|route| route["name"] == "provider");
            })
    }

    /// A route to a cluster, with these additions.
    fn route(&self, cluster: &str, more: Value) -> Value {
        let upstream = match cluster {
            "other" => &self.other,
            _ => &self.provider,
        };
        let host = upstream.address().to_string();
        let mut route = json!({
            "name": cluster,
            "match": {"prefix": "/"},
            "route": {"cluster": cluster, "timeout": "0s", "host_rewrite_literal": host},
        });
        merge(&mut route, more);
        route
    }

    fn calls(&self) -> [usize; 2] {
        [self.provider.call_count(), self.other.call_count()]
    }
}

/// Merges `more` over the existing fields; null removes a field.
fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            for (name, more) in more {
                match more {
                    Value::Null => drop(value.remove(&name)),
                    more => merge(value.entry(name).or_insert(Value::Null), more),
                }
            }
        }
        (value, more) => *value = more,
    }
}

fn hosts(config: &mut Value) -> &mut Vec<Value> {
    let hosts = config.pointer_mut(&format!("{MANAGER}/route_config/virtual_hosts"));
    hosts.and_then(Value::as_array_mut).expect("virtual hosts")
}

/// These routes and no others, the first that matches first.
fn routes(plan: EnvoyPlan, routes: Vec<Value>) -> EnvoyPlan {
    plan.edit(move |config| hosts(config)[0]["routes"] = routes.into())
}

/// A filter in front of ours.
fn in_front(plan: EnvoyPlan, filter: Value) -> EnvoyPlan {
    plan.edit(move |config| {
        let filters = config.pointer_mut(&format!("{MANAGER}/http_filters"));
        let filters = filters.and_then(Value::as_array_mut).expect("filters");
        let ours = filters.iter().position(|it| it["name"] == "reflex");
        filters.insert(ours.expect("the filter"), filter);
    })
}

fn filter(kind: &str, more: Value) -> Value {
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.filters.http.{kind}"),
    });
    merge(&mut config, more);
    json!({"name": kind, "typed_config": config})
}

/// It changes nothing, but makes Envoy choose the route again after a filter before it cleared it.
fn fresh_route() -> Value {
    filter("header_mutation.v3.HeaderMutation", json!({}))
}

fn by_header(name: &str, value: &str) -> Value {
    json!({"headers": [{"name": name, "string_match": {"exact": value}}]})
}

fn add_header(name: &str, value: &str) -> Value {
    json!([{"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}])
}

/// An answer was not kept for that reason, and the log names the route.
async fn not_kept(envoy: &Envoy, reason: &str, said: &str) {
    envoy
        .until(reason, |metrics| {
            metrics.sum("reflex_not_kept_total", &[("reason", reason)]) >= 1.0
        })
        .await;
    envoy.until(said, |_| envoy.log().contains(said)).await;
}

fn check_bypass(answer: &Answer, reason: &str) {
    assert_eq!(answer.status, 200);
    let why = format!(r#"reflex; fwd=bypass; detail="{reason}""#);
    assert_eq!(answer.header("cache-status"), why);
}

/// The filter used to set `:authority` on a miss, after which Envoy chose the virtual host anew.
#[tokio::test]
async fn of_two_virtual_hosts_each_answers_its_own_requests() {
    let two = Two::start().await;
    let own = two.route("provider", json!({}));
    let any = two.route("other", json!({}));
    let envoy = two
        .plan()
        .edit(move |config| {
            let hosts = hosts(config);
            let mut second = hosts[0].clone();
            merge(
                &mut hosts[0],
                json!({"domains": ["a.gateway.test"], "routes": [own]}),
            );
            merge(&mut second, json!({"name": "any", "routes": [any]}));
            hosts.push(second);
        })
        .start()
        .await;
    let ask = || Ask::chat("which host?").header("host", "a.gateway.test");
    check_bypass(&envoy.client.fetch(ask().key(None)).await, "no-credential");
    assert_eq!(two.calls(), [1, 0]);
    let first = envoy.client.fetch(ask()).await;
    check_miss(&first);
    assert_eq!(two.calls(), [2, 0]);
    check_hit(&envoy.client.fetch(ask()).await, &first);
    let elsewhere = envoy.client.fetch(Ask::chat("which host?")).await;
    check_miss(&elsewhere);
    assert_eq!(two.calls(), [2, 1]);
    check_hit(
        &envoy.client.fetch(Ask::chat("which host?")).await,
        &elsewhere,
    );
}

/// The filter used to remove the tenant's header, after which Envoy routed by the other headers.
#[tokio::test]
async fn a_route_by_the_tenants_header_leads_where_it_leads_without_the_filter() {
    let two = Two::start().await;
    let blue = two.route("other", json!({"match": by_header("x-team", "blue")}));
    let rest = two.route("provider", json!({}));
    let envoy = routes(two.plan(), vec![blue, rest])
        .plugin("tenant_header", "x-team")
        .start()
        .await;
    let models = Ask::get("/v1/models").header("x-team", "blue");
    assert_eq!(envoy.client.fetch(models).await.status, 200);
    assert_eq!(two.calls(), [0, 1]);
    let ask = |team: &str| {
        let ask = Ask::chat("whose?").header("x-team", team);
        ask.header("x-reflex-ttl", "60")
            .header("accept-encoding", "gzip")
    };
    let blue = envoy.client.fetch(ask("blue")).await;
    let red = envoy.client.fetch(ask("red")).await;
    check_miss(&blue);
    check_miss(&red);
    assert_eq!(two.calls(), [1, 2]);
    check_hit(&envoy.client.fetch(ask("blue")).await, &blue);
    check_hit(&envoy.client.fetch(ask("red")).await, &red);
    for call in two.provider.calls().iter().chain(&two.other.calls()[1..]) {
        assert_eq!(
            call.header("x-team"),
            "",
            "the provider learns of no tenant"
        );
        assert_eq!(call.header("x-reflex-ttl"), "");
        assert_eq!(call.header("accept-encoding"), "identity");
    }
}

#[tokio::test]
async fn what_is_not_recorded_may_be_compressed() {
    let two = Two::start().await;
    let envoy = two.plan().start().await;
    let ask = Ask::chat("hello").header("accept-encoding", "gzip");
    let unstored = ask.header("cache-control", "no-store");
    check_bypass(&envoy.client.fetch(unstored).await, "no-store");
    assert_eq!(two.provider.calls()[0].header("accept-encoding"), "gzip");
}

/// Envoy turns every answer of a filter to such a request into a gRPC error without a body.
#[tokio::test]
async fn a_request_of_grpc_passes_by() {
    let two = Two::start().await;
    let envoy = two.plan().start().await;
    let first = envoy.client.fetch(Ask::chat("hello")).await;
    check_miss(&first);
    let body = Ask::chat("hello").sent().clone();
    let ask = Ask::new(http::Method::POST, "/v1/chat/completions", body)
        .key(Some("test"))
        .header("content-type", "application/grpc");
    for _ in 0..2 {
        check_bypass(&envoy.client.fetch(ask.clone()).await, "grpc");
    }
}
