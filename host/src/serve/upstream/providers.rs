//! All providers: which of them a request is for, and which stands in for another that does not answer.
//!
//! ```text
//! choose ─► Aim, in the request's extensions ─► key, cache ─► send ─► the chosen one
//!                                                                └► one with the same answers
//! ```
//!
//! A request keeps its provider to its end, through a component and a reload. Only the operator can say that
//! the answers of another one are the same; a request that goes there has the key of the first.

use super::breaker::{Breaker, Leave};
use super::route::{self, NoProvider, Wanted};
use super::tls::ProviderTls;
use super::{NoTarget, UpstreamClient, is_own};
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::serve::config::{Config, NetLimits, Provider};
use crate::serve::held::hold;
use crate::serve::metrics::{Metrics, UpstreamCounts};
use crate::serve::tls::watch::Watch;
use crate::serve::tls::{Side, told_expiry};
use http::header::HeaderMap;
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use http_body::Body as _;
use hyper::body::Incoming;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

/// Failures in a row after which requests go to a stand-in at once. A single one may be chance.
const FAILURES_MAX: u32 = 5;

/// Where requests go.
pub(crate) struct Providers {
    /// In the order of the configuration.
    all: Vec<Arc<Member>>,
    /// Those that requests are for, in the order in which they are tried.
    first: Vec<Arc<Member>>,
    /// Whether there is one for all requests, of which nothing depends on how it answers.
    is_plain: bool,
    metrics: Arc<Metrics>,
}

/// A provider, and its connections. A clone shares them.
#[derive(Clone)]
pub(crate) struct Member {
    provider: Provider,
    client: Arc<UpstreamClient>,
    breaker: Arc<Breaker>,
    /// Those with the same answers, in the order in which they are tried.
    stand_ins: Vec<Arc<Self>>,
    counts: UpstreamCounts,
    /// What is known of its certificate files.
    pub(crate) watch: Arc<Mutex<Watch>>,
    /// Of a request's body, so much is kept to send it again.
    held_bytes_max: u64,
    budget: Arc<Budget>,
}

/// The provider that a request is for: in the extensions of the request.
#[derive(Clone)]
pub(crate) struct Aim {
    member: Arc<Member>,
    /// Whether the request may reach a second provider, after the first has perhaps begun to work on it: an
    /// LLM request costs tokens once more, and changes nothing.
    is_repeatable: bool,
}

/// What the clients of one process share.
pub(crate) struct Common<'a> {
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) metrics: &'a Arc<Metrics>,
}

impl Providers {
    /// The providers of a configuration, with their certificates in the same order. A provider of `earlier`
    /// keeps its connections if nothing that they depend on has changed.
    ///
    /// # Errors
    ///
    /// One line: the environment names a proxy that is none.
    pub(crate) fn new(
        config: &Config,
        certificates: Vec<Arc<ProviderTls>>,
        common: &Common<'_>,
        earlier: Option<&Self>,
    ) -> Result<Self, String> {
        let mut all: Vec<Arc<Member>> = Vec::new();
        let providers = config.providers.iter().zip(certificates);
        for (provider, tls) in providers {
            let found = earlier.and_then(|earlier| earlier.alike(provider, config));
            let known = all.first().or_else(|| earlier?.first.first());
            let known = known.map(|member| &*member.client);
            let member = Member::new(provider, config, tls, common, found, known);
            let named = |error| format!("upstream {}: {error}", provider.url);
            all.push(Arc::new(member.map_err(named)?));
        }
        let stand_ins = |first: &Provider| {
            let is_for = |member: &&Arc<Member>| {
                member.provider.interchangeable_with.as_ref() == Some(&first.name)
            };
            all.iter().filter(is_for).cloned().collect::<Vec<_>>()
        };
        let firsts = all
            .iter()
            .filter(|it| it.provider.interchangeable_with.is_none());
        let first: Vec<Arc<Member>> = firsts.map(|it| it.with(stand_ins(&it.provider))).collect();
        let is_plain = match first.as_slice() {
            [one] => {
                let alone = one.stand_ins.is_empty() && !one.refuses();
                alone && one.provider.takes.is_all()
            }
            _ => false,
        };
        let providers = Self {
            all,
            first,
            is_plain,
            metrics: Arc::clone(common.metrics),
        };
        providers.tell_expiry();
        Ok(providers)
    }

    /// Each provider, in the order of the configuration.
    pub(crate) fn as_configured(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.all.iter()
    }

    /// The names of all.
    pub(crate) fn names(&self) -> Vec<&str> {
        let names = self.all.iter().map(|member| member.provider.name.as_str());
        names.collect()
    }

    /// A provider whose connections do for this one.
    fn alike(&self, provider: &Provider, config: &Config) -> Option<&Member> {
        let is_alike = |member: &&Arc<Member>| {
            let own = &member.provider;
            let limits = limits(provider, config);
            (&own.url, &own.tls) == (&provider.url, &provider.tls)
                && *member.client.limits() == limits
                && member.held_bytes_max == config.request_bytes_max
        };
        let found = self.all.iter().filter(is_alike);
        // Of several alike, the one of the same name, so that each keeps its own.
        let named = |member: &&Arc<Member>| member.provider.name != provider.name;
        found.min_by_key(named).map(|member| &**member)
    }

