//! TLS towards clients, operators and the provider: certificates and keys from files, which are read
//! again when they change.
//!
//! ```text
//! files.rs ─► server.rs ─► Tls, one for each listener ─► stream.rs, a connection with TLS or without
//!     └─────► upstream/tls.rs
//! watch.rs    which change of the files is used, and which is told
//! ```
//!
//! All of it uses one crypto provider, ring.

mod files;
pub(crate) mod name;
mod server;
mod stream;
pub(crate) mod watch;

pub(crate) use files::{Contents, Digest, pair, provider, trusted};
pub(crate) use server::{Listeners, Loaded, Tls, told_expiry};
pub(crate) use stream::{Stream, Tcp};

use rustls::ClientConfig;
use std::path::Path;

/// A listener, or the provider: whose certificates they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Clients,
    Operators,
    Provider,
}

impl Side {
    /// As a label of metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Operators => "operators",
            Self::Provider => "provider",
        }
    }
}

/// What a program trusts that calls the daemon: the CAs of the system, and those in `ca`.
///
/// # Errors
///
/// One line: the file cannot be used.
pub fn trusting(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let ca = ca.map(|path| Contents::read("--ca", path)).transpose()?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder
        .with_root_certificates(trusted(ca.as_ref())?)
        .with_no_client_auth())
}
