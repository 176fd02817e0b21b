//! The examples under `envoy/`: whether their programs accept them.
//!
//! Envoy itself checks its own, the filter's settings included, and systemd its unit. For the
//! Kubernetes ones there is no cluster here: what Envoy gets of them is checked by Envoy, and their
//! fields against tables of what their resources have. The tables hold what we use, and were read
//! off the definitions of istio/api (b8f8791) and envoyproxy/gateway (d32f282), against which the
//! files were also validated as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reflex_tests::client::{Ask, Client};
use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::upstream::Upstream;
use reflex_tests::{edge, within};
use serde_json::{Value, json};
use tokio::process::Command;

const UPSTREAM: &str = "http://127.0.0.1:1";

/// The kind of a resource's field.
enum Kind {
    Text,
    Number,
    Flag,
    /// Anything: the resource passes it on.
    Free,
    One(&'static [&'static str]),
}

use Kind::{Flag, Free, Number, One, Text};

type Table = [(&'static str, Kind)];

const WASM_PLUGIN: &Table = &[
    ("selector/matchLabels", Free),
    ("type", One(&["HTTP", "NETWORK"])),
    (
        "match/mode",
        One(&["CLIENT", "SERVER", "CLIENT_AND_SERVER"]),
    ),
    ("match/ports/number", Number),
    ("url", Text),
    ("sha256", Text),
    ("phase", One(&["AUTHN", "AUTHZ", "STATS"])),
    ("priority", Number),
    (
        "failStrategy",
        One(&["FAIL_CLOSE", "FAIL_OPEN", "FAIL_RELOAD"]),
    ),
    ("pluginName", Text),
    ("pluginConfig", Free),
];

const ENVOY_FILTER: &Table = &[
    ("priority", Number),
    ("workloadSelector/labels", Free),
    (
        "configPatches/applyTo",
        One(&["CLUSTER", "HTTP_FILTER", "VIRTUAL_HOST"]),
    ),
    (
        "configPatches/match/context",
        One(&["ANY", "SIDECAR_OUTBOUND", "GATEWAY"]),
    ),
    ("configPatches/match/listener/filterChain/filter/name", Text),
    (
        "configPatches/match/listener/filterChain/filter/subFilter/name",
        Text,
    ),
    (
        "configPatches/patch/operation",
        One(&["ADD", "INSERT_BEFORE", "MERGE"]),
    ),
    ("configPatches/patch/value", Free),
];

const EXTENSION_POLICY: &Table = &[
    ("targetRefs/group", One(&["gateway.networking.k8s.io"])),
    ("targetRefs/kind", One(&["Gateway", "HTTPRoute"])),
    ("targetRefs/name", Text),
    ("wasm/name", Text),
    ("wasm/rootID", Text),
    ("wasm/code/type", One(&["HTTP", "Image"])),
    ("wasm/code/http/url", Text),
    ("wasm/code/http/sha256", Text),
    ("wasm/failOpen", Flag),
    ("wasm/config", Free),
];

const PATCH_POLICY: &Table = &[
    ("targetRef/group", One(&["gateway.networking.k8s.io"])),
    ("targetRef/kind", One(&["Gateway", "GatewayClass"])),
    ("targetRef/name", Text),
    ("type", One(&["JSONPatch"])),
    (
        "jsonPatches/type",
        One(&[
            "type.googleapis.com/envoy.config.listener.v3.Listener",
            "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        ]),
    ),
    ("jsonPatches/name", Text),
    ("jsonPatches/operation/op", One(&["add"])),
    ("jsonPatches/operation/path", Text),
    ("jsonPatches/operation/jsonPath", Text),
    ("jsonPatches/operation/value", Free),
];

const TRAFFIC_POLICY: &Table = &[
    ("targetRefs/group", One(&["gateway.networking.k8s.io"])),
    ("targetRefs/kind", One(&["Gateway"])),
    ("targetRefs/name", Text),
    ("connection/bufferLimit", Text),
];

const ENVOY_PROXY: &Table = &[
    ("filterOrder/name", One(FILTERS)),
    ("filterOrder/after", One(FILTERS)),
    ("filterOrder/before", One(FILTERS)),
    ("provider/type", One(&["Kubernetes"])),
    (
        "provider/kubernetes/envoyDeployment/patch/type",
        One(&["StrategicMerge", "JSONMerge"]),
    ),
    ("provider/kubernetes/envoyDeployment/patch/value", Free),
];

/// Filters that Envoy Gateway orders, of those that we name.
const FILTERS: &[&str] = &[
    "envoy.filters.http.wasm",
    "envoy.filters.http.rbac",
    "envoy.filters.http.local_ratelimit",
    "envoy.filters.http.ratelimit",
    "envoy.filters.http.compressor",
];

/// Each kind of resource: its version, its table, and what its `spec` must have.
const RESOURCES: [(&str, &str, &Table, &[&str]); 6] = [
    (
        "WasmPlugin",
        "extensions.istio.io/v1alpha1",
        WASM_PLUGIN,
        &["url"],
    ),
    (
        "EnvoyFilter",
        "networking.istio.io/v1alpha3",
        ENVOY_FILTER,
        &["configPatches"],
    ),
    (
        "EnvoyExtensionPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        EXTENSION_POLICY,
        &["targetRefs", "wasm"],
    ),
    (
        "EnvoyPatchPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        PATCH_POLICY,
        &["targetRef", "type"],
    ),
    (
        "ClientTrafficPolicy",
        "gateway.envoyproxy.io/v1alpha1",
        TRAFFIC_POLICY,
        &["targetRefs"],
    ),
    (
        "EnvoyProxy",
        "gateway.envoyproxy.io/v1alpha1",
        ENVOY_PROXY,
        &["provider"],
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../envoy/deploy")
}

/// The resources of a file.
fn resources(file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder().join(file)).expect("a readable file");
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    documents
        .map(|document| serde::Deserialize::deserialize(document).expect("YAML"))
        .collect()
}

fn resource(file: &str, kind: &str) -> Value {
    let mut all = resources(file).into_iter();
    all.find(|resource| resource["kind"] == kind)
        .unwrap_or_else(|| panic!("{file} has no {kind}"))
}

/// Checks every field below `value`; the elements of a list are at the list's own path.
fn check(value: &Value, path: &str, table: &Table) {
    match table.iter().find(|(known, _)| *known == path) {
        Some((_, Free)) => {}
        Some((_, Text)) => assert!(value.is_string(), "{path}: {value}"),
        Some((_, Number)) => assert!(value.is_i64(), "{path}: {value}"),
        Some((_, Flag)) => assert!(value.is_boolean(), "{path}: {value}"),
        Some((_, One(all))) => {
            let known = value.as_str().is_some_and(|text| all.contains(&text));
            assert!(known, "{path}: {value} is none of {all:?}");
        }
        None => match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let path = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}/{name}")
                    };
                    check(value, &path, table);
                }
            }
            Value::Array(elements) => elements
                .iter()
                .for_each(|element| check(element, path, table)),
            _ => panic!("{path} is no field that we know"),
        },
    }
}

