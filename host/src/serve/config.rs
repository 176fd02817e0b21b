//! The operator's configuration: a TOML file and flags in, a valid [`Config`] out.
//!
//! Everything has a default, so an empty file is valid. Unknown keys are errors: a misspelt bound
//! must not count as missing.

mod net;
mod prices;
mod upstream;

pub use net::NetLimits;
pub use upstream::Upstream;

use crate::cache::{CacheOptions, Durability, L1_BYTES_MAX};
use crate::exchange::policy::INFLIGHT_BYTES_MAX;
use crate::exchange::reply::pace::Replay;
use crate::grant::GuestLimits;
use crate::serve::metrics::Price;
use prices::PriceTable;
use reflex_llm::{
    ClientControl, Lifetimes, PathRule, ProviderControl, Rules, Tenant, check_tenant_header,
};
use reflex_settings::{
    AnonymousMode, ClientControlMode, GroupTable, PathTable, ProviderControlMode,
    REQUEST_BYTES_MAX, SAMPLES_LIMIT, TTL_SECONDS, TTL_SECONDS_MAX, TtlTable,
    check_temperature_max, groups, lives, path_rules,
};
use serde::Deserialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A configuration that can be run with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where `/health` and `/metrics` are.
    pub admin: SocketAddr,
    /// The provider; none for a daemon that serves only edges.
    pub upstream: Option<Upstream>,
    /// Where edges connect, if they may.
    pub edge: Option<EdgeSocket>,
    /// A component to run in place of the built-in one.
    pub component: Option<PathBuf>,
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
    /// The names of the groups, by that tenant.
    pub group_names: HashMap<Tenant, String>,
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
    /// A header that names the tenant, set by a gateway that clients cannot bypass.
    pub tenant_header: Option<String>,
    /// Whether answers that ran into the client's token limit may be stored.
    pub allow_length: bool,
    /// Bounds on guests.
    pub guest: GuestLimits,
    /// Bounds on connections and waits.
    pub net: NetLimits,
}

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

/// The Unix socket of the edge API.
#[derive(Debug, Clone, PartialEq)]
pub struct EdgeSocket {
    /// Where it is.
    pub path: PathBuf,
    /// Which users may connect: the bits of a file's mode.
    pub mode: u32,
}

/// The command line; it overrides the file.
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
}

