//! The Envoys of `cargo xtask run`, in front of the same provider as the daemon: one with the filter and
//! the daemon's cache, and if asked for, one with the native module and a cache of its own. Their
//! configurations are `envoy/envoy.yaml` and `envoy/native.yaml`, except for addresses and paths.

use std::env;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};
use reflex_envoy_bootstrap::{Bootstrap, Filter, Provider, text};
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::children::{LOOK, Running};
use crate::workspace::{RELEASE, say};
use crate::{admin, envoy, native, wasm};

/// How long requests may go on after Ctrl-C; the daemon allows the same.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Envoy's metric once no request is under way.
const IDLE: &str = "http.llm.downstream_rq_active: 0";

/// Where distributions keep the certificates that they trust, Debian's place first.
const TRUSTED_CA: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// An Envoy that the user wants.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) cache: Cache,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Which cache an Envoy has.
#[derive(Clone, Debug)]
pub(crate) enum Cache {
    /// The filter, which asks the daemon.
    Filter,
    /// The native module, with its answers in this folder.
    Module { data_dir: PathBuf },
}

/// All that is needed to start it.
pub(crate) struct Plan {
    wanted: Wanted,
    binary: PathBuf,
    module: PathBuf,
    /// Holds the socket and the configuration; no other user may read it.
    folder: TempDir,
}

impl Plan {
    /// Finds or fetches Envoy, and builds what it loads.
    pub(crate) fn set_up(wanted: Wanted) -> Result<Self> {
        Ok(Self {
            binary: envoy::set_up()?,
            module: match &wanted.cache {
                Cache::Filter => wasm::filter()?,
                Cache::Module { .. } => native::module(RELEASE)?,
            },
            wanted,
            folder: tempfile::Builder::new()
                .prefix("reflex-edge-")
                .tempdir()
                .context("a temporary folder cannot be made")?,
        })
    }

    /// Where the daemon is to offer its edge API; none if this Envoy does not ask it.
    pub(crate) fn socket(&self) -> Option<PathBuf> {
        match self.wanted.cache {
            Cache::Filter => Some(self.folder.path().join("edge.sock")),
            Cache::Module { .. } => None,
        }
    }

    /// What it sets in the plugin's configuration.
    fn plugin(&self) -> Result<Map<String, Value>> {
        let mut plugin = Map::new();
        if let Cache::Module { data_dir } = &self.wanted.cache {
            let path = data_dir.to_str().context("Envoy wants paths in UTF-8")?;
            plugin.insert("data_dir".into(), path.into());
        }
        Ok(plugin)
    }

    /// Starts Envoy in front of this provider.
    pub(crate) fn start(&self, upstream: &str) -> Result<Gateway> {
        let config = Bootstrap {
            listen: self.wanted.listen,
            admin: self.wanted.admin,
            providers: vec![Provider::new(upstream)],
            filter: Some(Filter {
                module: self.module.clone(),
                plugin: self.plugin()?,
            }),
            daemon: self.socket(),
            trusted_ca: trusted_ca(upstream)?,
        };
        let config = config.config().and_then(|config| text(&config));
        let file = self.folder.path().join("envoy.yaml");
        fs::write(&file, config.map_err(Error::msg)?)
            .with_context(|| format!("{} cannot be written", file.display()))?;
        let mut command = Command::new(&self.binary);
        command
            .arg("--config-path")
            .arg(&file)
            // Otherwise Envoy lists all that is compiled into it.
            .args(["--log-level", "warning"])
            .args(["--disable-hot-restart", "--use-dynamic-base-id"])
            // A terminal's Ctrl-C would end it on the spot, and every stream with it.
            .process_group(0);
        Ok(Gateway {
            running: Running::start("envoy", &mut command)?,
            wanted: self.wanted.clone(),
        })
    }
}

/// An Envoy that runs.
pub(crate) struct Gateway {
    running: Running,
    wanted: Wanted,
}

impl Gateway {
    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.wanted.listen
    }

    /// What a user is told of it: which cache it has, and what in it has figures.
    pub(crate) fn told(&self) -> (&'static str, &'static str) {
        match self.wanted.cache {
            Cache::Filter => (
                "The same cache through Envoy, a hit for what the first line asked",
                "the filter",
            ),
            Cache::Module { .. } => (
                "A cache inside Envoy, without the daemon, which asks for itself",
                "the native module",
            ),
        }
    }

    /// Whether it takes requests.
    pub(crate) fn ready(&self) -> bool {
        admin::ask(self.wanted.admin, "GET", "/ready").is_some()
    }

    /// Where its figures are.
    pub(crate) fn figures(&self) -> String {
        format!("http://{}/stats/prometheus", self.wanted.admin)
    }

    /// An error if it has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.running.check()
    }

    /// Makes it refuse new clients, waits for its requests to end, and ends it.
    pub(crate) fn stop(mut self, hurry: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + DRAIN_TIME_MAX;
        if admin::ask(self.wanted.admin, "POST", "/drain_listeners").is_some() {
            while self.running.check().is_ok() && !self.idle() && !hurry() {
                if Instant::now() > deadline {
                    say("envoy: the requests that still run are cut");
                    break;
                }
                thread::sleep(LOOK);
            }
        }
        self.running.stop(hurry)
    }

    fn idle(&self) -> bool {
        let path = "/stats?filter=%5Ehttp.llm.downstream_rq_active%24";
        admin::ask(self.wanted.admin, "GET", path)
            .is_some_and(|answer| answer.lines().any(|line| line.trim() == IDLE))
    }
}

/// The certificates to trust, which only a provider with TLS needs.
fn trusted_ca(upstream: &str) -> Result<Option<PathBuf>> {
    if !upstream.starts_with("https:") {
        return Ok(None);
    }
    let chosen = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    chosen
        .into_iter()
        .chain(TRUSTED_CA.map(PathBuf::from))
        .find(|path| Path::is_file(path))
        .map(Some)
        .ok_or_else(|| {
            anyhow!(
                "Envoy cannot check the provider's certificate: none of {} is there; install \
                 ca-certificates, name such a file with SSL_CERT_FILE, or pass --no-envoy",
                TRUSTED_CA.join(", ")
            )
        })
}