#[test]
fn the_resources_have_the_fields_of_their_kind() {
    let files = [
        "istio-wasmplugin.yaml",
        "istio-envoyfilter.yaml",
        "envoy-gateway.yaml",
    ];
    for (file, resource) in files
        .iter()
        .flat_map(|file| resources(file).into_iter().map(move |it| (file, it)))
    {
        let known = RESOURCES
            .iter()
            .find(|(kind, ..)| resource["kind"] == *kind);
        let (kind, version, table, required) = known.expect("a kind that we know");
        assert_eq!(resource["apiVersion"], *version, "{file}: {kind}");
        assert!(
            resource["metadata"]["name"].is_string(),
            "{file}: {kind} has no name"
        );
        for field in *required {
            assert!(
                resource["spec"].get(field).is_some(),
                "{file}: {kind} has no {field}"
            );
        }
        check(&resource["spec"], "", table);
    }
}

/// Envoy Gateway sorts filters by an order of its own, and then moves each that `filterOrder` names,
/// if the other one is there (envoyproxy/gateway 0299ce2, `sortHTTPFilters`).
fn as_envoy_gateway_sorts(present: &[&str], order: &[Value]) -> Vec<String> {
    let prefix = "envoy.filters.http.";
    let own = [
        "cors",
        "jwt_authn",
        "wasm",
        "rbac",
        "local_ratelimit",
        "ratelimit",
        "compressor",
    ];
    let own = own.iter().filter(|name| present.contains(name));
    let mut sorted: Vec<String> = own.map(|name| format!("{prefix}{name}")).collect();
    sorted.push(format!("{prefix}router"));
    for entry in order {
        let place = |name: &Value, sorted: &[String]| sorted.iter().position(|it| name == it);
        let Some(from) = place(&entry["name"], &sorted) else {
            continue;
        };
        let moved = sorted.remove(from);
        let after = place(&entry["after"], &sorted).map(|at| at + 1);
        let to = after.or_else(|| place(&entry["before"], &sorted));
        sorted.insert(to.unwrap_or(from), moved);
    }
    sorted
}