    /// Which provider a request is for.
    ///
    /// # Errors
    ///
    /// No provider takes it, or none for certain.
    pub(crate) fn choose(&self, wanted: &Wanted<'_>) -> Result<&Arc<Member>, NoProvider> {
        let takes = self.first.iter().map(|member| &member.provider.takes);
        Ok(&self.first[route::chosen(takes, wanted)?])
    }

    /// The only provider, if there is nothing to choose and nothing to remember.
    pub(crate) fn only(&self) -> Option<&Arc<Member>> {
        self.first.first().filter(|_| self.is_plain)
    }

    /// Whether a request has come through this process before: the address of a provider leads back to it.
    pub(crate) fn has_passed(&self, headers: &HeaderMap) -> bool {
        // All clients have the same name.
        let mut all = self.first.iter();
        all.next()
            .is_some_and(|member| member.client.has_passed(headers))
    }

    /// Sends a request that asks for another protocol, with the headers that say so, on a connection of its
    /// own. It goes to its provider whatever became of others, and no other stands in.
    pub(crate) async fn upgrade(
        &self,
        request: Request<BoxBody>,
    ) -> Result<Response<Incoming>, Error> {
        let aim = request.extensions().get::<Aim>().cloned();
        match aim.or_else(|| self.aim_of(request.uri())) {
            Some(aim) => aim.member.client.upgrade(request).await,
            None => Err(Error::HttpRequestDenied),
        }
    }

    /// The provider at the address of a request that carries no aim.
    fn aim_of(&self, uri: &Uri) -> Option<Aim> {
        let is_here = |member: &&Arc<Member>| {
            let url = &member.provider.url;
            (uri.scheme(), uri.authority()) == (Some(&url.scheme), Some(&url.authority))
        };
        let member = self.first.iter().find(is_here)?;
        Some(Aim::of(member))
    }

    /// Tells when the daemon's own certificates expire: the first that does.
    pub(crate) fn tell_expiry(&self) {
        let expiry = self
            .all
            .iter()
            .filter_map(|member| member.client.expiry())
            .min();
        told_expiry(Side::Provider, expiry, &self.metrics);
    }
}

/// Checks that no provider is where clients connect, as far as the texts show.
///
/// # Errors
///
/// One line that names the address.
pub(crate) fn check_none_is_own(
    config: &Config,
    listens: Option<SocketAddr>,
) -> Result<(), String> {
    let Some(listens) = listens else {
        return Ok(());
    };
    let has_tls = config.tls.is_some();
    let mut all = config.providers.iter();
    match all.any(|provider| is_own(&provider.url, listens, has_tls)) {
        true => Err(format!(
            "--upstream or [[upstream]]: {listens} is where this daemon itself listens (--listen)"
        )),
        false => Ok(()),
    }
}

/// Bounds on the connections to a provider.
fn limits(provider: &Provider, config: &Config) -> NetLimits {
    NetLimits {
        connect_max: provider.connect_max,
        response_max: provider.response_max,
        ..config.net.clone()
    }
}

impl Member {
    fn new(
        provider: &Provider,
        config: &Config,
        tls: Arc<ProviderTls>,
        common: &Common<'_>,
        found: Option<&Self>,
        known: Option<&UpstreamClient>,
    ) -> Result<Self, String> {
        let held = config.request_bytes_max;
        let (budget, metrics) = (common.budget, common.metrics);
        let client = match (found, known) {
            (Some(found), _) => Arc::clone(&found.client),
            (None, known) => {
                let (url, limits) = (provider.url.clone(), limits(provider, config));
                let client = match known {
                    Some(known) => known.again(url, tls, limits, held),
                    None => UpstreamClient::new(
                        url,
                        tls,
                        limits,
                        held,
                        Arc::clone(budget),
                        Arc::clone(metrics),
                    ),
                };
                Arc::new(client?)
            }
        };
        let has_stand_in = config
            .providers
            .iter()
            .any(|other| other.interchangeable_with.as_ref() == Some(&provider.name));
        let is_one_of_several = has_stand_in || provider.interchangeable_with.is_some();
        let failures_max = match (provider.breaker_failures, is_one_of_several) {
            (Some(most), _) => most,
            (None, true) => FAILURES_MAX,
            (None, false) => 0,
        };
        let same = found.filter(|found| found.breaker.failures_max() == failures_max);
        Ok(Self {
            provider: provider.clone(),
            client,
            breaker: same.map_or_else(
                || Breaker::new(failures_max),
                |same| Arc::clone(&same.breaker),
            ),
            stand_ins: Vec::new(),
            counts: metrics.upstream(&provider.name),
            watch: found.map_or_else(Arc::default, |found| Arc::clone(&found.watch)),
            held_bytes_max: held,
            budget: Arc::clone(budget),
        })
    }

    /// The same with these stand-ins.
    fn with(self: &Arc<Self>, stand_ins: Vec<Arc<Self>>) -> Arc<Self> {
        if stand_ins.is_empty() {
            return Arc::clone(self);
        }
        Arc::new(Self {
            stand_ins,
            ..Self::clone(self)
        })
    }

