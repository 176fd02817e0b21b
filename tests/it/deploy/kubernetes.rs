//! The Helm chart, and the manifests that are made from it.

use reflex_tests::edge;
use serde_json::Value;

use super::*;

const MANIFESTS: [&str; 2] = [
    "deploy/kubernetes/proxy.yaml",
    "deploy/kubernetes/beside-envoy.yaml",
];

/// Helm renders them, the schemas of Kubernetes judge each, and what the repository has is what Helm
/// renders.
#[tokio::test]
async fn the_chart_renders_and_kubernetes_knows_each_field() {
    let Some(python) = tool("python", "the chart") else {
        return;
    };
    let said = succeeds(
        Command::new(python)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("tests/deploy/manifests.py"),
    )
    .await;
    assert!(said.contains("resources"), "{said}");
}

fn resources(path: &str) -> Vec<Value> {
    let text = file(path);
    let documents = serde_yaml_ng::Deserializer::from_str(&text);
    let read = documents.map(|document| serde::Deserialize::deserialize(document).expect("YAML"));
    read.collect()
}

fn of_kind<'r>(resources: &'r [Value], kind: &str) -> &'r Value {
    let found = resources.iter().find(|resource| resource["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind}"))
}

/// A number of seconds in milliseconds, or a duration such as `30s` of a settings file.
fn default_seconds(defaults: &str, key: &str) -> i64 {
    let line = defaults.lines().find_map(|line| {
        line.trim_start_matches('#')
            .strip_prefix(key)?
            .strip_prefix(" = ")
    });
    let value = line.unwrap_or_else(|| panic!("no {key}"));
    let value = value.trim_matches('"').trim_end_matches('s');
    value.parse().unwrap_or_else(|_| panic!("{key}: {value}"))
}

#[tokio::test]
async fn the_daemon_takes_the_configuration_of_the_manifests() {
    for path in MANIFESTS {
        let resources = resources(path);
        let config = of_kind(&resources, "ConfigMap");
        let config = config["data"]["config.toml"].as_str().expect("a file");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("config.toml");
        fs::write(&file, config).expect("a configuration file");
        let checked = edge::run(&["config", "check", &file.to_string_lossy()]).await;
        assert_eq!(checked.status.code(), Some(0), "{path}: {checked:?}");
    }
}

/// A pod that is killed before its drain ends cuts requests.
#[tokio::test]
async fn a_pod_may_take_as_long_as_its_daemon_drains() {
    let defaults = edge::run(&["config", "default"]).await;
    let defaults = String::from_utf8(defaults.stdout).expect("text");
    let drain = default_seconds(&defaults, "drain_max");
    for path in MANIFESTS {
        let resources = resources(path);
        let pod = &of_kind(&resources, "StatefulSet")["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().expect("containers");
        let pauses = containers
            .iter()
            .map(|it| it["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64());
        let pause = pauses.map(|it| it.expect("a pause")).max().expect("one");
        let grace = pod["terminationGracePeriodSeconds"].as_i64();
        assert!(grace.expect("a bound") > drain + pause, "{path}");
        let daemon = containers.iter().find(|it| it["name"] == "reflex-edge");
        let daemon = daemon.expect("the daemon");
        for (probe, at) in [("livenessProbe", "/health"), ("readinessProbe", "/ready")] {
            assert_eq!(daemon[probe]["httpGet"]["path"], at, "{path}");
        }
    }
}

/// The chart's version and the image's tag are the release's.
#[test]
fn the_chart_has_the_version_of_the_workspace() {
    let manifest = file("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = "));
    let version = version.expect("a version").trim_matches('"');
    let chart: Value =
        serde_yaml_ng::from_str(&file("deploy/helm/reflex-edge/Chart.yaml")).expect("YAML");
    assert_eq!(chart["version"], version);
    assert_eq!(chart["appVersion"], version);
}