/// The other filters that a Gateway has.
#[test]
fn envoy_gateway_puts_the_filter_behind_what_a_hit_must_not_skip() {
    let proxy = resource("envoy-gateway.yaml", "EnvoyProxy");
    let order = proxy["spec"]["filterOrder"].as_array().expect("an order");
    let others = [
        "cors",
        "jwt_authn",
        "rbac",
        "local_ratelimit",
        "ratelimit",
        "compressor",
    ];
    for set in 0..1 << others.len() {
        let chosen = (0..others.len()).filter(|at| set & (1 << at) != 0);
        let mut present: Vec<&str> = chosen.map(|at| others[at]).collect();
        present.push("wasm");
        let sorted = as_envoy_gateway_sorts(&present, order);
        assert_eq!(sorted.len(), present.len() + 1, "{sorted:?}");
        let last = &sorted[sorted.len() - 2..];
        assert_eq!(
            last,
            ["envoy.filters.http.wasm", "envoy.filters.http.router"],
            "{sorted:?}"
        );
        let without = as_envoy_gateway_sorts(&present, &[]);
        assert!(
            !present.contains(&"rbac") || !without.ends_with(last),
            "{without:?}"
        );
    }
}

/// Has the real Envoy, with the real filter, look at a configuration.
async fn accepted(what: &str, plan: EnvoyPlan) {
    let output = plan.validate().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

#[tokio::test]
async fn envoy_takes_its_own_example() {
    let socket = Path::new("/tmp/reflex-edge.sock");
    // With TLS, as in the sample; this machine may lack the certificates at that place.
    let plan = EnvoyPlan::new("https://api.openai.com")
        .daemon(socket)
        .edit(|config| {
            let clusters = config["static_resources"]["clusters"].as_array_mut();
            let tls = &mut clusters.expect("clusters")[0]["transport_socket"]["typed_config"];
            let context = tls["common_tls_context"].as_object_mut();
            context.expect("TLS").remove("validation_context");
        });
    accepted("envoy/envoy.yaml", plan).await;
}

#[tokio::test]
async fn envoy_refuses_a_setting_that_the_filter_does_not_know() {
    let plan = EnvoyPlan::new(UPSTREAM).plugin("hot_byte_max", 1);
    let output = plan.validate().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("hot_byte_max"), "{said}");
}

