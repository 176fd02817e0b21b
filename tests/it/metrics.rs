//! The metrics are those of `docs/metrics.md`, and dashboard and alerts use no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan};
use reflex_tests::unix::Unix;
use reflex_tests::upstream::Upstream;
use serde_json::{Value, json};

const SPANS: &str = "reflex_otlp_spans_total";

/// A metric as a table of the page, or a daemon, describes it.
#[derive(Debug, PartialEq)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

type Metrics = BTreeMap<String, Metric>;

fn docs(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(docs(path)).expect(path)
}

/// The metrics of the page's tables.
fn documented() -> Metrics {
    let mut metrics = Metrics::new();
    for line in read("metrics.md").lines() {
        if !line.starts_with("| `reflex_") {
            continue;
        }
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, unit, labels, meaning] = cells[..] else {
            panic!("a row has a name, a type, a unit, labels and a meaning: {line}");
        };
        assert!(!meaning.is_empty(), "{line}");
        let name = name.trim_matches('`');
        for base in ["seconds", "bytes"] {
            let is_named = name.trim_end_matches("_total").ends_with(base);
            assert_eq!(
                is_named,
                unit == base,
                "a name ends with its base unit: {line}"
            );
        }
        let labels = labels.split(", ").filter(|label| !label.is_empty());
        let labels = labels.map(|label| label.trim_matches('`').to_owned());
        let metric = Metric {
            kind: kind.into(),
            labels: labels.collect(),
        };
        assert!(
            metrics.insert(name.into(), metric).is_none(),
            "twice: {line}"
        );
    }
    metrics
}

/// The metrics of a daemon's text, by the names that their samples have.
fn exported(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines() {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').expect("a name and a type");
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            let metric = Metric {
                kind: kind.into(),
                labels: BTreeSet::new(),
            };
            metrics.insert(format!("{name}{suffix}"), metric);
        } else if !line.starts_with('#') {
            let series = line.rsplit_once(' ').expect("a sample").0;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let parts = ["_bucket", "_count", "_sum"].map(|part| name.strip_suffix(part));
            let name = parts
                .into_iter()
                .flatten()
                .find(|name| metrics.contains_key(*name))
                .unwrap_or(name);
            let metric = metrics
                .get_mut(name)
                .unwrap_or_else(|| panic!("no type: {line}"));
            let named = labels
                .split("\",")
                .filter_map(|label| label.split_once('='));
            let named = named.map(|(label, _)| label.to_owned());
            metric.labels.extend(named.filter(|label| label != "le"));
        }
    }
    metrics
}

/// A daemon that has seen each kind of request.
async fn busy(upstream: &Upstream) -> Edge {
    // A component does not tell the tier of a hit.
    let config = "hits = \"native\"\nverify_fraction = 1.0\n[[price]]\nmodel = \"*\"\ninput_per_million = 1\noutput_per_million = 1";
    let plan = Plan::new(&upstream.url()).edge_socket(true);
    let edge = plan.config(config).start().await;
    for _ in 0..2 {
        edge.client.fetch(Ask::chat("twice")).await;
    }
    for call in ["one", "two"] {
        let split = Ask::chat("split").header("x-acme-call", call);
        edge.client.fetch(split).await;
    }
    for control in ["no-store", "no-cache"] {
        let controlled = Ask::stream("controlled").header("cache-control", control);
        edge.client.fetch(controlled).await;
    }
    let failing = Ask::chat("not kept").mock("status=429");
    edge.client.fetch(failing).await;
    for input in [json!(["a", "b"]), json!(["a", "c"])] {
        let batch = json!({"model": "m", "input": input});
        edge.client.fetch(Ask::to("/v1/embeddings", &batch)).await;
    }
    let path = format!("/v1/entries/{0}/{0}", "a".repeat(64));
    Unix::http1(&edge.socket()).fetch(Ask::get(&path)).await;
    edge.recorded(2, 1).await;
    edge.hang_up("applied").await;
    edge.until("a hit that was verified", |metrics| {
        metrics.sum("reflex_verified_total", &[]) > 0.5
    })
    .await;
    edge
}

#[tokio::test]
async fn the_page_lists_each_metric_that_a_daemon_exports_and_no_other() {
    let upstream = Upstream::start().await;
    let edge = busy(&upstream).await;
    let mut documented = documented();
    // A series appears with its first event, and only a component fails. There need not be one.
    documented.remove("reflex_guest_failures_total");
    let exported = exported(&edge.metrics_text().await);
    // Only builds with the feature `otlp` have spans.
    if !exported.contains_key(SPANS) {
        documented.remove(SPANS);
    }
    let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
    let (ours, theirs) = (names(&documented), names(&exported));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(
        missing.is_empty(),
        "docs/metrics.md needs a row for {missing:?}"
    );
    let unknown: Vec<_> = ours.difference(&theirs).collect();
    assert!(unknown.is_empty(), "a daemon does not export {unknown:?}");
    for (name, metric) in &documented {
        let exported = &exported[name];
        assert_eq!(metric.kind, exported.kind, "{name}");
        assert_eq!(metric.labels, exported.labels, "{name}");
    }
}

