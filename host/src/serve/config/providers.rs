//! The providers: one by its URL, or several as `[[upstream]]`, each with the requests that are for it.

use super::draft::Draft;
use super::provider_table::{ProviderTable, Upstreams};
use super::read::Row;
use super::table::Values;
use super::tls::ProviderTlsFiles;
use super::upstream::Upstream;
use reflex_llm::{MODEL_BYTES_MAX, check_path_pattern, is_below, is_like_in_any_case};
use reflex_settings::amount;
use std::time::Duration;

/// Each request goes through all of them, and each has connections of its own.
const UPSTREAMS_MAX: usize = 64;
/// Patterns of one list of an `[[upstream]]`: providers have some dozens of models.
const PATTERNS_MAX: usize = 100;
/// Longest pattern of a host or a path: names of hosts have at most 253 bytes. The names of providers are
/// labels of metrics, and have the same bound.
const TEXT_BYTES_MAX: usize = 256;
/// A year, as for other waits.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
/// More failures in a row than this are no bound.
const BREAKER_FAILURES_MAX: u32 = 1000;

/// A provider, and which requests are for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// For metrics and messages.
    pub name: String,
    /// Where it is.
    pub url: Upstream,
    /// Which requests are for it.
    pub takes: Takes,
    /// Its certificates.
    pub tls: ProviderTlsFiles,
    /// How long connecting may take, TLS included.
    pub connect_max: Duration,
    /// How long it may take until its response begins.
    pub response_max: Duration,
    /// Failures in a row after which requests are refused for a while, if the operator says so; 0 is never.
    pub breaker_failures: Option<u32>,
    /// The provider for which it stands in, because their answers are interchangeable.
    pub interchangeable_with: Option<String>,
}

/// Which requests a provider takes: those that agree with each of these. An empty list or none counts for
/// all requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Takes {
    /// Patterns of the name that the client asks for, without a port.
    pub hosts: Vec<String>,
    /// The first segments of the path.
    pub path_prefix: Option<String>,
    /// Whether the provider gets the path without them.
    pub strips_prefix: bool,
    /// Patterns of models.
    pub models: Vec<String>,
}

impl Takes {
    /// Whether that is every request.
    pub(crate) fn is_all(&self) -> bool {
        self.hosts.is_empty() && self.path_prefix.is_none() && self.models.is_empty()
    }

    /// Whether the other one takes no request that this one does not, as far as the patterns show.
    fn covers(&self, other: &Self) -> bool {
        let has_path = match (&self.path_prefix, &other.path_prefix) {
            (None, _) => true,
            (Some(own), Some(other)) => is_below(other, own) == Some(true),
            (Some(_), None) => false,
        };
        // A star of the other one is matched by a star only.
        let all = |own: &[String], other: &[String]| {
            let is_in = |pattern: &String| own.iter().any(|own| is_like_in_any_case(own, pattern));
            own.is_empty() || !other.is_empty() && other.iter().all(is_in)
        };
        has_path && all(&self.hosts, &other.hosts) && all(&self.models, &other.models)
    }

    /// What no request agrees with.
    fn check(&self) -> Vec<String> {
        let mut errors = Vec::new();
        let lists = [("host", &self.hosts), ("model", &self.models)];
        for (list, patterns) in lists {
            if patterns.len() > PATTERNS_MAX {
                errors.push(format!("{list}: more than {PATTERNS_MAX} patterns"));
            }
            let most = match list {
                "model" => MODEL_BYTES_MAX,
                _ => TEXT_BYTES_MAX,
            };
            let is_odd = |pattern: &&String| pattern.is_empty() || pattern.len() > most;
            for pattern in patterns.iter().filter(is_odd) {
                errors.push(format!("{list}: `{pattern}` is not 1 to {most} bytes long"));
            }
        }
        for host in self.hosts.iter().filter(|host| !is_host_pattern(host)) {
            let why = "is no name of a host, which has no scheme, port or path";
            errors.push(format!("host: `{host}` {why}"));
        }
        if let Some(prefix) = &self.path_prefix {
            errors.extend(check_prefix(prefix).err());
        }
        if self.strips_prefix && self.path_prefix.is_none() {
            errors.push("strip_prefix needs path_prefix".into());
        }
        errors
    }
}

