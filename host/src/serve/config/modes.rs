//! The settings that choose one of a few ways.

use serde::Deserialize;

/// Who answers what the cache has.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Hits {
    /// The host, before any component: the default with the built-in component.
    Native,
    /// The component, for those with rules of their own: the default with `component`.
    Component,
}

/// Who answers a request when the component is busy or fails before the provider has the request.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnComponentFailure {
    /// The provider, past the cache: the default with `component`.
    Pass,
    /// The host, as if there were no component: the default with the built-in one.
    Native,
    /// The client gets an error, for components that guard.
    Refuse,
}

/// Whether clients get answers from the cache.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// They do.
    #[default]
    Serve,
    /// They get the provider's; the metrics count what would have been a hit.
    Shadow,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// A line of text for people.
    #[default]
    Text,
    /// A line of JSON.
    Json,
}

/// Checks that nothing else answers from the cache in shadow mode.
pub(super) fn check_shadow(
    mode: Mode,
    serves_edges: bool,
    has_component: bool,
    hits: Option<Hits>,
) -> Result<(), String> {
    let others = [
        (serves_edges, "edge_socket", "edges answer from the cache"),
        (
            has_component,
            "component",
            "a component decides what it answers",
        ),
        (
            hits == Some(Hits::Component),
            "hits",
            "the component would answer from the cache",
        ),
    ];
    match others.into_iter().find(|(is_set, ..)| *is_set) {
        Some((_, name, why)) if mode == Mode::Shadow => {
            Err(format!("mode: `shadow` does not go with {name}: {why}"))
        }
        _ => Ok(()),
    }
}

/// Checks the share of hits that is verified.
pub(super) fn verify_fraction(value: Option<f64>) -> Result<f64, String> {
    let fraction = value.unwrap_or(0.0);
    match (0.0..=1.0).contains(&fraction) {
        true => Ok(fraction),
        false => Err(format!("verify_fraction: {fraction} is not from 0 to 1")),
    }
}