/// A plan whose filter has exactly these settings.
fn with_settings(settings: &Value) -> EnvoyPlan {
    let settings = settings.to_string();
    EnvoyPlan::new(UPSTREAM).edit(move |config| {
        let filters = "/static_resources/listeners/0/filter_chains/0/filters/0\
                       /typed_config/http_filters/0/typed_config/config/configuration/value";
        *config.pointer_mut(filters).expect("the settings") = settings.into();
    })
}

#[tokio::test]
async fn the_filter_takes_the_settings_of_the_resources() {
    let plugin = resource("istio-wasmplugin.yaml", "WasmPlugin");
    let settings = &plugin["spec"]["pluginConfig"];
    accepted("WasmPlugin", with_settings(settings)).await;

    let policy = resource("envoy-gateway.yaml", "EnvoyExtensionPolicy");
    let settings = &policy["spec"]["wasm"][0]["config"];
    accepted("EnvoyExtensionPolicy", with_settings(settings)).await;
}

#[tokio::test]
async fn envoy_takes_what_istio_would_add() {
    let filter = resource("istio-envoyfilter.yaml", "EnvoyFilter");
    accepted("EnvoyFilter", as_istio(UPSTREAM, &filter)).await;
}

/// Envoy as Istio configures it, with what the sample adds.
fn as_istio(upstream: &str, filter: &Value) -> EnvoyPlan {
    let plan = EnvoyPlan::plain(upstream);
    let patches = filter["spec"]["configPatches"].as_array().expect("patches");
    let added = |kind: &str| {
        let patch = patches.iter().find(|patch| patch["applyTo"] == kind);
        patch.expect("a patch")["patch"]["value"].clone()
    };
    let (cluster, host) = (added("CLUSTER"), added("VIRTUAL_HOST"));
    let mut reflex = added("HTTP_FILTER");
    // The module lies elsewhere on this machine, and the provider is another one.
    let wasm = &mut reflex["typed_config"]["config"];
    wasm["vm_config"]["code"] = json!({"local": {"filename": reflex_tests::envoy::filter()}});
    let settings = wasm["configuration"]["value"].as_str().expect("settings");
    let settings = settings
        .replace("outbound|443||api.openai.com", "provider")
        .replace("https://api.openai.com", upstream);
    wasm["configuration"]["value"] = settings.into();
    plan.edit(move |config| {
        let resources = &mut config["static_resources"];
        let manager = "/listeners/0/filter_chains/0/filters/0/typed_config";
        let manager = resources.pointer_mut(manager).expect("the manager");
        let filters = manager["http_filters"].as_array_mut();
        filters.expect("a list").insert(0, reflex);
        let limit = "request_body_buffer_limit";
        manager["route_config"]["virtual_hosts"][0][limit] = host[limit].clone();
        // Istio says nothing of it.
        let listener = resources["listeners"][0].as_object_mut();
        listener.expect("a listener").remove(CONNECTION_LIMIT);
        let clusters = resources["clusters"].as_array_mut();
        clusters.expect("the clusters").push(cluster);
    })
}

const CONNECTION_LIMIT: &str = "per_connection_buffer_limit_bytes";

#[tokio::test]
async fn envoy_takes_what_envoy_gateway_would_add() {
    accepted("EnvoyPatchPolicy", as_envoy_gateway(UPSTREAM)).await;
}

