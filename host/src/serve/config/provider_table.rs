//! `upstream` as it is written: one URL, or a list of tables.

use super::read::{Fault, Read, Tables};
use super::upstream::Upstream;
use serde::Deserialize;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::DeValue;

/// `upstream` as it is written.
#[derive(Clone, Debug)]
pub(crate) enum Upstreams {
    One(Upstream),
    Several(Tables<ProviderTable>),
}

/// An `[[upstream]]` as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderTable {
    pub(super) url: String,
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) host: Patterns,
    pub(super) path_prefix: Option<String>,
    #[serde(default)]
    pub(super) strip_prefix: bool,
    #[serde(default)]
    pub(super) model: Patterns,
    pub(super) connect_max: Option<String>,
    pub(super) response_max: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) breaker_failures: Option<u32>,
    pub(super) interchangeable_with: Option<String>,
}

/// One pattern, or a list of them. None takes all.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(super) enum Patterns {
    One(String),
    Several(Vec<String>),
}

impl Default for Patterns {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Patterns {
    pub(super) fn into_list(self) -> Vec<String> {
        match self {
            Self::One(pattern) => vec![pattern],
            Self::Several(patterns) => patterns,
        }
    }
}

impl Read for Upstreams {
    /// A variable of the environment holds one URL.
    const IS_SCALAR: bool = true;

    fn form() -> String {
        format!("{}, or a list of tables", <Upstream as Read>::form())
    }

    fn read(value: Spanned<DeValue<'_>>) -> Result<Self, Vec<Fault>> {
        match value.get_ref() {
            DeValue::Array(_) => Tables::read(value).map(Self::Several),
            _ => <Upstream as Read>::read(value).map(Self::One),
        }
    }

    fn read_text(text: &str) -> Result<Self, String> {
        <Upstream as Read>::read_text(text).map(Self::One)
    }

    fn write(&self) -> String {
        match self {
            Self::One(upstream) => Read::write(upstream),
            Self::Several(tables) => tables.write(),
        }
    }
}