    /// The provider.
    pub(crate) fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Its connections.
    pub(crate) fn client(&self) -> &UpstreamClient {
        &self.client
    }

    /// Where a request for this path goes.
    ///
    /// # Errors
    ///
    /// It leads to no path of the provider.
    pub(crate) fn target(&self, path: Option<&PathAndQuery>) -> Result<Uri, NoTarget> {
        route::aimed(&self.provider, path)
    }

    /// Whether requests are refused while it does not answer: the operator says so.
    fn refuses(&self) -> bool {
        self.provider.breaker_failures.is_some_and(|most| most > 0)
    }

    /// Asks this provider, and learns from it whether it answers. `is_whole`: the whole request is there, so a
    /// request without an answer is no fault of its client.
    async fn ask(
        &self,
        request: Request<BoxBody>,
        leave: Leave,
        is_whole: bool,
    ) -> Result<Response<BoxBody>, Error> {
        let is_whole = is_whole || request.body().is_end_stream();
        let answered = self.client.send(request).await;
        let name = self.provider.name.as_str();
        match &answered {
            Ok(_) => {
                self.counts.answered.inc();
                if leave.answered() {
                    tracing::info!(upstream = name, "the provider answers again");
                }
            }
            Err(error) => {
                // What a guest may not ask for has reached no provider.
                self.counts
                    .failed
                    .inc_by(u64::from(*error != Error::HttpRequestDenied));
                let is_blamed = error.is_of_connecting() || error.is_of_waiting() && is_whole;
                if is_blamed && leave.failed(Instant::now()) {
                    tracing::warn!(
                        upstream = name,
                        "the provider does not answer: it is left alone for a while"
                    );
                }
            }
        }
        self.counts
            .show(self.breaker.is_open(), self.breaker.failures());
        answered
    }
}

impl Aim {
    /// At this provider.
    pub(crate) fn of(member: &Arc<Member>) -> Self {
        Self {
            member: Arc::clone(member),
            is_repeatable: false,
        }
    }

    /// The provider.
    pub(crate) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// Notes of a request that repeating it changes nothing.
    pub(crate) fn may_repeat(extensions: &mut http::Extensions) {
        if let Some(aim) = extensions.get_mut::<Self>() {
            aim.is_repeatable = true;
        }
    }

    /// Asks the provider, and while nothing of an answer is there, those that stand in for it.
    async fn send(self, request: Request<BoxBody>) -> Result<Response<BoxBody>, Error> {
        let Self {
            member: first,
            is_repeatable,
        } = self;
        if first.stand_ins.is_empty() && !first.refuses() {
            let leave = first.breaker.admit_anyway();
            return first.ask(request, leave, is_repeatable).await;
        }
        let all = || std::iter::once(&first).chain(&first.stand_ins);
        let mut told = None;
        let mut request = request;
        for member in all() {
            let Some(leave) = member.breaker.admit(Instant::now()) else {
                member.counts.refused.inc();
                continue;
            };
            let (held, lent) = hold(request, member.held_bytes_max, &member.budget);
            let Ok(lent) = turned(lent, &first, member) else {
                return Err(told.unwrap_or(Error::HttpRequestDenied));
            };
            let error = match member.ask(lent, leave, is_repeatable).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let goes_on = error.is_of_connecting() || is_repeatable && error.is_of_waiting();
            // Of all errors, the first one's is told.
            let error = told.get_or_insert(error);
            request = match held.take_back() {
                Ok(request) if goes_on => request,
                _ => return Err(error.clone()),
            };
        }
        if let Some(error) = told {
            return Err(error);
        }
        // All are left alone. Where the operator has not asked for that, the request goes on as if nothing were
        // known.
        match all().find(|member| !member.refuses()) {
            Some(member) => {
                let request =
                    turned(request, &first, member).map_err(|_| Error::HttpRequestDenied)?;
                let leave = member.breaker.admit_anyway();
                member.ask(request, leave, is_repeatable).await
            }
            None => Err(Error::DestinationUnavailable),
        }
    }
}

/// A request for the first provider, as one for another.
fn turned(
    mut request: Request<BoxBody>,
    first: &Arc<Member>,
    to: &Arc<Member>,
) -> Result<Request<BoxBody>, NoTarget> {
    if !Arc::ptr_eq(first, to) {
        *request.uri_mut() = route::turned(request.uri(), &first.provider, &to.provider)?;
    }
    Ok(request)
}

impl SendRequest for Providers {
    fn send(&self, mut request: Request<BoxBody>) -> ResponseFuture {
        let aim = request.extensions_mut().remove::<Aim>();
        match aim.or_else(|| self.aim_of(request.uri())) {
            Some(aim) => Box::pin(aim.send(request)),
            // A guest may talk to providers, not to the network.
            None => Box::pin(std::future::ready(Err(Error::HttpRequestDenied))),
        }
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self.all.iter().map(|member| &member.provider.url);
        f.debug_list().entries(urls).finish()
    }
}