/// The file as it is written. Each field is described in `Config` and in the README.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    upstream: Option<String>,
    edge_socket: Option<PathBuf>,
    edge_socket_mode: Option<String>,
    data_dir: Option<PathBuf>,
    component: Option<PathBuf>,
    hits: Option<Hits>,
    on_component_failure: Option<OnComponentFailure>,
    namespace: Option<String>,
    ttl_seconds: Option<NonZeroU64>,
    ttl: Option<Vec<TtlTable>>,
    ttl_seconds_max: Option<NonZeroU64>,
    client_control: Option<ClientControlMode>,
    provider_control: Option<ProviderControlMode>,
    temperature_max: Option<f64>,
    path: Option<Vec<PathTable>>,
    ignored_headers: Option<Vec<String>>,
    ignored_cookies: Option<Vec<String>>,
    ignored_query: Option<Vec<String>>,
    ignored_fields: Option<Vec<String>>,
    keyed_fields: Option<Vec<String>>,
    bypass_fields: Option<Vec<String>>,
    bypass_models: Option<Vec<String>>,
    group: Option<Vec<GroupTable>>,
    price: Option<Vec<PriceTable>>,
    fill_wait_seconds_max: Option<NonZeroU64>,
    stale_if_error_seconds_max: Option<u64>,
    samples: Option<NonZeroU64>,
    replay: Option<ReplayMode>,
    disk_bytes_max: Option<NonZeroU64>,
    entries_max: Option<NonZeroU64>,
    durability: Option<DurabilityMode>,
    entry_bytes_max: Option<NonZeroU64>,
    request_bytes_max: Option<NonZeroU64>,
    inflight_bytes_max: Option<NonZeroU64>,
    l1_bytes_max: Option<u64>,
    anonymous: Option<AnonymousMode>,
    tenant_header: Option<String>,
    allow_length: Option<bool>,
    instances_max: Option<NonZeroU64>,
    guest_memory_bytes_max: Option<NonZeroU64>,
    guest_milliseconds_max: Option<NonZeroU64>,
    connections_max: Option<NonZeroU64>,
    header_read_seconds_max: Option<NonZeroU64>,
    keep_alive_seconds_max: Option<NonZeroU64>,
    idle_seconds_max: Option<NonZeroU64>,
    request_seconds_max: Option<NonZeroU64>,
    connect_seconds_max: Option<NonZeroU64>,
    response_seconds_max: Option<NonZeroU64>,
    drain_seconds_max: Option<NonZeroU64>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum DurabilityMode {
    Os,
    Interval,
    EveryInsert,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum ReplayMode {
    Instant,
    Paced,
}

/// A minute: an answer that is not streamed begins when it is whole, which a long one takes.
const FILL_WAIT_MAX: Duration = Duration::from_secs(60);
/// 30 days: a provider that fails for longer is gone.
const STALE_SECONDS_LIMIT: u64 = 30 * 24 * 3600;
/// The cache holds the answers of all tenants: only its owner's edges may read them.
const EDGE_SOCKET_MODE: u32 = 0o600;
/// The pool maps this much address space per guest memory at most; more than any 32-bit guest has.
const GUEST_MEMORY_BYTES_MAX: u64 = 1 << 32;
/// The pool is laid out for all instances at start, 4 GiB of address space each.
const INSTANCES_MAX: u64 = 10_000;

impl Config {
    /// Reads the file, if given, and puts the flags on top.
    ///
    /// # Errors
    ///
    /// One line that names the file or the flag, and what is wrong with it.
    pub fn load(file: Option<&Path>, flags: Flags) -> Result<Self, String> {
        let parsed = match file {
            None => File::default(),
            Some(path) => {
                let named = |error: String| format!("--config {}: {error}", path.display());
                let text =
                    std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
                parse(&text).map_err(named)?
            }
        };
        Self::from_parts(parsed, flags)
    }

    fn from_parts(file: File, flags: Flags) -> Result<Self, String> {
        let net = net::limits(&file)?;
        let mode = match &file.edge_socket_mode {
            Some(digits) => mode(digits)?,
            None => EDGE_SOCKET_MODE,
        };
        let edge = flags.edge_socket.or(file.edge_socket);
        let edge = edge.map(|path| EdgeSocket { path, mode });
        let upstream = match flags.upstream.or(file.upstream) {
            Some(url) => Some(
                url.parse()
                    .map_err(|error| format!("--upstream: {error}"))?,
            ),
            None if edge.is_some() => None,
            None => {
                return Err("--upstream: the provider's URL is missing, such as \
                            https://api.openai.com; only with --edge-socket there may be none"
                    .into());
            }
        };

        let stale_seconds_max = bounded(
            "stale_if_error_seconds_max",
            file.stale_if_error_seconds_max.and_then(NonZeroU64::new),
            0,
            STALE_SECONDS_LIMIT,
        )?;
        let defaults = CacheOptions::default();
        let cache = CacheOptions {
            data_dir: flags
                .data_dir
                .or(file.data_dir)
                .unwrap_or_else(|| "reflex-data".into()),
            disk_bytes_max: file
                .disk_bytes_max
                .map_or(defaults.disk_bytes_max, NonZeroU64::get),
            entries_max: file.entries_max.map(NonZeroU64::get),
            durability: match file.durability {
                Some(DurabilityMode::Os) => Durability::Os,
                Some(DurabilityMode::EveryInsert) => Durability::EveryInsert,
                Some(DurabilityMode::Interval) | None => defaults.durability,
            },
            entry_bytes_max: file
                .entry_bytes_max
                .map_or(defaults.entry_bytes_max, NonZeroU64::get),
            stale_seconds_max,
            ..defaults
        };

        if let Some(name) = &file.tenant_header {
            check_tenant_header(name)?;
        }
        let rules = Rules {
            ignored_headers: file.ignored_headers.unwrap_or_default(),
            ignored_cookies: file.ignored_cookies.unwrap_or_default(),
            ignored_query: file.ignored_query.unwrap_or_default(),
            ignored_fields: file.ignored_fields.unwrap_or_default(),
            keyed_fields: file.keyed_fields.unwrap_or_default(),
            bypass_fields: file.bypass_fields.unwrap_or_default(),
            bypass_models: file.bypass_models.unwrap_or_default(),
        };
        rules.check(file.tenant_header.as_deref())?;
        check_temperature_max(file.temperature_max)?;
        // For each tenant of a group, the tenant under which its answers are kept.
        let tables = file.group.unwrap_or_default();
        let groups = groups(&tables, file.tenant_header.as_deref())?;
        let named = |group: &GroupTable| (Tenant::of_group(group.name()), group.name().to_owned());
        let group_names = tables.iter().map(named).collect();
        let ttl = Duration::from_secs(file.ttl_seconds.map_or(TTL_SECONDS, NonZeroU64::get));
        let asked_max = file
            .ttl_seconds_max
            .map_or(TTL_SECONDS_MAX, NonZeroU64::get);
        let lifetimes = Lifetimes {
            rules: lives(file.ttl.unwrap_or_default())?,
            usual: Some(ttl),
            asked_max: Some(Duration::from_secs(asked_max)),
        };
        let seconds = |value: Option<NonZeroU64>, default: Duration| {
            value.map_or(default, |value| Duration::from_secs(value.get()))
        };
        let guest = GuestLimits::default();
        let component = flags.component.or(file.component);
        if cfg!(not(feature = "middleware")) && component.is_some() {
            return Err(
                "--component: this build runs no components; build reflex-host with its \
                        feature `middleware`"
                    .into(),
            );
        }
        let hits = file.hits.unwrap_or(match component {
            None => Hits::Native,
            Some(_) => Hits::Component,
        });
        let on_component_failure = file.on_component_failure.unwrap_or(match component {
            None => OnComponentFailure::Native,
            Some(_) => OnComponentFailure::Pass,
        });
        Ok(Self {
            listen: flags
                .listen
                .or(file.listen)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: flags
                .admin
                .or(file.admin)
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8081))),
            upstream,
            edge,
            component,
            hits,
            on_component_failure,
            cache,
            namespace: file.namespace.unwrap_or_else(|| "default".into()),
            ttl,
            lifetimes: Arc::new(lifetimes),
            provider_control: file.provider_control.unwrap_or_default().into(),
            client_control: file.client_control.unwrap_or_default().into(),
            temperature_max: file.temperature_max,
            paths: path_rules(&file.path.unwrap_or_default())?.into(),
            rules: Arc::new(rules),
            groups: Arc::new(groups.into_members().collect()),
            group_names,
            replay: match file.replay {
                None | Some(ReplayMode::Instant) => Replay::Instant,
                Some(ReplayMode::Paced) => Replay::Paced,
            },
            // The file's number is never 0.
            samples: NonZeroU32::new(bounded("samples", file.samples, 1, SAMPLES_LIMIT)?)
                .unwrap_or(NonZeroU32::MIN),
            fill_wait_max: seconds(file.fill_wait_seconds_max, FILL_WAIT_MAX),
            stale_if_error_max: Duration::from_secs(stale_seconds_max),
            prices: prices::prices(file.price.unwrap_or_default())?,
            request_bytes_max: bounded(
                "request_bytes_max",
                file.request_bytes_max,
                REQUEST_BYTES_MAX,
                64 << 20,
            )?,
            inflight_bytes_max: file
                .inflight_bytes_max
                .map_or(INFLIGHT_BYTES_MAX, NonZeroU64::get),
            l1_bytes_max: file.l1_bytes_max.unwrap_or(L1_BYTES_MAX),
            share_anonymous: file.anonymous == Some(AnonymousMode::Share),
            tenant_header: file.tenant_header,
            allow_length: file.allow_length.unwrap_or(false),
            guest: GuestLimits {
                instances_max: bounded(
                    "instances_max",
                    file.instances_max,
                    u64::from(guest.instances_max),
                    INSTANCES_MAX,
                )?,
                memory_bytes_max: bounded(
                    "guest_memory_bytes_max",
                    file.guest_memory_bytes_max,
                    guest.memory_bytes_max as u64,
                    GUEST_MEMORY_BYTES_MAX,
                )?,
                guest_time_max: file
                    .guest_milliseconds_max
                    .map_or(guest.guest_time_max, |it| Duration::from_millis(it.get())),
                ..guest
            },
            net,
        })
    }
}

