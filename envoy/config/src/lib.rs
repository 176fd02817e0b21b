//! The operator's settings: the plugin's JSON in, a valid [`Config`] out.
//!
//! Every field except `upstreams` has a default. Unknown fields are errors: a misspelt bound must
//! not count as missing.

mod upstream;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reflex_llm::{
    Anonymous, ClientControl, Groups, Lifetimes, Limits, PathRule, Policy, Rules,
    check_tenant_header, is_like, normal_path,
};
use reflex_settings::{
    AnonymousMode, ClientControlMode, GroupTable, PathTable, ProviderControlMode,
    REQUEST_BYTES_MAX, SAMPLES_LIMIT, SECONDS_LIMIT, TTL_SECONDS, TTL_SECONDS_MAX, TtlTable,
    check_temperature_max, groups, lives, path_rules,
};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use upstream::Upstream;

/// A configuration that can be run with.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The provider behind each of Envoy's clusters.
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    /// The cluster of the daemon; none is hot tier only.
    pub daemon_cluster: Option<String>,
    /// How long the daemon may take for a lookup.
    pub lookup_timeout_ms: u64,
    /// How long it may take to store an answer.
    pub insert_timeout_ms: u64,
    /// How long a request waits for the same one that is under way already.
    pub fill_wait_ms: u64,
    /// How often the daemon is asked for purges.
    pub epoch_poll_ms: u64,
    /// Memory of the hot tier in each worker, in bytes.
    pub hot_bytes_max: usize,
    /// The longest body in the hot tier, in bytes.
    pub hot_entry_bytes_max: usize,
    /// How long an answer stays in the hot tier. A purge that does not reach the filter takes effect
    /// only after that time.
    pub hot_ttl_ms: u64,
    /// Lives of answers: `ttl_seconds`, the rules, and what clients may ask for.
    pub lifetimes: Lifetimes,
    /// How many different answers are kept for one request and served in turn.
    pub samples: u32,
    /// The longest request body that is looked at.
    pub request_bytes_max: usize,
    /// Which answers may be stored.
    pub limits: Limits,
    /// A header, in lower case, by which a trusted gateway names the tenant.
    pub tenant_header: Option<String>,
    /// How requests without a credential are treated.
    pub anonymous: Anonymous,
    /// Tenants that share their answers.
    pub groups: Groups,
    /// Which of the clients' instructions to the cache are obeyed.
    pub client_control: ClientControl,
    /// Requests that ask for a higher temperature bypass; none is no limit.
    pub temperature_max: Option<f64>,
    /// Beginnings of the paths that are looked at; empty is all.
    pub paths: Vec<String>,
    /// Which API answers at paths whose end names none, or a wrong one.
    pub path_rules: Vec<PathRule>,
    /// Which parts of a request are out of the key, in it, or a reason to bypass.
    pub rules: Arc<Rules>,
    /// Routes that are part of the key, whatever they do to requests.
    pub keyed_routes: Vec<String>,
    /// When routes have to be proven.
    pub prove_routes: Proof,
}

/// When a route has to be proven before its requests are answered from the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// Where several routes lead to one upstream.
    #[default]
    InDoubt,
    /// Always.
    Always,
}

/// The JSON as it is written. Each field is described in [`Config`] and in `docs/envoy.md`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    upstreams: BTreeMap<String, String>,
    daemon_cluster: Option<String>,
    lookup_timeout_ms: Option<u64>,
    insert_timeout_ms: Option<u64>,
    fill_wait_ms: Option<u64>,
    epoch_poll_ms: Option<u64>,
    hot_bytes_max: Option<u64>,
    hot_entry_bytes_max: Option<u64>,
    hot_ttl_seconds: Option<u64>,
    ttl_seconds: Option<u64>,
    ttl_seconds_max: Option<u64>,
    ttl: Option<Vec<TtlTable>>,
    samples: Option<u64>,
    request_bytes_max: Option<u64>,
    entry_bytes_max: Option<u64>,
    tenant_header: Option<String>,
    anonymous: Option<AnonymousMode>,
    group: Option<Vec<GroupTable>>,
    client_control: Option<ClientControlMode>,
    provider_control: Option<ProviderControlMode>,
    allow_length: Option<bool>,
    temperature_max: Option<f64>,
    paths: Option<Vec<String>>,
    path: Option<Vec<PathTable>>,
    ignored_headers: Option<Vec<String>>,
    ignored_cookies: Option<Vec<String>>,
    ignored_query: Option<Vec<String>>,
    ignored_fields: Option<Vec<String>>,
    keyed_fields: Option<Vec<String>>,
    bypass_fields: Option<Vec<String>>,
    bypass_models: Option<Vec<String>>,
    keyed_routes: Option<Vec<String>>,
    prove_routes: Option<ProofMode>,
    /// Not read: another text makes another configuration, which knows no routes yet.
    #[serde(rename = "revision")]
    _revision: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum ProofMode {
    InDoubt,
    Always,
}

