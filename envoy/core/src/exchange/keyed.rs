//! The request that the key stands for, and whether the provider got it.

use std::rc::Rc;

use reflex_llm::{Bypass, Head, Prepared};

use super::Request;
use crate::config::{Config, Upstream};
use crate::routes::Route;

/// A request as it was keyed.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    /// The route that Envoy had chosen by then.
    pub(super) route: Rc<Route>,
    /// What the key takes from the head.
    pub(super) prepared: Prepared,
    /// Whether the key has the route in it, whatever that does to requests.
    pub(super) by_route: bool,
    /// The header that names the tenant, and its values.
    tenant: Vec<(String, Vec<u8>)>,
    length: Option<u64>,
}

/// How what the provider got differs from what is keyed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// Another route, or the provider behind another cluster.
    Route(Rc<Route>),
    /// This part of the request.
    Part(String),
}

/// Headers that Envoy's router adds to say what it has changed. The change itself is seen.
const ROUTERS: [&str; 2] = ["x-envoy-original-path", "x-envoy-original-host"];

impl Keyed {
    /// Looks at a request's head as the filter has it. `path` is the provider's.
    pub(super) fn of(
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
            route: Rc::clone(request.route),
            prepared,
            by_route,
            tenant,
            length: request.length,
        })
    }

    /// Compares it with what the provider got.
    pub(super) fn check(
        &self,
        config: &Config,
        upstream: &Upstream,
        sent: &Request<'_>,
    ) -> Result<(), Difference> {
        if *sent.route != self.route {
            return Err(Difference::Route(Rc::clone(sent.route)));
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
    pub(super) fn tells_tenant(&self, sent: &Request<'_>) -> bool {
        self.tenant.iter().any(|(name, _)| sent.has(name))
    }
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
