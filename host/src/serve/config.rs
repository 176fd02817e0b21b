//! The operator's configuration: one TOML file, then the environment, then flags in; a valid [`Config`]
//! out, or all mistakes at once.
//!
//! ```text
//! file ─► draft.rs ─► Values ─► Config        table/rows.rs has a row for each setting, and
//! environment, flags ─┘                        read.rs the types of their values
//! ```
//!
//! Everything has a default, so an empty file is valid. Unknown keys are errors: a misspelt bound
//! must not count as missing.

mod difference;
mod draft;
mod engine_url;
mod error;
mod fleet;
mod limits;
mod lists;
mod net;
mod prices;
mod print;
mod provider_table;
mod providers;
mod read;
mod renew;
mod table;
mod tls;
mod upstream;
mod words;

pub use difference::Change;
pub use error::{ConfigError, lines};
pub use fleet::FleetSettings;
pub use net::NetLimits;
pub use print::{default_file, markdown};
pub use providers::{Provider, Takes};
pub use table::{Applies, SETTINGS, Setting, VARIABLE};
pub use tls::{CLIENT_CERTIFICATE, ProviderTlsFiles, TlsFiles, TlsSettings};
pub use upstream::Upstream;
pub use words::{Hits, LogFormat, Mode, OnComponentFailure};

use crate::cache::CacheOptions;
use crate::exchange::reply::pace::Replay;
use crate::grant::GuestLimits;
use crate::serve::metrics::Price;
use draft::Draft;
use limits::Limits;
use provider_table::Upstreams;
use reflex_llm::{
    ClientControl, Lifetimes, PathRule, ProviderControl, Renewals, Rules, Tenant,
    check_tenant_header,
};
use reflex_settings::{AnonymousMode, check_temperature_max};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use table::Values;

/// A configuration that can be run with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/health`, `/metrics` and the admin API are.
    pub admin: SocketAddr,
    /// The providers, in the order in which requests are for them; none for a daemon that serves only
    /// edges.
    pub providers: Vec<Provider>,
    /// The certificate for `listen`, if clients connect with TLS.
    pub tls: Option<TlsFiles>,
    /// The certificate for `admin`, if operators connect with TLS.
    pub admin_tls: Option<TlsFiles>,
    /// Where edges connect, if they may.
    pub edge: Option<EdgeSocket>,
    /// Whether it takes over from a daemon that has the data folder, and lets another one take over from it.
    pub take_over: bool,
    /// A component to run in place of the built-in one.
    pub component: Option<PathBuf>,
    /// Whether clients get answers from the cache.
    pub mode: Mode,
    /// The share of hits for which the provider is asked again, to compare: 0 to 1.
    pub verify_fraction: f64,
    /// How the log is written.
    pub log_format: LogFormat,
    /// Whether each request has a line in the log.
    pub access_log: bool,
    /// The receiver of spans.
    pub otlp_endpoint: Option<Upstream>,
    /// Who answers what the cache has.
    pub hits: Hits,
    /// Who answers when the component does not.
    pub on_component_failure: OnComponentFailure,
    /// Where the cache lives, and how large it may grow.
    pub cache: CacheOptions,
    /// Mixed into every key: two namespaces never share an entry.
    pub namespace: String,
    /// Life of an entry where no rule says otherwise.
    pub ttl: Duration,
    /// How long answers live: `ttl`, the rules, and the bound of clients' wishes.
    pub lifetimes: Arc<Lifetimes>,
    /// Which parts of a request's `Cache-Control` and `x-reflex-ttl` are obeyed.
    pub client_control: ClientControl,
    /// Which parts of an answer's `Cache-Control`, `Expires` and `Vary` are obeyed.
    pub provider_control: ProviderControl,
    /// Requests that ask for a higher temperature are not cached.
    pub temperature_max: Option<f64>,
    /// Which API answers at paths whose end names none, or a wrong one.
    pub paths: Arc<[PathRule]>,
    /// Which parts of a request are out of the key, in it, or a reason to pass by.
    pub rules: Arc<Rules>,
    /// For each tenant of a group, the tenant under which its answers are kept.
    pub groups: Arc<HashMap<Tenant, Tenant>>,
    /// The names of all groups.
    pub group_names: Vec<String>,
    /// What each tenant may ask and store.
    pub(crate) limits: Limits,
    /// The file of the admin token; by default `admin-token` in the data folder.
    pub admin_token_file: Option<PathBuf>,
    /// The file of the keys that encrypt what is stored.
    pub encryption_key_file: Option<PathBuf>,
    /// How it takes part in a fleet, if it does.
    pub fleet: Option<FleetSettings>,
    /// How streams are replayed.
    pub replay: Replay,
    /// How many different answers are kept for one request and served in turn.
    pub samples: NonZeroU32,
    /// How long a follower waits for the leader's answer to begin.
    pub fill_wait_max: Duration,
    /// For how long after its expiry an answer is served when the provider fails; zero: not at all.
    pub stale_if_error_max: Duration,
    /// Prices of tokens, for the metrics of savings.
    pub prices: Vec<Price>,
    /// Longest request body that may be answered from the cache; longer ones pass through.
    pub request_bytes_max: u64,
    /// The most that all requests together hold in memory: their own bodies, and answers that are
    /// recorded or have several readers.
    pub inflight_bytes_max: u64,
    /// The memory for requests that are known by their bytes; 0 is none.
    pub l1_bytes_max: u64,
    /// Whether requests without a credential share their answers.
    pub share_anonymous: bool,
    /// A header that names the tenant, set by a gateway that clients cannot bypass, or by the daemon
    /// itself: [`CLIENT_CERTIFICATE`].
    pub tenant_header: Option<String>,
    /// Which answers are renewed in the background, and when.
    pub renewals: Arc<Renewals>,
    /// Whether answers that ran into the client's token limit may be stored.
    pub allow_length: bool,
    /// Bounds on guests.
    pub guest: GuestLimits,
    /// Bounds on connections and waits.
    pub net: NetLimits,
    /// What the operator should change: keys that have another name now.
    pub warnings: Vec<ConfigError>,
    /// All of it as it is written, to compare it with another one.
    values: Arc<Values>,
    /// Where it comes from, to read it again.
    source: Source,
}

