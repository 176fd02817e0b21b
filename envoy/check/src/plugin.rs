//! The filter's own entry: its settings, and what Envoy must be told about it.

use reflex_envoy_config::Config;
use serde_json::Value;

use crate::Report;
use crate::filters::settings;
use crate::tree::{at, flag, text};

/// Below that pause between two instances, Envoy 1.40 crashes.
const BACKOFF_SECONDS_MIN: f64 = 0.002;

/// Looks at the `config` of a wasm filter, and gives back its settings if they are valid.
pub(crate) fn check(plugin: &Value, place: &str, report: &mut Report) -> Option<Config> {
    if !flag(plugin, "allow_on_headers_stop_iteration") {
        report.error(
            place,
            "`allow_on_headers_stop_iteration: true` is missing: requests hang",
        );
    }
    let policy = text(plugin, "failure_policy");
    if policy != "FAIL_RELOAD" {
        report.warning(
            place,
            "`failure_policy: FAIL_RELOAD` is missing: after a panic of the filter, requests fail \
             or go on without it",
        );
    }
    let base = at(plugin, &["reload_config", "backoff", "base_interval"]);
    match base.as_str().and_then(seconds) {
        Some(base) if base < BACKOFF_SECONDS_MIN => report.error(
            place,
            "`reload_config.backoff.base_interval` is below 0.002s, with which Envoy 1.40 crashes",
        ),
        None if policy == "FAIL_RELOAD" => report.warning(
            place,
            "`reload_config.backoff` is missing: after a panic of the filter, Envoy answers with \
             503 for up to a second; `base_interval: 0.002s, max_interval: 0.05s` is short",
        ),
        _ => {}
    }
    own(&settings(plugin), place, report)
}

/// Looks at the plugin's JSON.
pub(crate) fn own(json: &str, place: &str, report: &mut Report) -> Option<Config> {
    match Config::parse(json.as_bytes()) {
        Ok(config) => Some(config),
        Err(why) => {
            report.error(
                place,
                format!("the filter refuses its configuration: {why}"),
            );
            None
        }
    }
}

/// `0.002s`
fn seconds(duration: &str) -> Option<f64> {
    duration.strip_suffix('s')?.parse().ok()
}