/// The name of the cluster in our examples.
const DAEMON_CLUSTER: &str = "reflex_edge";
/// A lookup takes a tenth of a millisecond; a daemon that needs this long is in trouble.
const LOOKUP_TIMEOUT_MS: u64 = 100;
/// An insert delays no client, but its body takes memory until it is done.
const INSERT_TIMEOUT_MS: u64 = 2000;
/// Most answers are complete by then; a client that waits longer should ask for itself.
const FILL_WAIT_MS: u64 = 5000;
/// A purge is to empty the hot tier within a second.
const EPOCH_POLL_MS: u64 = 500;
/// For each worker; an edge node with eight workers can spare that.
const HOT_BYTES_MAX: u64 = 64 << 20;
/// A single answer must not push out many.
const HOT_ENTRY_BYTES_MAX: u64 = 1 << 20;
/// Long enough for a burst of the same question.
const HOT_TTL_SECONDS: u64 = 300;
/// The same as the daemon's default.
const ENTRY_BYTES_MAX: u64 = 16 << 20;

/// Envoy gives a module 1 GiB, which it never gives back; recordings need room beside the tier.
const HOT_BYTES_LIMIT: u64 = 256 << 20;
/// A reply of the daemon of 32 MiB or more does not reach the filter.
const ENTRY_BYTES_LIMIT: u64 = 30 << 20;
/// Bodies are copied into the module whole. Envoy's default buffer has room for
/// [`REQUEST_BYTES_MAX`] only; past its limit, it answers 413.
const REQUEST_BYTES_LIMIT: u64 = 16 << 20;
/// A day. Timers of Envoy are 32-bit milliseconds.
const MILLISECONDS_LIMIT: u64 = 86_400_000;

impl Config {
    /// Reads the plugin's configuration.
    ///
    /// # Errors
    ///
    /// One line that names the field and what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let file: File = serde_json::from_slice(json).map_err(|error| named(json, &error))?;

