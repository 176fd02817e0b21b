//! The fleet: where its engine is, and which settings go together.

use super::draft::Draft;
use std::path::PathBuf;
use std::time::Duration;

/// How the daemon takes part in a fleet.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "fleet"),
    allow(dead_code, reason = "such a build refuses the setting")
)]
pub struct FleetSettings {
    /// The engine's URL, which may have a password.
    pub(crate) url: String,
    /// The file of the secret that all daemons of the fleet have.
    pub(crate) secret_file: Option<PathBuf>,
    /// The file of the engine's password.
    pub(crate) password_file: Option<PathBuf>,
    /// CAs that are trusted for the engine in place of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// The daemon's own certificate and its key.
    pub(crate) pair: Option<(PathBuf, PathBuf)>,
    /// What all names in the engine begin with.
    pub(crate) prefix: String,
    /// How long a lookup waits.
    pub(crate) wait_max: Duration,
    /// How long entries count without news of purges.
    pub(crate) unheard_max: Duration,
}

impl std::fmt::Debug for FleetSettings {
    /// Without the URL.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FleetSettings")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Draft {
    /// How the daemon takes part in a fleet; none without a URL.
    pub(super) fn fleet(&mut self) -> Option<FleetSettings> {
        let values = self.values.clone();
        let url = values.fleet.0;
        let pairs = [
            ("fleet_cert", values.fleet_cert.is_some(), "fleet_key"),
            ("fleet_key", values.fleet_key.is_some(), "fleet_cert"),
        ];
        let is_half = values.fleet_cert.is_some() != values.fleet_key.is_some();
        for (key, _, other) in pairs
            .into_iter()
            .filter(|(_, is_set, _)| *is_set && is_half)
        {
            self.refuse(key, format!("{key} needs {other}"));
        }
        let prefix = &values.fleet_prefix;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(fits) {
            let message = "a prefix has 1 to 64 letters, digits, `-`, `_` or `.`";
            self.refuse("fleet_prefix", message.into());
        }
        if url.is_empty() {
            return None;
        }
        self.check_fleet(&url);
        Some(FleetSettings {
            url,
            secret_file: values.fleet_secret_file,
            password_file: values.fleet_password_file,
            ca: values.fleet_ca,
            pair: values.fleet_cert.zip(values.fleet_key),
            prefix: values.fleet_prefix,
            wait_max: values.fleet_wait_max.0,
            unheard_max: values.fleet_unheard_max.0,
        })
    }

    #[cfg(feature = "fleet")]
    fn check_fleet(&mut self, url: &str) {
        let address = match url.parse::<crate::fleet::Address>() {
            Ok(address) => address,
            Err(error) => return self.refuse("fleet", error),
        };
        let values = self.values.clone();
        let has_files = values.fleet_ca.is_some() || values.fleet_cert.is_some();
        if has_files && !address.has_tls() {
            let message = "without TLS, certificates are of no use: the URL begins with rediss";
            self.refuse("fleet", message.into());
        }
        if values.fleet_password_file.is_some() && address.password().is_some() {
            let message = "the URL of `fleet` has a password already";
            self.refuse("fleet_password_file", message.into());
        }
    }

    #[cfg(not(feature = "fleet"))]
    fn check_fleet(&mut self, _: &str) {
        let message = "this build shares nothing; build reflex-host with its feature `fleet`";
        self.refuse("fleet", message.into());
    }
}

/// Longer than any name of a team and a region.
const PREFIX_BYTES_MAX: usize = 64;