/// Names and addresses; those of IPv6 in brackets.
fn is_host_pattern(pattern: &str) -> bool {
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"*-._".contains(&byte);
    match pattern.strip_prefix('[') {
        Some(rest) => rest.ends_with(']'),
        None => pattern.bytes().all(is_in_name),
    }
}

/// The beginning of a path is found again in a path as it was sent, so all servers must read it alike.
fn check_prefix(prefix: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let is_prefix = prefix.starts_with('/') && !prefix.ends_with('/');
    if !is_prefix || prefix.len() > TEXT_BYTES_MAX || !prefix.bytes().all(is_plain) {
        return Err(format!(
            "path_prefix: `{prefix}` is not the beginning of a path in plain letters, such as `/anthropic`, \
             without a slash at its end and of at most {TEXT_BYTES_MAX} bytes"
        ));
    }
    check_path_pattern(prefix).map_err(|error| format!("path_prefix: {error}"))
}

impl ProviderTable {
    /// What it means, with the usual values of the file.
    ///
    /// # Errors
    ///
    /// All mistakes.
    fn provider(&self, values: &Values) -> Result<Provider, Vec<String>> {
        let takes = Takes {
            hosts: self.host.clone().into_list(),
            path_prefix: self.path_prefix.clone(),
            strips_prefix: self.strip_prefix,
            models: self.model.clone().into_list(),
        };
        let mut errors = takes.check();
        let mut wait = |name: &str, text: &Option<String>, usual: Duration| {
            let time = text.as_deref().map(amount::duration);
            match time {
                None => return usual,
                Some(Ok(time)) if !time.is_zero() && time <= WAIT_MAX => return time,
                Some(Ok(_)) => errors.push(format!("{name}: not from 1ms to a year")),
                Some(Err(error)) => errors.push(format!("{name}: {error}")),
            }
            usual
        };
        let connect_max = wait("connect_max", &self.connect_max, values.connect_max.0);
        let response_max = wait("response_max", &self.response_max, values.response_max.0);
        if self.cert.is_some() != self.key.is_some() {
            errors.push("cert and key belong together".into());
        }
        if self
            .breaker_failures
            .is_some_and(|most| most > BREAKER_FAILURES_MAX)
        {
            errors.push(format!(
                "breaker_failures: not from 0 to {BREAKER_FAILURES_MAX}"
            ));
        }
        if self.interchangeable_with.is_some() && takes != Takes::default() {
            let why = "interchangeable_with: it gets requests of the other one, and takes none by a host, \
                       path_prefix or model of its own";
            errors.push(why.into());
        }
        let url: Option<Upstream> = self.url.parse().map_err(|error| errors.push(error)).ok();
        let named = |url: &Upstream| self.name.clone().unwrap_or_else(|| name_of(url));
        let name = url.as_ref().map_or_else(String::new, named);
        let is_name = |name: &str| {
            let is_shown = |letter: char| !letter.is_control();
            (1..=TEXT_BYTES_MAX).contains(&name.len()) && name.chars().all(is_shown)
        };
        if url.is_some() && !is_name(&name) {
            errors.push(format!(
                "name: not 1 to {TEXT_BYTES_MAX} bytes of visible text"
            ));
        }
        let Some(url) = url.filter(|_| errors.is_empty()) else {
            return Err(errors);
        };
        let usual = values.provider_tls();
        Ok(Provider {
            name,
            url,
            takes,
            tls: ProviderTlsFiles {
                ca: self.ca.clone().or(usual.ca),
                pair: self.cert.clone().zip(self.key.clone()).or(usual.pair),
            },
            connect_max,
            response_max,
            breaker_failures: self.breaker_failures,
            interchangeable_with: self.interchangeable_with.clone(),
        })
    }
}

