//! Routes to a provider that change no request, and whose answers are kept.

use super::*;

/// A route of Envoy whose answers are kept.
async fn check(
    two: &Two,
    what: &str,
    route: Value,
    more: impl FnOnce(&mut Value) + Send + 'static,
) {
    let route = two.route("provider", route);
    let envoy = routes(two.plan(), vec![route]).edit(more).start().await;
    let ask = || Ask::chat(what).header("x-cluster", "provider");
    let first = envoy.client.fetch(ask()).await;
    check_miss(&first);
    check_hit(&envoy.client.fetch(ask()).await, &first);
}

#[tokio::test]
async fn answers_are_kept_by_whichever_way_envoy_chooses_the_cluster() {
    let two = Two::start().await;
    let none = |_: &mut Value| {};
    let weighted = json!({"route": {
        "cluster": null,
        "weighted_clusters": {"clusters": [{"name": "provider", "weight": 100}]},
    }});
    check(&two, "weighted", weighted, none).await;
    let by_header = json!({"route": {"cluster": null, "cluster_header": "x-cluster"}});
    check(&two, "by header", by_header, none).await;
    let mirrored = json!({"route": {"request_mirror_policies": [{"cluster": "other"}]}});
    check(&two, "mirrored", mirrored, none).await;
    two.other.called(1).await;
    let retried = json!({"route": {"retry_policy": {"retry_on": "5xx", "num_retries": 2}}});
    check(&two, "retried", retried, none).await;
    let auto = json!({"route": {"host_rewrite_literal": null, "auto_host_rewrite": true}});
    let address = two.provider.address().to_string();
    check(&two, "auto_host_rewrite", auto, move |config| {
        let clusters = config["static_resources"]["clusters"].as_array_mut();
        for cluster in clusters.expect("clusters") {
            if cluster["name"] == "provider" {
                let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint";
                cluster.pointer_mut(endpoint).expect("an endpoint")["hostname"] =
                    address.clone().into();
            }
        }
    })
    .await;
    let aggregate = json!({"route": {"cluster": "provider-aggregate"}});
    let upstream = two.provider.url();
    check(&two, "aggregate", aggregate, move |config| {
        let clusters = config["static_resources"]["clusters"].as_array_mut();
        clusters.expect("clusters").push(json!({
            "name": "provider-aggregate",
            "connect_timeout": "10s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {
                "name": "envoy.clusters.aggregate",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                    "clusters": ["provider", "other"],
                },
            },
        }));
        let settings = format!(
            "{MANAGER}/http_filters/0/typed_config/config/configuration/value"
        );
        let settings = config.pointer_mut(&settings).expect("settings");
        let mut fields: Value =
            serde_json::from_str(settings.as_str().expect("text")).expect("JSON");
        fields["upstreams"]["provider-aggregate"] = upstream.into();
        *settings = fields.to_string().into();
    })
    .await;
}

/// The answer to a retry is kept like that to a first try.
#[tokio::test]
async fn an_answer_after_a_retry_is_kept() {
    let two = Two::start().await;
    let retried = json!({"route": {"retry_policy": {"retry_on": "5xx", "num_retries": 20}}});
    let route = two.route("provider", retried);
    let envoy = routes(two.plan(), vec![route]).start().await;
    two.provider
        .behave(reflex_tests::behaviour::Behaviour::Status(503));
    let asking = envoy.client.clone();
    let asked = tokio::spawn(async move { asking.fetch(Ask::chat("again")).await });
    two.provider.called(2).await;
    two.provider
        .behave(reflex_tests::behaviour::Behaviour::Answer);
    let first = asked.await.expect("no panic");
    check_miss(&first);
    assert!(two.provider.call_count() >= 3);
    check_hit(&envoy.client.fetch(Ask::chat("again")).await, &first);
}

/// Each worker proves a second route to an upstream, and then shares the stored answers.
#[tokio::test]
async fn workers_share_answers_of_routes_that_they_have_proven() {
    let two = Two::start().await;
    let canary = json!({"name": "canary", "match": by_header("x-request-id", "b")});
    let canary = two.route("provider", canary);
    let plain = two.route("provider", json!({"name": "plain"}));
    let envoy = routes(two.plan(), vec![canary, plain])
        .workers(2)
        .start()
        .await;
    let mut prompts = 0;
    let mut prove = async |id: &str| {
        for _ in 0..40 {
            prompts += 1;
            let ask = Ask::chat(&prompts.to_string()).header("x-request-id", id);
            super::super::apart(&envoy, ask).await;
        }
    };
    prove("a").await;
    prove("b").await;
    let first = super::super::apart(&envoy, Ask::chat("shared")).await;
    check_miss(&first);
    super::super::stored(&two.daemon, 81).await;
    for id in ["a", "b"].repeat(10) {
        let ask = Ask::chat("shared").header("x-request-id", id);
        check_hit(&super::super::apart(&envoy, ask).await, &first);
    }
}
