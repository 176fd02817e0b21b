//! The request that the key stands for, and whether the provider got it.

use reflex_llm::{Bypass, Head, Prepared};

use super::Request;
use crate::config::{Config, Upstream};
use crate::routes::Route;

/// A request as it was keyed.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    /// The route that Envoy had chosen by then.
    pub(super) route: Route,
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
    Route(Route),
    /// This part of the request.
    Part(String),
}

/// Headers that Envoy's router adds to say what it has changed. The change itself is seen.
const ROUTERS: [&str; 2] = ["x-envoy-original-path", "x-envoy-original-host"];

impl Keyed {
    /// Looks at a request's head as the filter has it, whose path goes behind the upstream's.
    pub(super) fn of(
        config: &Config,
        upstream: &Upstream,
        by_route: bool,
        request: &mut Request,
    ) -> Result<Self, Bypass> {
        let own = std::mem::take(&mut request.path);
        request.path = format!("{}{own}", upstream.prefix);
        let origin = match by_route {
            // No URL has such a character.
            true => &format!(
                "{}\0{}\0{}",
                upstream.origin, request.route.virtual_host, request.route.name
            ),
            false => &upstream.origin,
        };
        let prepared = prepared(config, origin, request)?;
        let tenant = config.tenant_header.as_deref();
        let tenant = request
            .headers
            .iter()
            .filter(|(name, _)| Some(name.as_str()) == tenant);
        Ok(Self {
            route: request.route.clone(),
            prepared,
            by_route,
            tenant: tenant.cloned().collect(),
            length: request.length,
        })
    }

    /// Compares it with what the provider got.
    pub(super) fn check(
        &self,
        config: &Config,
        upstream: &Upstream,
        mut sent: Request,
    ) -> Result<(), Difference> {
        if sent.route != self.route {
            return Err(Difference::Route(sent.route));
        }
        if self.by_route {
            return Ok(());
        }
        if !upstream.is_host(&sent.authority) {
            return Err(Difference::Part("the host".into()));
        }
        if sent.length != self.length {
            return Err(Difference::Part("the length of the body".into()));
        }
        let named = config.tenant_header.as_deref();
        sent.headers
            .retain(|(name, _)| !ROUTERS.contains(&name.as_str()));
        if !sent
            .headers
            .iter()
            .any(|(name, _)| Some(name.as_str()) == named)
        {
            // The provider is not to learn of tenants.
            sent.headers.extend(self.tenant.iter().cloned());
        }
        let part = match prepared(config, &upstream.origin, &sent) {
            Ok(prepared) => self.prepared.differs_in(&prepared),
            Err(why) => Some(format!("what makes it a bypass ({why})")),
        };
        part.map_or(Ok(()), |part| Err(Difference::Part(part)))
    }

    /// Whether the provider has learnt of the tenant.
    pub(super) fn tells_tenant(&self, sent: &Request) -> bool {
        let is_sent = |(name, _): &(String, Vec<u8>)| sent.headers.iter().any(|(it, _)| it == name);
        self.tenant.iter().any(is_sent)
    }
}

/// What the key takes from a head.
fn prepared(config: &Config, upstream: &str, request: &Request) -> Result<Prepared, Bypass> {
    let headers: Vec<(&str, &[u8])> = request
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let head = Head {
        method: &request.method,
        upstream,
        path: &request.path,
        headers: &headers,
    };
    let candidate = reflex_llm::candidate(&head, &config.policy())?;
    let group = config.groups.of(candidate.tenant());
    let candidate = candidate.as_tenant(group, config.tenant_header.as_deref());
    Ok(candidate.prepare())
}