/// Where a configuration comes from. The environment is the process's.
#[derive(Debug, Clone, Default)]
struct Source {
    file: Option<PathBuf>,
    flags: Flags,
}

/// The Unix socket of the edge API.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Which users may connect: the bits of a file's mode.
    pub mode: u32,
}

/// The command line; it overrides the file and the environment.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--admin`
    pub admin: Option<SocketAddr>,
    /// `--upstream`
    pub upstream: Option<String>,
    /// `--edge-socket`
    pub edge_socket: Option<PathBuf>,
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--component`
    pub component: Option<PathBuf>,
    /// `--take-over`
    pub take_over: bool,
}

impl Config {
    /// Reads the file, if given, and puts the environment and then the flags on top.
    ///
    /// # Errors
    ///
    /// All mistakes, each with the file and its line, the variable or the flag, and what is wrong.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Self, Vec<ConfigError>> {
        let source = Source {
            file: file.map(Path::to_owned),
            flags,
        };
        Self::of(source.read(), source)
    }

    /// Reads the same file again, and the environment and the flags of the start.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub(crate) fn read_again(&self) -> Result<Self, Vec<ConfigError>> {
        let source = self.source.clone();
        Self::of(source.read(), source)
    }

    /// This configuration, as far as it can apply in a process that runs with the other one.
    ///
    /// # Errors
    ///
    /// What is new goes together with this configuration, but not with what cannot change.
    pub(crate) fn within(&self, running: &Self) -> Result<Self, Vec<ConfigError>> {
        let mut values = Values::clone(&self.values).after_reload_of(&running.values);
        // The listener of a reverse proxy is bound at start.
        if values.upstream.is_some() != running.values.upstream.is_some() {
            values.upstream.clone_from(&running.values.upstream);
        }
        let mut draft = Draft::default();
        draft.values = values;
        draft.warnings.clone_from(&self.warnings);
        Self::of(draft, self.source.clone())
    }

    /// How another configuration differs from this one.
    pub fn changes(&self, to: &Self) -> Vec<Change> {
        difference::changes(&self.values, &to.values)
    }

    /// Checks a file by itself, without the environment and without flags. A provider may be missing:
    /// a flag or a variable can name it.
    ///
    /// # Errors
    ///
    /// All mistakes, in the order of their lines.
    pub fn check(file: &Path) -> Result<Self, Vec<ConfigError>> {
        let mut draft = Draft::default();
        draft.read_file(file);
        Self::of_checked(draft)
    }

    fn of_checked(mut draft: Draft) -> Result<Self, Vec<ConfigError>> {
        let any = || ANY_PROVIDER.parse().ok().map(Upstreams::One);
        draft.values.upstream = draft.values.upstream.or_else(any);
        Self::of(draft, Source::default())
    }

    fn of(mut draft: Draft, source: Source) -> Result<Self, Vec<ConfigError>> {
        let config = draft.finish(source);
        match draft.errors.is_empty() {
            true => Ok(config),
            false => {
                draft.errors.sort_by_key(|error| error.line);
                Err(draft.errors)
            }
        }
    }
}

/// Stands for the provider that a file leaves to a flag.
const ANY_PROVIDER: &str = "http://provider.invalid";

impl Source {
    fn read(&self) -> Draft {
        let mut draft = Draft::default();
        if let Some(file) = &self.file {
            draft.read_file(file);
        }
        draft.read_environment(std::env::vars_os());
        draft.read_flags(&self.flags);
        draft
    }
}

impl Draft {
    fn read_flags(&mut self, flags: &Flags) {
        let flags = flags.clone();
        if let Some(listen) = flags.listen {
            self.values.listen = listen;
            self.by_flag("listen", "--listen");
        }
        if let Some(admin) = flags.admin {
            self.values.admin = admin;
            self.by_flag("admin", "--admin");
        }
        if let Some(url) = flags.upstream {
            self.by_flag("upstream", "--upstream");
            match url.parse() {
                Ok(upstream) => self.values.upstream = Some(Upstreams::One(upstream)),
                Err(error) => self.refuse("upstream", error),
            }
        }
        if let Some(path) = flags.edge_socket {
            self.values.edge_socket = Some(path);
            self.by_flag("edge_socket", "--edge-socket");
        }
        if let Some(path) = flags.data_dir {
            self.values.data_dir = path;
            self.by_flag("data_dir", "--data-dir");
        }
        if let Some(path) = flags.component {
            self.values.component = Some(path);
            self.by_flag("component", "--component");
        }
        if flags.take_over {
            self.values.take_over = true;
            self.by_flag("take_over", "--take-over");
        }
    }

    /// What the values mean. Where they mean nothing, the mistake is noted, and a default stands in.
    fn finish(&mut self, source: Source) -> Config {
        let values = Arc::new(self.values.clone());
        if values.upstream.is_none() && values.edge_socket.is_none() && self.errors.is_empty() {
            let message = "the provider's URL is missing, such as https://api.openai.com; only with \
                           --edge-socket there may be none";
            self.refuse("--upstream", message.into());
        }
        if cfg!(not(feature = "middleware")) && values.component.is_some() {
            let message = "this build runs no components; build reflex-host with its feature \
                           `middleware`";
            self.refuse("component", message.into());
        }
        let has_component = values.component.is_some();
        let defaults = CacheOptions::default();
        let stale_if_error_max = values.stale_if_error_max.0;
        let renewals = self.renewals();
        let stale_max = stale_if_error_max.max(renewals.most().stale);
        let groups = self.groups();
        let limits = self.limits(groups.names());
        let cache = CacheOptions {
            data_dir: values.data_dir.clone(),
            disk_bytes_max: values.disk_max.0,
            entries_max: values.entries_max.map(|most| most.0),
            durability: values.durability.means.into(),
            entry_bytes_max: values.entry_size_max.0,
            stale_seconds_max: stale_max.as_secs(),
            tenant_bounds: limits.stored.clone(),
            ..defaults
        };
        let rules = self.rules();
        if let Err(error) = check_temperature_max(values.temperature_max) {
            self.refuse("temperature_max", error);
        }
        self.check_shadow(&values);
        self.check_tls();
        let guest = GuestLimits::default();
        Config {
            listen: values.listen,
            admin: values.admin,
            providers: self.providers(),
            tls: values.tls(),
            admin_tls: values.admin_tls(),
            edge: values.edge_socket.clone().map(|path| EdgeSocket {
                path,
                mode: values.edge_socket_mode.0,
            }),
            take_over: values.take_over,
            component: values.component.clone(),
            hits: values.hits.map_or(
                match has_component {
                    false => Hits::Native,
                    true => Hits::Component,
                },
                |hits| hits.means,
            ),
            on_component_failure: values.on_component_failure.map_or(
                match has_component {
                    false => OnComponentFailure::Native,
                    true => OnComponentFailure::Pass,
                },
                |failure| failure.means,
            ),
            mode: values.mode.means,
            verify_fraction: values.verify_fraction,
            log_format: values.log_format.means,
            access_log: values.access_log,
            otlp_endpoint: self.otlp_endpoint(),
            cache,
            namespace: values.namespace.clone(),
            ttl: values.ttl_default.0,
            lifetimes: Arc::new(self.lifetimes()),
            provider_control: values.provider_control.means.into(),
            client_control: values.client_control.means.into(),
            temperature_max: values.temperature_max,
            paths: self.paths().into(),
            rules: Arc::new(rules),
            group_names: groups.names().to_vec(),
            limits,
            admin_token_file: values.admin_token_file.clone(),
            encryption_key_file: values.encryption_key_file.clone(),
            groups: Arc::new(groups.into_members().collect()),
            fleet: self.fleet(),
            replay: values.replay.means.into(),
            samples: u32::try_from(values.samples.0)
                .ok()
                .and_then(NonZeroU32::new)
                .unwrap_or(NonZeroU32::MIN),
            fill_wait_max: values.fill_wait_max.0,
            stale_if_error_max,
            renewals: Arc::new(renewals),
            prices: self.prices(),
            request_bytes_max: values.request_size_max.0,
            inflight_bytes_max: values.inflight_max.0,
            l1_bytes_max: values.l1_max.0,
            share_anonymous: values.anonymous.means == AnonymousMode::Share,
            tenant_header: values.tenant_header(),
            allow_length: values.allow_length,
            guest: GuestLimits {
                instances_max: u32::try_from(values.instances_max.0).unwrap_or(u32::MAX),
                memory_bytes_max: usize::try_from(values.guest_memory_max.0).unwrap_or(usize::MAX),
                guest_time_max: values.guest_time_max.0,
                ..guest
            },
            net: NetLimits {
                connections_max: usize::try_from(values.connections_max.0).unwrap_or(usize::MAX),
                tls_handshake_max: values.tls_handshake_max.0,
                header_read_max: values.header_read_max.0,
                keep_alive_max: values.keep_alive_max.0,
                idle_max: values.idle_max.0,
                request_max: values.request_time_max.0,
                connect_max: values.connect_max.0,
                response_max: values.response_max.0,
                drain_max: values.drain_max.0,
            },
            warnings: std::mem::take(&mut self.warnings),
            values,
            source,
        }
    }

    /// In shadow mode, nothing else may answer from the cache.
    fn check_shadow(&mut self, values: &Values) {
        if !(0.0..=1.0).contains(&values.verify_fraction) {
            let message = format!("{} is not from 0 to 1", values.verify_fraction);
            self.refuse("verify_fraction", message);
        }
        if values.mode.means != Mode::Shadow {
            return;
        }
        let hits = values.hits.map(|hits| hits.means);
        let others = [
            (
                values.edge_socket.is_some(),
                "edge_socket: edges answer from the cache",
            ),
            (
                values.component.is_some(),
                "component: it decides what it answers",
            ),
            (
                hits == Some(Hits::Component),
                "hits: the component would answer from the cache",
            ),
        ];
        for (_, why) in others.into_iter().filter(|(is_set, _)| *is_set) {
            self.refuse("mode", format!("`shadow` does not go with {why}"));
        }
    }

    /// The receiver of spans; none if its URL is empty.
    fn otlp_endpoint(&mut self) -> Option<Upstream> {
        let url = self.values.otlp_endpoint.clone();
        if url.is_empty() {
            return None;
        }
        if cfg!(not(feature = "otlp")) {
            let message = "this build sends no spans; build reflex-host with its feature `otlp`";
            self.refuse("otlp_endpoint", message.into());
        }
        let receiver = url.parse().ok();
        if receiver.is_none() {
            // Without the value, which may hold a password.
            let message =
                "not the http:// or https:// URL of a receiver, without a user and a query";
            self.refuse("otlp_endpoint", message.into());
        }
        receiver
    }

    /// The lists of patterns. Each is checked by itself, so that each has its own line, and then
    /// together, because two may contradict each other.
    fn rules(&mut self) -> Rules {
        let named = self.values.tenant_header.clone();
        if let Some(Err(error)) = named.as_deref().map(check_tenant_header) {
            self.refuse("tenant_header", error);
        }
        let header = self.values.tenant_header();
        let values = &self.values;
        let rules = Rules {
            ignored_headers: values.ignored_headers.clone(),
            ignored_cookies: values.ignored_cookies.clone(),
            ignored_query: values.ignored_query.clone(),
            ignored_fields: values.ignored_fields.clone(),
            keyed_fields: values.keyed_fields.clone(),
            bypass_fields: values.bypass_fields.clone(),
            bypass_models: values.bypass_models.clone(),
        };
        let errors: Vec<String> = rules
            .each()
            .into_iter()
            .filter_map(|list| list.check(header.as_deref()).err())
            .collect();
        let errors = match errors.is_empty() {
            true => rules.check(header.as_deref()).err().into_iter().collect(),
            false => errors,
        };
        for error in errors {
            let list = error.split(':').next().unwrap_or_default().to_owned();
            self.refuse(&list, error);
        }
        rules
    }
}

#[cfg(test)]
mod tests;