/// Envoy as Envoy Gateway configures it, with what the sample adds.
fn as_envoy_gateway(upstream: &str) -> EnvoyPlan {
    let policy = resource("envoy-gateway.yaml", "EnvoyPatchPolicy");
    let patches = policy["spec"]["jsonPatches"].as_array().expect("patches");
    let patches: Vec<Value> = patches.iter().map(|it| it["operation"].clone()).collect();
    let traffic = resource("envoy-gateway.yaml", "ClientTrafficPolicy");
    assert_eq!(traffic["spec"]["connection"]["bufferLimit"], "1Mi");
    let extension = resource("envoy-gateway.yaml", "EnvoyExtensionPolicy");
    let request_bytes = extension["spec"]["wasm"][0]["config"]["request_bytes_max"].clone();
    let plan = EnvoyPlan::new(upstream).plugin("request_bytes_max", request_bytes);
    plan.edit(move |config| {
        let resources = &mut config["static_resources"];
        resources["listeners"][0][CONNECTION_LIMIT] = json!(1 << 20);
        for patch in patches {
            let path = patch["path"].as_str().expect("a path");
            if path.is_empty() {
                let clusters = resources["clusters"].as_array_mut();
                clusters.expect("the clusters").push(patch["value"].clone());
            } else if patch["jsonPath"] == "..virtual_hosts[*]" {
                let host = "/listeners/0/filter_chains/0/filters/0\
                            /typed_config/route_config/virtual_hosts/0";
                resources.pointer_mut(host).expect("a host")[path] = patch["value"].clone();
            } else {
                let filter = "/listeners/0/filter_chains/0/filters/0\
                              /typed_config/http_filters/0/typed_config/config";
                let filter = resources.pointer_mut(filter).expect("the filter");
                // They are there already, and what the policy says must be the same.
                assert_eq!(filter[path], patch["value"], "{path}");
                filter[path] = patch["value"].clone();
            }
        }
    })
}

/// Envoy answers a body that it cannot hold with 413. The filter stops buffering in time, if the
/// limits are those that the samples set.
#[tokio::test]
async fn no_sample_has_envoy_refuse_a_long_body() {
    let upstream = Upstream::start().await;
    let istio = resource("istio-envoyfilter.yaml", "EnvoyFilter");
    let plans = [
        ("Istio", as_istio(&upstream.url(), &istio)),
        ("Envoy Gateway", as_envoy_gateway(&upstream.url())),
    ];
    for (what, plan) in plans {
        let envoy = plan.start().await;
        let clients = [Client::new(&envoy.url), Client::http2(&envoy.url)];
        for number in 0..20 {
            let ask = Ask::chat(&format!("{number}{}", "p".repeat(3_000_000)));
            let answer = clients[number % 2].fetch(ask.chunked(1_000_000)).await;
            assert_eq!(
                (answer.status.as_u16(), answer.reflex()),
                (200, "BYPASS"),
                "{what}"
            );
        }
        // Nearly as long as `serve` takes; the answer repeats it, and is to fit the hot tier.
        let ask = || Ask::chat(&format!("{what}{}", "p".repeat(1_040_000)));
        assert_eq!(envoy.client.fetch(ask()).await.reflex(), "MISS", "{what}");
        let again = envoy.client.fetch(ask().chunked(1_000_000)).await;
        assert_eq!(again.reflex(), "HIT_L1_EXACT", "{what}");
    }
}

#[tokio::test]
async fn systemd_takes_the_unit_of_the_daemon() {
    let analyze = |arguments: &[&str]| {
        let mut command = Command::new("systemd-analyze");
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    };
    if analyze(&["--version"]).output().await.is_err() {
        let how = "install systemd (on Debian: `apt-get install systemd`)";
        reflex_skip::skip("systemd's judgement of the unit", how);
        return;
    }
    let unit = fs::read_to_string(folder().join("reflex-edge.service")).expect("the unit");
    // The program that it starts is not installed here.
    let installed = "/usr/local/bin/reflex-edge";
    assert!(unit.contains(installed), "{unit}");
    let unit = unit.replace(installed, &edge::binary().to_string_lossy());
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("reflex-edge.service");
    fs::write(&file, unit).expect("a unit");
    let mut verify = analyze(&["verify", "--man=no", &file.to_string_lossy()]);
    let output = within("systemd-analyze", verify.output())
        .await
        .expect("an end");
    let said = String::from_utf8_lossy(&output.stderr);
    // It reads other units of the machine too; its messages about those do not count.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("reflex-edge"))
        .collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
