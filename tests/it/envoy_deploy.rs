//! The examples under `envoy/`: does what they are for take them?
//!
//! Envoy itself checks its own, the filter's settings included, and systemd its unit. For the
//! Kubernetes ones there is no cluster here: what Envoy gets of them is checked by Envoy, and their
//! fields against tables of what their resources have. The tables hold what we use, and were read
//! off the definitions of istio/api (b8f8791) and envoyproxy/gateway (d32f282), against which the
//! files were also validated as a whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reflex_tests::envoy::EnvoyPlan;
use reflex_tests::{edge, within};
use serde_json::{Value, json};
use tokio::process::Command;

const UPSTREAM: &str = "http://127.0.0.1:1";

/// What a field of a resource may be.
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
    ("workloadSelector/labels", Free),
    ("configPatches/applyTo", One(&["CLUSTER", "HTTP_FILTER"])),
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
        One(&["ADD", "INSERT_BEFORE"]),
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
    ("provider/type", One(&["Kubernetes"])),
    (
        "provider/kubernetes/envoyDeployment/patch/type",
        One(&["StrategicMerge", "JSONMerge"]),
    ),
    ("provider/kubernetes/envoyDeployment/patch/value", Free),
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

/// Has the real Envoy, with the real filter, look at a configuration.
async fn accepted(what: &str, plan: EnvoyPlan) {
    let output = plan.validate().await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

#[tokio::test]
async fn envoy_takes_its_own_example() {
    let socket = Path::new("/tmp/reflex-edge.sock");
    // With TLS, as it stands; whether the certificates are at that place is this machine's affair.
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
    let patches = &filter["spec"]["configPatches"];
    let cluster = patches[0]["patch"]["value"].clone();
    let mut reflex = patches[1]["patch"]["value"].clone();
    // The module lies elsewhere on this machine.
    reflex["typed_config"]["config"]["vm_config"]["code"] =
        json!({"local": {"filename": reflex_tests::envoy::filter()}});
    let plan = EnvoyPlan::plain(UPSTREAM).edit(move |config| {
        let resources = &mut config["static_resources"];
        let filters = "/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
        let filters = resources.pointer_mut(filters).expect("the filters");
        filters.as_array_mut().expect("a list").insert(0, reflex);
        let clusters = resources["clusters"].as_array_mut();
        clusters.expect("the clusters").push(cluster);
    });
    accepted("EnvoyFilter", plan).await;
}

#[tokio::test]
async fn envoy_takes_what_envoy_gateway_would_add() {
    let policy = resource("envoy-gateway.yaml", "EnvoyPatchPolicy");
    let patches = policy["spec"]["jsonPatches"].as_array().expect("patches");
    let patches: Vec<Value> = patches.iter().map(|it| it["operation"].clone()).collect();
    let plan = EnvoyPlan::new(UPSTREAM).edit(move |config| {
        let resources = &mut config["static_resources"];
        for patch in patches {
            let path = patch["path"].as_str().expect("a path");
            if path.is_empty() {
                let clusters = resources["clusters"].as_array_mut();
                clusters.expect("the clusters").push(patch["value"].clone());
            } else {
                let filter = "/listeners/0/filter_chains/0/filters/0\
                              /typed_config/http_filters/0/typed_config/config";
                let filter = resources.pointer_mut(filter).expect("the filter");
                // They are there already, and what the policy says must be the same.
                assert_eq!(filter[path], patch["value"], "{path}");
                filter[path] = patch["value"].clone();
            }
        }
    });
    accepted("EnvoyPatchPolicy", plan).await;
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
    // It reads other units of the machine too, and what it says of those is not ours.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("reflex-edge"))
        .collect();
    assert!(ours.is_empty(), "{}", ours.join("\n"));
}