/// The name of a provider that the operator has given none.
fn name_of(url: &Upstream) -> String {
    format!("{}{}", url.authority, url.prefix)
}

impl Draft {
    /// All providers, in the order in which requests are for them.
    pub(super) fn providers(&mut self) -> Vec<Provider> {
        let values = self.values.clone();
        match &values.upstream {
            None => Vec::new(),
            Some(Upstreams::One(url)) => vec![Provider {
                name: name_of(url),
                url: url.clone(),
                takes: Takes::default(),
                tls: values.provider_tls(),
                connect_max: values.connect_max.0,
                response_max: values.response_max.0,
                breaker_failures: None,
                interchangeable_with: None,
            }],
            Some(Upstreams::Several(tables)) => self.several(&tables.0, &values),
        }
    }

    fn several(&mut self, rows: &[Row<ProviderTable>], values: &Values) -> Vec<Provider> {
        if rows.is_empty() {
            self.refuse("upstream", "an empty list names no provider".into());
        }
        if rows.len() > UPSTREAMS_MAX {
            let count = rows.len();
            let why = format!("{count} tables are over the limit of {UPSTREAMS_MAX}");
            self.refuse("upstream", why);
            return Vec::new();
        }
        let mut known: Vec<(usize, Provider)> = Vec::new();
        let mut has_all = true;
        for row in rows {
            match row.table.provider(values) {
                Ok(provider) => known.push((row.at, provider)),
                Err(errors) => {
                    has_all = false;
                    for error in errors {
                        self.refuse_at(row.at, "upstream", error);
                    }
                }
            }
        }
        for (number, (at, provider)) in known.iter().enumerate() {
            for (_, earlier) in &known[..number] {
                for error in odd(provider, earlier) {
                    self.refuse_at(*at, "upstream", error);
                }
            }
            // The one that is meant may be among those with mistakes.
            if let Some(other) = provider.interchangeable_with.as_deref().filter(|_| has_all) {
                let other = known.iter().find(|(_, known)| known.name == other);
                if let Some(error) = check_stand_in(provider, other.map(|(_, other)| other)) {
                    self.refuse_at(*at, "upstream", error);
                }
            }
        }
        known.into_iter().map(|(_, provider)| provider).collect()
    }
}

/// What does not go together with an earlier one.
fn odd(provider: &Provider, earlier: &Provider) -> Vec<String> {
    let mut errors = Vec::new();
    let name = &earlier.name;
    if *name == provider.name {
        errors.push(format!(
            "`{name}` is the name of two: give each a `name` of its own"
        ));
    }
    let takes_requests = |it: &Provider| it.interchangeable_with.is_none();
    let both = takes_requests(provider) && takes_requests(earlier);
    if both && earlier.takes.covers(&provider.takes) {
        errors.push(format!(
            "no request comes this far: `{name}` takes them all before it"
        ));
    }
    // A key has the server's address, and nothing that tells callers apart who have its certificates.
    let is_same = provider.url.is_same_server(&earlier.url);
    if is_same && provider.tls.pair != earlier.tls.pair {
        errors.push(format!(
            "the same server as `{name}` with another certificate of the daemon: keys cannot tell them apart"
        ));
    }
    errors
}

/// What keeps a provider from standing in for the other one.
fn check_stand_in(provider: &Provider, other: Option<&Provider>) -> Option<String> {
    let name = provider.interchangeable_with.as_deref().unwrap_or_default();
    let why = match other {
        None => "there is no such name",
        Some(other) if other.name == provider.name => "that is its own name",
        Some(other) if other.interchangeable_with.is_some() => {
            "that one stands in for another itself"
        }
        Some(other) if other.url == provider.url => "both have the same URL",
        Some(_) => return None,
    };
    Some(format!("interchangeable_with: `{name}`: {why}"))
}

#[cfg(test)]
mod tests;