/// A file's mode, as `chmod` writes it: `0600`.
fn mode(digits: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(digits, 8).ok();
    mode.filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("edge_socket_mode: `{digits}` is not a mode such as 0660"))
}

/// The value, or its default; an error if it is over its bound.
fn bounded<T: TryFrom<u64>>(
    name: &str,
    value: Option<NonZeroU64>,
    default: u64,
    most: u64,
) -> Result<T, String> {
    let value = value.map_or(default, NonZeroU64::get);
    let refused = || format!("{name}: {value} is over the limit of {most}");
    if value > most {
        return Err(refused());
    }
    T::try_from(value).map_err(|_| refused())
}

/// TOML's own errors show the place in several lines. Ours is one line, with the line's number and
/// its key.
fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let message = error.message().trim().replace('\n', " ");
        let before = error.span().and_then(|span| text.get(..span.start));
        let Some(before) = before else { return message };
        let number = before.matches('\n').count() + 1;
        let line = text.lines().nth(number - 1).unwrap_or_default();
        match line.split_once('=').map(|(key, _)| key.trim()) {
            Some(key) if !message.contains(key) => format!("line {number}: {key}: {message}"),
            _ => format!("line {number}: {message}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let flags = Flags {
            upstream: Some("http://127.0.0.1:1".into()),
            ..Flags::default()
        };
        Config::from_parts(parse(text)?, flags)
    }

    #[test]
    fn an_empty_file_is_valid() {
        let config = load("").expect("defaults are valid");
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(config.admin.to_string(), "127.0.0.1:8081");
        assert_eq!(config.namespace, "default");
        assert_eq!(config.l1_bytes_max, L1_BYTES_MAX);
        assert!(!config.share_anonymous);
        let without = load("l1_bytes_max = 0").expect("it may be off");
        assert_eq!(without.l1_bytes_max, 0);
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, part: &str| {
            let error = load(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains('\n'), "{text}: {error}");
        };
        check("ttl_secons = 1", "unknown field `ttl_secons`");
        check("listen = \"nowhere\"", "line 1");
        check("\n\nttl_seconds = 0", "line 3");
        check("tenant_header = \"X-Tenant\"", "tenant_header");
        for name in ["host", "connection", "te", "expect", "content-length"] {
            check(&format!("tenant_header = \"{name}\""), "names no tenant");
        }
        check("ignored_headers = [\"x-api-*\"]", "`x-api-key`");
        let hidden = "tenant_header = \"x-team\"\nignored_headers = [\"x-t*\"]";
        check(hidden, "`x-team`");
        check("ignored_headers = \"x-id\"", "ignored_headers");
        check("ignored_cookies = [\"*\"]", "ignored_cookies");
        check("ignored_query = [\"api*\"]", "`api-key`");
        check("ignored_fields = [\"model\"]", "ignored_fields");
        check("bypass_models = [\"\"]", "bypass_models");
        check("instances_max = 1000000", "instances_max");
        check("anonymous = \"yes\"", "anonymous");
        check("edge_socket_mode = \"0999\"", "edge_socket_mode");
        check("edge_socket_mode = \"7777\"", "edge_socket_mode");
        check("[[ttl]]\nmodel = \"a\"\nseconds = \"ever\"", "seconds");
        check("[[ttl]]\nmodel = \"a\"", "seconds");
        check("[[path]]\npath = \"v1\"\napi = \"none\"", "path: `v1`");
        check("[[path]]\npath = \"/v1\"\napi = \"chat\"", "path: `/v1`");
        check("[[path]]\npath = \"/v1\"", "`api`");
        check("[[ttl]]\nroute = \"a\"\nseconds = 1", "route");
        check("[[ttl]]\nseconds = 9999999999", "ttl: seconds");
        check("[[ttl]]\npath = \"/a//b\"\nseconds = 1", "write `/a/b`");
        check("samples = 0", "samples");
        check("l1_bytes_max = -1", "l1_bytes_max");
        check(
            "idle_seconds_max = 18446744073709551615",
            "idle_seconds_max",
        );
        check("request_seconds_max = 0", "request_seconds_max");
        check("samples = 100000", "samples");
        check("stale_if_error_seconds_max = 9999999", "stale_if_error");
        check("client_control = \"yes\"", "client_control");
        check("provider_control = \"yes\"", "provider_control");
        check("temperature_max = -1.0", "temperature_max");
        check("[[group]]\nname = \"\"", "group");
        check(
            "[[price]]\nmodel = \"a\"\ninput_per_million = 1",
            "output_per_million",
        );
        let negative = "[[price]]\nmodel = \"a\"\ninput_per_million = -1\noutput_per_million = 1";
        check(negative, "price");
        check(
            "[[group]]\nname = \"a\"\ntrusted = [\"b\"]",
            "tenant_header",
        );
        let twice = "tenant_header = \"x-team\"\n[[group]]\nname = \"a\"\ntrusted = [\"b\", \"b\"]";
        check(twice, "named twice");
        let secret = load("[[group]]\nname = \"a\"\ntenants = [\"sk-secret\"]");
        let error = secret.expect_err("a credential is no tenant");
        assert!(error.contains("`reflex-edge tenant`"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn lists_are_read_as_they_are_written() {
        let text = "ignored_headers = [\"x-id\"]\nignored_cookies = [\"lb_*\"]\n\
                    ignored_query = [\"*_id\"]\n\
                    ignored_fields = [\"user\"]\nkeyed_fields = [\"metadata\"]\n\
                    bypass_fields = [\"deep_*\"]\nbypass_models = [\"*-live\"]";
        let rules = load(text).expect("valid").rules;
        assert_eq!(rules.ignored_headers, ["x-id"]);
        assert_eq!(rules.ignored_cookies, ["lb_*"]);
        assert_eq!(rules.ignored_query, ["*_id"]);
        assert_eq!(rules.ignored_fields, ["user"]);
        assert_eq!(rules.keyed_fields, ["metadata"]);
        assert_eq!(rules.bypass_fields, ["deep_*"]);
        assert_eq!(rules.bypass_models, ["*-live"]);
        assert!(load("").expect("valid").rules.is_empty());
    }

    #[test]
    fn flags_go_before_the_file() {
        let flags = Flags {
            upstream: Some("https://a.test".into()),
            ..Flags::default()
        };
        let file = parse("upstream = \"https://b.test\"").expect("parses");
        let config = Config::from_parts(file, flags).expect("valid");
        let upstream = config.upstream.expect("given");
        assert_eq!(upstream.authority.as_str(), "a.test");
    }

    #[test]
    fn without_a_provider_there_must_be_edges() {
        let none = Config::from_parts(File::default(), Flags::default());
        assert!(none.expect_err("nothing to do").contains("--upstream"));
        let file = parse("edge_socket = \"/run/edge\"\nedge_socket_mode = \"0660\"");
        let config = Config::from_parts(file.expect("parses"), Flags::default()).expect("valid");
        assert!(config.upstream.is_none());
        assert_eq!(config.edge.expect("given").mode, 0o660);
    }
}
