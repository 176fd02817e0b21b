//! Settings that are one of a few words.

use super::read::Words;
use crate::cache::Durability;
use crate::exchange::reply::pace::Replay;
use reflex_settings::{AnonymousMode, ClientControlMode, ProviderControlMode};
use serde::Deserialize;

/// Where hits are answered.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Hits {
    /// By the host, before any component: the default with the built-in component.
    Native,
    /// By the component, for those with rules of their own: the default with `component`.
    Component,
}

/// What happens to a request when the component is busy or fails before the provider has the request.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum OnComponentFailure {
    /// The provider answers, past the cache: the default with `component`.
    Pass,
    /// The host answers, as if there were no component: the default with the built-in one.
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

/// What names the tenant of a request.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TenantFrom {
    /// Its credential, or the header of a gateway.
    Credential,
    /// The certificate of its client.
    ClientCertificate,
}

/// What becomes of a tenant's misses over its rate.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OverRate {
    /// The provider gets them, past the cache.
    Pass,
    /// Their clients get 429.
    Refuse,
}

/// Whether tenants without a name in the configuration have limits of their own.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UnnamedTenants {
    /// Each has.
    Apart,
    /// They count as one.
    Together,
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

/// `durability` as it is written.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DurabilityMode {
    Interval,
    EveryInsert,
    Os,
}

impl From<DurabilityMode> for Durability {
    fn from(mode: DurabilityMode) -> Self {
        match mode {
            DurabilityMode::Interval => Self::default(),
            DurabilityMode::EveryInsert => Self::EveryInsert,
            DurabilityMode::Os => Self::Os,
        }
    }
}

/// `replay` as it is written.
#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ReplayMode {
    Instant,
    Paced,
}

impl From<ReplayMode> for Replay {
    fn from(mode: ReplayMode) -> Self {
        match mode {
            ReplayMode::Instant => Self::Instant,
            ReplayMode::Paced => Self::Paced,
        }
    }
}

/// The words of each, the usual default first.
macro_rules! words {
    ($($type:ty: $($word:literal),*;)*) => {$(
        impl Words for $type {
            const WORDS: &'static [&'static str] = &[$($word),*];
        }
    )*};
}

words! {
    Hits: "native", "component";
    OnComponentFailure: "native", "pass", "refuse";
    Mode: "serve", "shadow";
    OverRate: "pass", "refuse";
    UnnamedTenants: "apart", "together";
    LogFormat: "text", "json";
    TenantFrom: "credential", "client-certificate";
    DurabilityMode: "interval", "every-insert", "os";
    ReplayMode: "instant", "paced";
    AnonymousMode: "bypass", "share";
    ClientControlMode: "obey", "no-refresh", "ignore";
    ProviderControlMode: "ignore", "obey";
}