        let mut upstreams = BTreeMap::new();
        for (cluster, url) in &file.upstreams {
            let upstream = Upstream::parse(url).map_err(|why| {
                format!("upstreams: {cluster}: `{url}` is not a provider's URL: {why}")
            })?;
            upstreams.insert(cluster.clone(), Arc::new(upstream));
        }
        if upstreams.is_empty() {
            return Err("upstreams: name at least one cluster and its provider's URL".into());
        }
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
        let keyed_routes = file.keyed_routes.unwrap_or_default();
        if keyed_routes.iter().any(String::is_empty) {
            return Err("keyed_routes: a route needs a name to be told from others".into());
        }
        check_temperature_max(file.temperature_max)?;
        let paths = file.paths.unwrap_or_default();
        if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
            return Err(format!("paths: `{path}` does not begin with a slash"));
        }
        if let Some(path) = paths.iter().find(|path| normal_path(path) != **path) {
            let normal = normal_path(path);
            return Err(format!(
                "paths: `{path}`: paths are compared in normal form; write `{normal}`"
            ));
        }
        let milliseconds = |name, value, default| bounded(name, value, default, MILLISECONDS_LIMIT);
        let entry_bytes_max = bounded(
            "entry_bytes_max",
            file.entry_bytes_max,
            ENTRY_BYTES_MAX,
            ENTRY_BYTES_LIMIT,
        )?;
        let seconds = |name, value, default| {
            bounded(name, value, default, SECONDS_LIMIT).map(Duration::from_secs)
        };
        let lifetimes = Lifetimes {
            rules: lives(file.ttl.unwrap_or_default())?,
            usual: Some(seconds("ttl_seconds", file.ttl_seconds, TTL_SECONDS)?),
            asked_max: Some(seconds(
                "ttl_seconds_max",
                file.ttl_seconds_max,
                TTL_SECONDS_MAX,
            )?),
        };
        let groups = groups(
            &file.group.unwrap_or_default(),
            file.tenant_header.as_deref(),
        )?;
        let daemon_cluster = file.daemon_cluster.unwrap_or_else(|| DAEMON_CLUSTER.into());
        Ok(Self {
            upstreams,
            daemon_cluster: Some(daemon_cluster).filter(|name| !name.is_empty()),
            lookup_timeout_ms: milliseconds(
                "lookup_timeout_ms",
                file.lookup_timeout_ms,
                LOOKUP_TIMEOUT_MS,
            )?,
            insert_timeout_ms: milliseconds(
                "insert_timeout_ms",
                file.insert_timeout_ms,
                INSERT_TIMEOUT_MS,
            )?,
            // 0 is allowed: requests do not wait for each other.
            fill_wait_ms: file
                .fill_wait_ms
                .map_or(Ok(FILL_WAIT_MS), |value| match value {
                    0 => Ok(0),
                    value => milliseconds("fill_wait_ms", Some(value), FILL_WAIT_MS),
                })?,
            epoch_poll_ms: milliseconds("epoch_poll_ms", file.epoch_poll_ms, EPOCH_POLL_MS)?,
            // 0 is allowed: no hot tier.
            hot_bytes_max: match file.hot_bytes_max {
                Some(0) => 0,
                value => bounded("hot_bytes_max", value, HOT_BYTES_MAX, HOT_BYTES_LIMIT)? as usize,
            },
            hot_entry_bytes_max: bounded(
                "hot_entry_bytes_max",
                file.hot_entry_bytes_max,
                HOT_ENTRY_BYTES_MAX,
                HOT_BYTES_LIMIT,
            )? as usize,
            hot_ttl_ms: bounded(
                "hot_ttl_seconds",
                file.hot_ttl_seconds,
                HOT_TTL_SECONDS,
                SECONDS_LIMIT,
            )? * 1000,
            lifetimes,
            samples: bounded("samples", file.samples, 1, SAMPLES_LIMIT)? as u32,
            request_bytes_max: bounded(
                "request_bytes_max",
                file.request_bytes_max,
                REQUEST_BYTES_MAX,
                REQUEST_BYTES_LIMIT,
            )? as usize,
            limits: Limits {
                body_bytes_max: entry_bytes_max as usize,
                allow_length: file.allow_length.unwrap_or(false),
                provider_control: file.provider_control.unwrap_or_default().into(),
            },
            tenant_header: file.tenant_header,
            anonymous: file.anonymous.unwrap_or_default().into(),
            groups,
            client_control: file.client_control.unwrap_or_default().into(),
            temperature_max: file.temperature_max,
            paths,
            path_rules: path_rules(&file.path.unwrap_or_default())?,
            rules: Arc::new(rules),
            keyed_routes,
            prove_routes: match file.prove_routes {
                Some(ProofMode::InDoubt) | None => Proof::InDoubt,
                Some(ProofMode::Always) => Proof::Always,
            },
        })
    }

    /// The rules of this configuration in the words of `reflex-llm`.
    pub fn policy(&self) -> Policy<'_> {
        Policy {
            anonymous: self.anonymous,
            tenant_header: self.tenant_header.as_deref(),
            temperature_max: self.temperature_max,
            client_control: self.client_control,
            paths: &self.path_rules,
            rules: Some(&self.rules),
        }
    }

    /// Whether the route of that name is part of the key.
    pub fn keys_route(&self, name: &str) -> bool {
        let mut patterns = self.keyed_routes.iter();
        !name.is_empty() && patterns.any(|pattern| is_like(pattern, name))
    }

    /// Whether requests with this path, as sent, are looked at.
    pub fn looks_at(&self, path: &str) -> bool {
        if self.paths.is_empty() {
            return true;
        }
        let path = normal_path(path);
        self.paths.iter().any(|start| path.starts_with(start))
    }
}

