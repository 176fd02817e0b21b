//! The resources that bring the filter to Istio and Envoy Gateway. They are parts of a
//! configuration; what the control plane makes of them is in its Envoy's `config_dump`.

use reflex_envoy_config::Config;
use serde_json::Value;

use crate::filters::{HttpFilter, short};
use crate::tree::{at, field, list, number, text};
use crate::{Report, buffers, plugin};

/// Envoy's default for a connection, which Istio keeps.
const ISTIO_CONNECTION_BYTES: u64 = 1 << 20;

/// Envoy Gateway's.
const GATEWAY_CONNECTION_BYTES: u64 = 32 << 10;

/// What Envoy Gateway puts behind wasm filters if not told otherwise, and a hit must not skip.
const BEHIND_WASM: [&str; 3] = ["rbac", "local_ratelimit", "ratelimit"];

/// Looks at those of these documents that are such resources.
pub(crate) fn check(documents: &[Value], report: &mut Report) {
    let of = |kind: &str| -> Vec<&Value> {
        let all = documents.iter();
        all.filter(|document| text(document, "kind") == kind)
            .collect()
    };
    for filter in of("EnvoyFilter") {
        istio(filter, report);
    }
    for wasm in of("WasmPlugin") {
        wasm_plugin(wasm, report);
    }
    for policy in of("EnvoyExtensionPolicy") {
        let patches = of("EnvoyPatchPolicy");
        let traffic = of("ClientTrafficPolicy");
        let proxies = of("EnvoyProxy");
        gateway(policy, &patches, &traffic, &proxies, report);
    }
}

fn named(resource: &Value) -> String {
    let kind = text(resource, "kind");
    let name = text(field(resource, "metadata"), "name");
    format!("{kind} {name}")
}

fn istio(resource: &Value, report: &mut Report) {
    let place = named(resource);
    let patches = list(field(resource, "spec"), "configPatches");
    for patch in patches {
        let value = at(patch, &["patch", "value"]);
        let filters = HttpFilter::all(value, &Value::Null);
        let Some(ours) = filters.iter().find(|filter| filter.is_ours()) else {
            continue;
        };
        report.filters += 1;
        let before = ["match", "listener", "filterChain", "filter", "subFilter"];
        let before = text(at(patch, &before), "name");
        let operation = text(field(patch, "patch"), "operation");
        if operation != "INSERT_BEFORE" || short(before) != "router" {
            report.error(
                &place,
                "the filter must stand right before the router (`INSERT_BEFORE` \
                 `envoy.filters.http.router`), or hits skip the filters between them",
            );
        }
        let Some(config) = plugin::check(field(ours.config, "config"), &place, report) else {
            continue;
        };
        let limit = patches
            .iter()
            .filter(|patch| text(patch, "applyTo") == "VIRTUAL_HOST")
            .find_map(|patch| number(at(patch, &["patch", "value"]), "request_body_buffer_limit"));
        limits(&config, ISTIO_CONNECTION_BYTES, limit, &place, report);
    }
}

fn wasm_plugin(resource: &Value, report: &mut Report) {
    let spec = field(resource, "spec");
    let settings = field(spec, "pluginConfig");
    let is_ours = !field(settings, "upstreams").is_null() || text(spec, "url").contains("reflex");
    if !is_ours {
        return;
    }
    let place = named(resource);
    report.filters += 1;
    plugin::own(&settings.to_string(), &place, report);
    let phase = text(spec, "phase");
    if ["AUTHN", "AUTHZ"].contains(&phase) {
        report.error(
            &place,
            format!(
                "`phase: {phase}` puts the filter before authorization, which hits then skip; \
                 leave it out, and the filter stands right before the router"
            ),
        );
    }
    report.warning(
        &place,
        "a WasmPlugin cannot set `allow_on_headers_stop_iteration`, without which requests hang, \
         nor `request_body_buffer_limit`; istio-envoyfilter.yaml does",
    );
}

fn gateway(
    resource: &Value,
    patches: &[&Value],
    traffic: &[&Value],
    proxies: &[&Value],
    report: &mut Report,
) {
    let place = named(resource);
    let wasm = list(field(resource, "spec"), "wasm").iter();
    let ours = wasm
        .filter(|wasm| !at(wasm, &["config", "upstreams"]).is_null())
        .collect::<Vec<_>>();
    for wasm in ours {
        report.filters += 1;
        let patches: Vec<&Value> = patches
            .iter()
            .flat_map(|policy| list(field(policy, "spec"), "jsonPatches"))
            .collect();
        let value = |path: &str| {
            let mut all = patches.iter().map(|patch| field(patch, "operation"));
            let patch = all.find(|patch| text(patch, "path").ends_with(path));
            patch.map_or(&Value::Null, |patch| field(patch, "value"))
        };
        let mut entry = serde_json::Map::new();
        for name in [
            "allow_on_headers_stop_iteration",
            "failure_policy",
            "reload_config",
        ] {
            entry.insert(name.into(), value(name).clone());
        }
        entry.insert("configuration".into(), field(wasm, "config").clone());
        let config = plugin::check(&entry.into(), &place, report);
        order(proxies, &place, report);
        if let Some(config) = config {
            let connection = traffic
                .iter()
                .find_map(|policy| {
                    quantity(text(at(policy, &["spec", "connection"]), "bufferLimit"))
                })
                .unwrap_or(GATEWAY_CONNECTION_BYTES);
            let limit = value("request_body_buffer_limit").as_u64();
            limits(&config, connection, limit, &place, report);
        }
    }
}

/// Envoy Gateway's own order has wasm before what decides and counts.
fn order(proxies: &[&Value], place: &str, report: &mut Report) {
    let after: Vec<&str> = proxies
        .iter()
        .flat_map(|proxy| list(field(proxy, "spec"), "filterOrder"))
        .filter(|entry| short(text(entry, "name")) == "wasm")
        .map(|entry| short(text(entry, "after")))
        .collect();
    for name in BEHIND_WASM {
        if !after.contains(&name) {
            report.error(
                place,
                format!(
                    "Envoy Gateway puts `envoy.filters.http.{name}` behind wasm, so hits skip it; \
                     an EnvoyProxy's `filterOrder` must have wasm after it"
                ),
            );
        }
    }
}

fn limits(
    config: &Config,
    connection_bytes: u64,
    limit: Option<u64>,
    place: &str,
    report: &mut Report,
) {
    let needed = buffers::needed(config, connection_bytes, 1);
    if limit.unwrap_or(connection_bytes) < needed {
        report.error(
            place,
            format!(
                "virtual hosts must have `request_body_buffer_limit: {needed}` or more, with \
                 `request_bytes_max` {} and {connection_bytes} bytes a connection, or Envoy \
                 answers some requests with 413",
                config.request_bytes_max
            ),
        );
    }
}

/// `1Mi` in bytes.
fn quantity(text: &str) -> Option<u64> {
    let at = text.find(|character: char| !character.is_ascii_digit());
    let (number, unit) = text.split_at(at.unwrap_or(text.len()));
    let factor = match unit {
        "" => 1,
        "k" => 1000,
        "Ki" => 1 << 10,
        "M" => 1_000_000,
        "Mi" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}
