//! The operator's settings that the daemon's file (TOML) and the Envoy filter's configuration (JSON)
//! have in common: how they are written, what they mean in the words of `reflex-llm`, their defaults
//! and their bounds. Both read them here, so that one setting has one meaning.
//!
//! Settings of one of them alone are read there, and so are the files themselves.

mod tables;

use reflex_llm::{Anonymous, ClientControl, ProviderControl};
use serde::Deserialize;

pub use tables::{GroupTable, PathTable, TtlTable, check_count, groups, lives, path_rules};

/// Default of `ttl_seconds`, an hour: long enough for retries, evaluations and agents, short enough
/// that a model's update shows the same day.
pub const TTL_SECONDS: u64 = 3600;

/// Default of `ttl_seconds_max`, a week: the longest life that a client may ask for. Models change.
pub const TTL_SECONDS_MAX: u64 = 7 * 24 * 3600;

/// Upper bound of a life in seconds, the same as that of HTTP caches: 68 years.
pub const SECONDS_LIMIT: u64 = 1 << 31;

/// Upper bound of `samples`. With more answers to one request, hardly any request would be a hit.
pub const SAMPLES_LIMIT: u64 = 10_000;

/// Default of `request_bytes_max`. Longer requests are rarely repeated, and every byte of them is
/// read and hashed.
pub const REQUEST_BYTES_MAX: u64 = 1 << 20;

/// `anonymous` as it is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum AnonymousMode {
    /// Requests without a credential bypass.
    #[default]
    Bypass,
    /// They share their answers.
    Share,
}

impl From<AnonymousMode> for Anonymous {
    fn from(mode: AnonymousMode) -> Self {
        match mode {
            AnonymousMode::Bypass => Self::Bypass,
            AnonymousMode::Share => Self::Share,
        }
    }
}

/// `client_control` as it is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum ClientControlMode {
    /// All instructions of clients are obeyed.
    #[default]
    Obey,
    /// All except those that make the provider answer again.
    NoRefresh,
    /// None.
    Ignore,
}

impl From<ClientControlMode> for ClientControl {
    fn from(mode: ClientControlMode) -> Self {
        match mode {
            ClientControlMode::Obey => Self::Obey,
            ClientControlMode::NoRefresh => Self::NoRefresh,
            ClientControlMode::Ignore => Self::Ignore,
        }
    }
}

/// `provider_control` as it is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ProviderControlMode {
    /// The head of an answer does not decide whether it is kept.
    #[default]
    Ignore,
    /// The head decides.
    Obey,
}

impl From<ProviderControlMode> for ProviderControl {
    fn from(mode: ProviderControlMode) -> Self {
        match mode {
            ProviderControlMode::Ignore => Self::Ignore,
            ProviderControlMode::Obey => Self::Obey,
        }
    }
}

/// Checks `temperature_max`. Formats that have no infinity may have numbers that are too great.
///
/// # Errors
///
/// One line that names the setting, for a number below zero, an infinity, or no number.
pub fn check_temperature_max(most: Option<f64>) -> Result<(), String> {
    match most {
        Some(most) if !(0.0..=f64::MAX).contains(&most) => {
            Err(format!("temperature_max: {most} is not 0 or more"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_that_is_left_out_is_the_careful_one() {
        assert_eq!(Anonymous::from(AnonymousMode::default()), Anonymous::Bypass);
        assert_eq!(
            ClientControl::from(ClientControlMode::default()),
            ClientControl::Obey
        );
        assert_eq!(
            ProviderControl::from(ProviderControlMode::default()),
            ProviderControl::Ignore
        );
    }

    #[test]
    fn modes_are_words() {
        let word = |json: &str| serde_json::from_str::<ClientControlMode>(json);
        let no_refresh = word(r#""no-refresh""#).expect("a word");
        assert_eq!(ClientControl::from(no_refresh), ClientControl::NoRefresh);
        assert!(word(r#""NoRefresh""#).is_err());
    }

    #[test]
    fn a_temperature_is_a_finite_number_from_zero() {
        for most in [None, Some(0.0), Some(2.0), Some(f64::MAX)] {
            assert_eq!(check_temperature_max(most), Ok(()), "{most:?}");
        }
        for most in [-0.1, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
            let error = check_temperature_max(Some(most)).expect_err("refused");
            assert!(error.starts_with("temperature_max: "), "{error}");
        }
    }
}