/// An error of the parser with the field that it is about, which the parser does not say of a
/// value that has the wrong type.
fn named(json: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(json) else {
        return text;
    };
    // One field at a time, beside the one that must be there.
    let alone = |(name, value): (&String, &Value)| {
        let mut one = Map::new();
        one.insert("upstreams".into(), Value::Object(Map::new()));
        one.insert(name.clone(), value.clone());
        serde_json::from_value::<File>(one.into()).is_err()
    };
    match fields.iter().find(|field| alone(*field)) {
        Some((name, _)) if !text.contains(&format!("`{name}`")) => format!("{name}: {text}"),
        _ => text,
    }
}

/// The value, or its default; an error where it is zero or more than can be.
fn bounded(name: &str, value: Option<u64>, default: u64, most: u64) -> Result<u64, String> {
    match value {
        None => Ok(default),
        Some(value) if (1..=most).contains(&value) => Ok(value),
        Some(value) => Err(format!("{name}: {value} is not between 1 and {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reflex_llm::{Life, ProviderControl};

    const LEAST: &str = r#"{"upstreams": {"openai": "https://api.openai.com/"}}"#;

    #[test]
    fn one_upstream_is_enough() {
        let config = Config::parse(LEAST.as_bytes()).expect("valid");
        let upstream = &config.upstreams["openai"];
        assert_eq!(upstream.origin, "https://api.openai.com");
        assert_eq!(upstream.authority, "api.openai.com");
        assert_eq!(upstream.prefix, "");
        assert_eq!(config.daemon_cluster.as_deref(), Some("reflex_edge"));
        assert_eq!(config.request_bytes_max, 1_048_576);
        assert_eq!(config.anonymous, Anonymous::Bypass);
        assert_eq!(config.policy().temperature_max, None);
        assert!(config.looks_at("/anything"));
    }

    #[test]
    fn what_is_set_counts() {
        let json = r#"{
            "upstreams": {"a": "http://127.0.0.1:9000/openai/v2/"},
            "daemon_cluster": "", "fill_wait_ms": 0, "hot_bytes_max": 0, "anonymous": "share",
            "tenant_header": "x-team", "paths": ["/v1/"], "allow_length": true,
            "temperature_max": 0, "samples": 3, "client_control": "no-refresh",
            "provider_control": "obey",
            "ttl_seconds_max": 9, "ttl": [{"model": "live-*", "seconds": 0}],
            "group": [{"name": "us", "trusted": ["red"]}],
            "ignored_headers": ["x-id"], "ignored_cookies": ["lb_*"], "ignored_query": ["*_id"],
            "ignored_fields": ["user"], "keyed_fields": ["metadata"], "bypass_fields": ["deep_*"], "bypass_models": ["*-live"],
            "keyed_routes": ["canary-*"], "prove_routes": "always", "revision": "7"
        }"#;
        let config = Config::parse(json.as_bytes()).expect("valid");
        assert_eq!(config.upstreams["a"].prefix, "/openai/v2");
        assert_eq!(config.daemon_cluster, None);
        assert_eq!((config.fill_wait_ms, config.hot_bytes_max), (0, 0));
        assert_eq!(config.policy().tenant_header, Some("x-team"));
        assert_eq!(config.policy().temperature_max, Some(0.0));
        assert!(config.limits.allow_length);
        assert_eq!(config.limits.provider_control, ProviderControl::Obey);
        assert_eq!(config.samples, 3);
        assert_eq!(config.policy().client_control, ClientControl::NoRefresh);
        let life = |model, asked| config.lifetimes.of("/v1/responses", Some(model), asked);
        assert_eq!(life("live-1", None), Life::NotKept);
        assert_eq!(life("gpt", Some(99)), Life::For(Duration::from_secs(9)));
        assert!(!config.groups.is_empty());
        let rules = config.policy().rules.expect("given");
        assert_eq!(rules.ignored_headers, ["x-id"]);
        assert_eq!(rules.ignored_cookies, ["lb_*"]);
        assert_eq!(rules.ignored_query, ["*_id"]);
        assert_eq!(rules.ignored_fields, ["user"]);
        assert_eq!(rules.keyed_fields, ["metadata"]);
        assert_eq!(rules.bypass_fields, ["deep_*"]);
        assert_eq!(rules.bypass_models, ["*-live"]);
        assert!(config.keys_route("canary-1"));
        assert!(!config.keys_route("main") && !config.keys_route(""));
        assert_eq!(config.prove_routes, Proof::Always);
        assert!(config.looks_at("/v1/chat") && !config.looks_at("/v2/chat"));
        assert!(config.looks_at("//v1/chat") && !config.looks_at("/v1/../v2/chat"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |more: &str, part: &str| {
            let json = format!("{}, {more}}}", LEAST.trim_end_matches('}'));
            let json = json.replacen("/\",", "/\"},", 1);
            let error = Config::parse(json.as_bytes()).expect_err(more);
            assert!(error.contains(part), "{more}: {error}");
            assert!(!error.contains('\n'), "{more}: {error}");
        };
        check(r#""ttl_secons": 1"#, "unknown field `ttl_secons`");
        check(r#""ttl_seconds": 0"#, "ttl_seconds: 0");
        check(r#""ttl_seconds": "1""#, "invalid type: string");
        check(r#""hot_bytes_max": 1000000000"#, "hot_bytes_max");
        check(r#""entry_bytes_max": 33554432"#, "entry_bytes_max");
        check(r#""tenant_header": "X-Team""#, "tenant_header");
        check(r#""tenant_header": "host""#, "names no tenant");
        check(r#""tenant_header": ":authority""#, "tenant_header");
        check(r#""ignored_headers": ["x-api-*"]"#, "`x-api-key`");
        check(r#""ignored_headers": "x-id""#, "ignored_headers");
        check(r#""ignored_cookies": ["*"]"#, "ignored_cookies");
        check(r#""ignored_query": ["api*"]"#, "`api-key`");
        check(r#""ignored_fields": ["model"]"#, "ignored_fields");
        check(r#""anonymous": "yes""#, "anonymous");
        check(r#""keyed_routes": [""]"#, "keyed_routes");
        check(r#""prove_routes": "never""#, "prove_routes");
        check(r#""revision": 7"#, "revision");
        check(r#""paths": ["v1"]"#, "paths");
        check(r#""paths": ["/v1//a"]"#, "write `/v1/a`");
        check(r#""path": [{"path": "v1", "api": "none"}]"#, "path: `v1`");
        check(r#""path": [{"path": "/v1", "api": "chat"}]"#, "path: `/v1`");
        check(r#""path": [{"path": "/v1"}]"#, "`api`");
        check(r#""temperature_max": -0.1"#, "temperature_max: -0.1");
        check(r#""temperature_max": 1e999"#, "number out of range");
        check(r#""temperature_max": "low""#, "temperature_max");
        check(r#""samples": 0"#, "samples: 0");
        check(r#""client_control": "some""#, "client_control");
        check(r#""provider_control": "some""#, "provider_control");
        check(r#""ttl_seconds_max": 0"#, "ttl_seconds_max: 0");
        check(r#""ttl": [{"seconds": "soon"}]"#, "ttl: seconds");
        check(r#""ttl": [{"seconds": -1}]"#, "ttl: seconds");
        check(r#""ttl": [{"seconds": 9999999999}]"#, "ttl: seconds");
        check(r#""ttl": [{"modle": "m", "seconds": 1}]"#, "`modle`");
        check(
            r#""ttl": [{"path": "/a//b", "seconds": 1}]"#,
            "write `/a/b`",
        );
        check(r#""group": [{"name": ""}]"#, "group");
        check(
            r#""group": [{"name": "a", "trusted": ["x"]}]"#,
            "tenant_header",
        );
        let check = |json: &str, part: &str| {
            let error = Config::parse(json.as_bytes()).expect_err(json);
            assert!(error.contains(part), "{json}: {error}");
        };
        check("", "EOF");
        check("{}", "missing field `upstreams`");
        check(r#"{"upstreams": {}}"#, "upstreams");
        for url in [
            "api.openai.com",
            "ftp://a",
            "https://",
            "https://u:p@a",
            "http://a/?q",
            "http://a b",
        ] {
            check(&format!(r#"{{"upstreams": {{"c": "{url}"}}}}"#), url);
        }
    }
}
