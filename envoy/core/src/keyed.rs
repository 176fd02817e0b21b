//! The request that the key stands for, what of it decides before its body is there, and whether the
//! provider got it.

use std::sync::Arc;

use reflex_llm::{Bypass, Head, Prepared};

use crate::config::{Config, Upstream};
use crate::request::Request;
use crate::routes::{Route, Routes, Standing};

/// A request as it was keyed.
#[derive(Clone, Debug)]
pub struct Keyed {
    /// The route that Envoy had chosen by then.
    pub route: Arc<Route>,
    /// What the key takes from the head.
    pub prepared: Prepared,
    /// Whether the key has the route in it, whatever that does to requests.
    pub by_route: bool,
    /// The header that names the tenant, and its values.
    tenant: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
}

/// A request whose head says that it may be cacheable, until its body has come.
#[derive(Debug)]
pub struct Inspected {
    /// What is keyed.
    pub keyed: Keyed,
    /// The path that the provider gets, for the operator's rules.
    pub path: String,
    /// The provider.
    pub upstream: Arc<Upstream>,
}

/// How what the provider got differs from what is keyed.
#[derive(Debug, PartialEq, Eq)]
pub enum Difference {
    /// Another route, or the provider behind another cluster.
    Route(Arc<Route>),
    /// This part of the request.
    Part(String),
}

/// Headers that Envoy's router adds to say what it has changed. The change itself is seen.
const ROUTERS: [&str; 2] = ["x-envoy-original-path", "x-envoy-original-host"];

impl Keyed {
    /// Looks at a request's head as the filter has it. `path` is the provider's.
    ///
    /// # Errors
    ///
    /// Why the request bypasses.
    pub fn of(
        config: &Config,
        upstream: &Upstream,
        by_route: bool,
        path: &str,
        request: &Request<'_>,
    ) -> Result<Self, Bypass> {
        let origin = match by_route {
            // No URL has such a character.
            true => &format!(
                "{}\0{}\0{}",
                upstream.origin, request.route.virtual_host, request.route.name
            ),
            false => &upstream.origin,
        };
        let prepared = prepared(config, origin, &Request { path, ..*request })?;
        let tenant = match config.tenant_header.as_deref() {
            Some(named) => request
                .headers
                .iter()
                .filter(|(name, _)| *name == named)
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            None => Vec::new(),
        };
        Ok(Self {
            route: Arc::clone(request.route),
            prepared,
            by_route,
            tenant,
            length: request.length,
        })
    }

    /// Compares it with what the provider got.
    ///
    /// # Errors
    ///
    /// How the two differ: the answer is not to the request that is keyed.
    pub fn check(
        &self,
        config: &Config,
        upstream: &Upstream,
        sent: &Request<'_>,
    ) -> Result<(), Difference> {
        if *sent.route != self.route {
            return Err(Difference::Route(Arc::clone(sent.route)));
        }
        if self.by_route {
            return Ok(());
        }
        if !upstream.is_host(sent.authority) {
            return Err(Difference::Part("the host".into()));
        }
        if sent.length != self.length {
            return Err(Difference::Part("the length of the body".into()));
        }
        let is_kept = |(name, _): &&(&str, &[u8])| !ROUTERS.contains(name);
        let mut headers: Vec<_> = sent.headers.iter().filter(is_kept).copied().collect();
        let named = config.tenant_header.as_deref();
        if !headers.iter().any(|(name, _)| Some(*name) == named) {
            // The provider is not to learn of tenants.
            let tenant = self.tenant.iter();
            headers.extend(tenant.map(|(name, value)| (name.as_str(), value.as_slice())));
        }
        let headers = &headers;
        let part = match prepared(config, &upstream.origin, &Request { headers, ..*sent }) {
            Ok(prepared) => self.prepared.differs_in(&prepared),
            Err(why) => Some(format!("what makes it a bypass ({why})")),
        };
        part.map_or(Ok(()), |part| Err(Difference::Part(part)))
    }

    /// Whether the provider has learnt of the tenant.
    pub fn tells_tenant(&self, sent: &Request<'_>) -> bool {
        self.tenant.iter().any(|(name, _)| sent.has(name))
    }
}

/// What can be decided before the body is there.
///
/// # Errors
///
/// Why the request bypasses.
pub fn inspect(
    config: &Config,
    routes: &Routes,
    request: &Request<'_>,
) -> Result<Inspected, Bypass> {
    let upstream = config
        .upstreams
        .get(&request.route.cluster)
        .ok_or(Bypass::Upstream)?;
    // Envoy leaves this header only on a connection that becomes a tunnel, whose body has no end.
    if request.has("upgrade") {
        return Err(Bypass::Upgrade);
    }
    if !config.looks_at(request.path) {
        return Err(Bypass::Path);
    }
    let mut types = request
        .headers
        .iter()
        .filter(|(name, _)| *name == "content-type");
    if types.any(|(_, value)| value.starts_with(b"application/grpc")) {
        return Err(Bypass::Grpc);
    }
    let by_route = config.keys_route(&request.route.name);
    let path = upstream.path(request.path);
    let keyed = Keyed::of(config, upstream, by_route, &path, request)?;
    // Envoy asks the client for the body and removes this header, unless `proxy_100_continue`
    // leaves both to the provider. Then the client sends its body only after the provider has the
    // head.
    if request.has("expect") {
        return Err(Bypass::Expect);
    }
    if !by_route && routes.standing(upstream, request.route) == Standing::Refused {
        return Err(Bypass::Route);
    }
    if request
        .length
        .is_some_and(|length| length > config.request_bytes_max as u64)
    {
        return Err(Bypass::BodyTooLarge);
    }
    Ok(Inspected {
        keyed,
        path,
        upstream: Arc::clone(upstream),
    })
}

/// What the key takes from a head.
fn prepared(config: &Config, upstream: &str, request: &Request<'_>) -> Result<Prepared, Bypass> {
    let head = Head {
        method: request.method,
        upstream,
        path: request.path,
        headers: request.headers,
    };
    let candidate = reflex_llm::candidate(&head, &config.policy())?;
    let group = config.groups.of(candidate.tenant());
    let candidate = candidate.as_tenant(group, config.tenant_header.as_deref());
    Ok(candidate.prepare())
}