#[tokio::test]
async fn times_are_counted_by_outcome_and_tier() {
    let upstream = Upstream::start().await;
    let edge = busy(&upstream).await;
    let metrics = edge.metrics().await;
    for (outcome, tier, least) in [
        ("hit", "memory", 1.0),
        ("miss", "provider", 4.0),
        ("partial", "provider", 1.0),
        ("bypass", "provider", 1.0),
        ("miss", "edge", 1.0),
        ("hit", "disk", 0.0),
    ] {
        let labels = [("outcome", outcome), ("tier", tier)];
        let count = metrics.sum("reflex_request_duration_seconds_count", &labels);
        assert!(count >= least, "{labels:?}: {count}");
        let counted = metrics.sum(
            "reflex_request_duration_seconds_bucket",
            &[labels[0], labels[1], ("le", "+Inf")],
        );
        assert!((count - counted).abs() < 0.5, "{labels:?}");
    }
}

/// The names of metrics in an expression: words that begin as ours do.
fn names_in(expression: &str) -> BTreeSet<&str> {
    let words = expression.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let ours = words.filter(|word| word.starts_with("reflex_"));
    // Names of crates, in the text around.
    ours.filter(|word| !word.starts_with("reflex_llm"))
        .collect()
}

/// Each metric, and each label of ours, exists.
fn check(expression: &str, known: &Metrics) {
    let names = names_in(expression);
    assert!(
        !names.is_empty() || expression.starts_with("up{"),
        "{expression}"
    );
    let mut labels = BTreeSet::from(["le", "instance", "job"].map(str::to_owned));
    for name in names {
        let histogram = ["_bucket", "_count", "_sum"].map(|part| name.strip_suffix(part));
        let histogram = histogram
            .into_iter()
            .flatten()
            .find_map(|name| known.get(name));
        let metric = known
            .get(name)
            .or(histogram.filter(|it| it.kind == "histogram"));
        let metric = metric.unwrap_or_else(|| panic!("there is no metric {name}: {expression}"));
        labels.extend(metric.labels.iter().cloned());
    }
    let listed = expression
        .split("by (")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let compared = expression.split(['{', ',']).skip(1);
    let compared = compared.filter_map(|part| {
        let end = part.find(['=', '!'])?;
        let label = part[..end].trim();
        let is_word = |it: char| it.is_ascii_lowercase() || it == '_';
        (!label.is_empty() && label.chars().all(is_word)).then_some(label)
    });
    for label in listed.flat_map(|list| list.split(", ")).chain(compared) {
        assert!(
            labels.contains(label),
            "there is no label {label}: {expression}"
        );
    }
}

/// The expressions of the dashboard.
fn shown() -> Vec<String> {
    let dashboard: Value =
        serde_json::from_str(&read("operate/grafana-dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let expression = |target: &Value| target["expr"].as_str().expect("an expression").to_owned();
    targets.map(expression).collect()
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let known = documented();
    let shown = shown();
    assert!(shown.len() > 20, "{} expressions", shown.len());
    for expression in shown {
        check(&expression, &known);
    }
}

#[test]
fn alerts_are_about_metrics_that_exist() {
    let known = documented();
    let alerts: Value = serde_yaml_ng::from_str(&read("operate/alerts.yml")).expect("YAML");
    let rules = alerts["groups"][0]["rules"].as_array().expect("rules");
    assert!(rules.len() >= 8);
    for rule in rules {
        check(rule["expr"].as_str().expect("an expression"), &known);
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{rule}");
        }
    }
}

#[test]
fn pages_name_metrics_that_exist() {
    let known = documented();
    for page in ["reasons.md", "edge-api.md", "operate/README.md"] {
        for name in names_in(&read(page)) {
            assert!(
                known.contains_key(name) || IN_ENVOY.contains(&name),
                "{page}: {name}"
            );
        }
    }
}

/// Metrics of the filter on pages that are about both.
const IN_ENVOY: [&str; 1] = ["reflex_unread_bytes"];

#[test]
fn prometheus_accepts_the_alerts_and_what_the_dashboard_asks() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let promtool = std::env::split_paths(&path)
        .map(|folder| folder.join("promtool"))
        .find(|program| program.is_file());
    let Some(promtool) = promtool else {
        reflex_skip::skip(
            "Prometheus' check of the alerts",
            "install Debian's `prometheus`",
        );
        return;
    };
    // It reads expressions in rules only.
    let dashboard = tempfile::NamedTempFile::new().expect("a temporary file");
    let rules: Vec<Value> = shown()
        .iter()
        .enumerate()
        .map(|(number, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            json!({"record": format!("shown_{number}"), "expr": expression})
        })
        .collect();
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    std::fs::write(dashboard.path(), groups.to_string()).expect("a file");
    let checked = Command::new(promtool)
        .args(["check", "rules"])
        .arg(docs("operate/alerts.yml"))
        .arg(dashboard.path())
        .output()
        .expect("promtool runs");
    let told = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{told}");
}
