//! An LLM request that may be answered from the cache: its head, its whole body, and its key.

use crate::cache::{CacheKey, L1, Probe, Tier};
use crate::exchange::body::ahead::{self, Reading, read_ahead};
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use crate::exchange::policy::HttpPolicy;
use crate::exchange::reply::batch::{Batch, Texts};
use crate::exchange::watch::Wanted;
use crate::grant::Grant;
use crate::grant::ctx::ReflexCtx;
use bytes::Bytes;
use http::Request;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http_body::Body;
use http_body_util::BodyExt as _;
use reflex_llm::embeddings::{self, Element, are_taken_apart};
use reflex_llm::flow::Edits;
use reflex_llm::{
    Bypass, Candidate, ClientControl, Control, Examined, Flow, Head, Key, Life, Policy, Renewal,
    Renewals, Shape,
};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request with everything that decides about its answer.
pub(crate) struct Question {
    parts: Parts,
    whole: Bytes,
    meaning: Meaning,
    control: Control,
    /// Of the answer whose turn it is; the request's own, unless the operator wants several.
    key: Key,
    batch: Option<Batch>,
    /// By which the request is recognised, unless it was.
    probe: Option<Probe>,
    /// Where the answer was, once it has been found in the cache.
    tier: Option<Tier>,
    /// Whether it is served, and to be renewed.
    renews: bool,
}

/// What examining a request gives, but for the client's instructions: those are not in the key.
#[derive(Clone, Debug)]
pub(crate) struct Meaning {
    key: Key,
    /// The name of that key's answer.
    entry: CacheKey,
    shape: Shape,
    model: Option<Arc<str>>,
}

impl Meaning {
    fn of(examined: Examined, ctx: &ReflexCtx) -> Self {
        Self {
            entry: ctx.key(&examined.exchange.key),
            key: examined.exchange.key,
            shape: examined.exchange.shape,
            model: examined.model.map(Arc::from),
        }
    }
}

/// By what requests are understood.
#[derive(Clone, Copy)]
pub(crate) struct By<'a> {
    pub(crate) ctx: &'a ReflexCtx,
    pub(crate) policy: &'a HttpPolicy,
    pub(crate) l1: &'a L1<Meaning>,
}

/// What a request turned out to be.
#[expect(clippy::large_enum_variant, reason = "one at a time, and not kept")]
pub(crate) enum Read {
    Question(Box<Question>),
    /// The cache may not answer it. Its body begins with what was read of it.
    Passes(Request<BoxBody>, Bypass),
}

/// How far a request was read.
#[expect(clippy::large_enum_variant, reason = "one at a time, and not kept")]
pub(crate) enum Begun<B> {
    Read(Read),
    /// Its body is not all there.
    Waits(Box<(Parts, Reading<B>)>),
}

/// What a request with its body is known to be, apart from its head.
#[expect(clippy::large_enum_variant, reason = "one at a time, and not kept")]
enum Known {
    Question {
        whole: Bytes,
        meaning: Meaning,
        control: Control,
        batch: Option<Batch>,
        probe: Option<Probe>,
    },
    Passes(Bypass, BoxBody),
}

impl Known {
    fn of(candidate: &Candidate<'_>, read: ahead::Read, by: By<'_>) -> Self {
        let By { ctx, policy, l1 } = by;
        let whole = match read {
            ahead::Read::Whole(whole) => whole,
            ahead::Read::Passes(why, body) => return Self::Passes(why, body),
        };
        let control = candidate.control();
        let probe = l1.probe(|head| candidate.write_identity(head), &whole);
        if let Some(meaning) = l1.get(&probe, &whole) {
            return Self::Question {
                whole,
                meaning,
                control,
                batch: None,
                probe: None,
            };
        }
        match candidate.examine(&whole) {
            Ok(examined) => {
                let is_batch = are_taken_apart(policy.samples.count());
                let batch = is_batch.then(|| candidate.batch(&whole)).flatten();
                let batch = batch.map(|batch| texts(&batch));
                Self::Question {
                    meaning: Meaning::of(examined, ctx),
                    control,
                    batch,
                    probe: Some(probe),
                    whole,
                }
            }
            Err(why) => Self::Passes(why, full(whole)),
        }
    }

    fn question(self, parts: Parts, by: By<'_>) -> Read {
        match self {
            Self::Question {
                whole,
                meaning,
                control,
                batch,
                probe,
            } => Read::Question(Box::new(Question {
                key: by.policy.samples.next(&meaning.key),
                parts,
                whole,
                meaning,
                control,
                batch,
                probe,
                tier: None,
                renews: false,
            })),
            Self::Passes(why, body) => Read::Passes(Request::from_parts(parts, body), why),
        }
    }
}

impl Question {
    /// Reads a request as far as its answer needs it: the head, and then the body, at most
    /// [`Grant::request_bytes_max`]. Reads what is there, which of most requests is all.
    ///
    /// # Errors
    ///
    /// The body broke off: the client will not send the rest.
    pub(crate) fn begin<B>(
        request: Request<B>,
        by: By<'_>,
        cx: &mut Context<'_>,
    ) -> Result<Begun<B>, Error>
    where
        B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    {
        let By { ctx, policy, .. } = by;
        let (parts, body) = request.into_parts();
        let named = Named::of(&parts);
        let head = named.head();
        let candidate = match candidate(&head, &ctx.grant, policy.client_control) {
            Ok(candidate) => candidate,
            Err(why) => {
                let request = Request::from_parts(parts, body.boxed_unsync());
                return Ok(Begun::Read(Read::Passes(request, why)));
            }
        };
        let mut reading = read_ahead(body, ctx.grant.request_bytes_max, &policy.budget, None);
        let known = match Pin::new(&mut reading).poll(cx) {
            Poll::Ready(read) => Known::of(&candidate, read?, by),
            Poll::Pending => return Ok(Begun::Waits(Box::new((parts, reading)))),
        };
        Ok(Begun::Read(known.question(parts, by)))
    }

    /// The same once the rest of the body has come.
    pub(crate) async fn go_on<B>(
        parts: Parts,
        reading: Reading<B>,
        by: By<'_>,
    ) -> Result<Read, Error>
    where
        B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
    {
        let read = reading.await?;
        let By { ctx, policy, .. } = by;
        let named = Named::of(&parts);
        let head = named.head();
        let known = match candidate(&head, &ctx.grant, policy.client_control) {
            Ok(candidate) => Known::of(&candidate, read, by),
            // It was one before its body was read.
            Err(why) => Known::Passes(why, read.with_body().1),
        };
        Ok(known.question(parts, by))
    }

    /// The answer is in the cache: the request is recognised by its bytes from now on. Not a batch,
    /// which is more than one answer.
    pub(crate) fn was_hit(&mut self, l1: &L1<Meaning>, tier: Tier) {
        self.tier = Some(tier);
        if let Some(probe) = self.probe.take().filter(|_| self.batch.is_none()) {
            let tenant = &self.meaning.key.tenant.0;
            l1.insert(&probe, &self.whole, tenant, self.meaning.clone());
        }
    }

    /// The answer was put together of entries, the slowest of which was found there.
    pub(crate) fn was_made(&mut self, tier: Tier) {
        self.tier = Some(tier);
    }

    /// Where the answer was; none if it has not been found in the cache, or by a component only.
    #[cfg_attr(
        not(feature = "serve"),
        allow(dead_code, reason = "only the daemon counts by tier")
    )]
    pub(crate) fn tier(&self) -> Option<Tier> {
        self.tier
    }

    /// The head, as the client sent it.
    #[cfg(feature = "serve")]
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// What the host has noted of the request.
    #[cfg(feature = "serve")]
    pub(crate) fn extensions_mut(&mut self) -> &mut http::Extensions {
        &mut self.parts.extensions
    }

    /// The body.
    #[cfg(feature = "serve")]
    pub(crate) fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The key of the request itself: with several answers to it, not the key of the next one.
    pub(crate) fn request_key(&self) -> &Key {
        &self.meaning.key
    }

    /// The key of the answer.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// The name of the answer.
    pub(crate) fn entry_key(&self, ctx: &ReflexCtx) -> CacheKey {
        match self.key == self.meaning.key {
            true => self.meaning.entry,
            false => ctx.key(&self.key),
        }
    }

    /// The client's instructions to the cache.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// What may be done with it, by its client's instructions and the operator's rules.
    pub(crate) fn flow(&self, ctx: &ReflexCtx) -> Flow {
        let model = self.meaning.model.as_deref();
        let ttl_seconds = self.control.ttl_seconds;
        let life = ctx
            .grant
            .lifetimes
            .of(path_of(&self.parts), model, ttl_seconds);
        Flow::of(&self.control).kept_if(life != Life::NotKept)
    }

    /// The API and the form of the answer.
    pub(crate) fn shape(&self) -> Shape {
        self.meaning.shape
    }

    /// The model, if the request names one.
    #[cfg(feature = "serve")]
    pub(crate) fn model(&self) -> Option<&Arc<str>> {
        self.meaning.model.as_ref()
    }

    /// The answer is served, and to be renewed.
    pub(crate) fn is_to_be_renewed(&mut self) {
        self.renews = true;
    }

    /// Whether the answer that was served is to be renewed.
    pub(crate) fn renews(&self) -> bool {
        self.renews
    }

    /// When its answers are renewed, by the operator's rules.
    pub(crate) fn renewal(&self, renewals: &Renewals) -> Renewal {
        renewals.of(path_of(&self.parts), self.meaning.model.as_deref())
    }

    /// The same question once more, to be looked up by itself.
    pub(crate) fn again(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            whole: self.whole.clone(),
            meaning: self.meaning.clone(),
            control: self.control,
            key: self.key,
            batch: self.batch.clone(),
            probe: None,
            tier: None,
            renews: false,
        }
    }

    /// The texts of a batch of embeddings, and what the cache has for them.
    pub(crate) fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// The same, to be looked up.
    pub(crate) fn batch_mut(&mut self) -> Option<&mut Batch> {
        self.batch.as_mut()
    }

    /// The answer that is wanted in the cache.
    pub(crate) fn wanted(&self) -> Wanted {
        Wanted {
            key: self.key,
            shape: self.meaning.shape,
            path: path_of(&self.parts).into(),
            model: self.meaning.model.as_deref().map(str::to_owned),
            ttl_seconds: self.control.ttl_seconds,
        }
    }

    /// The request as it came.
    pub(crate) fn request(&self) -> Request<BoxBody> {
        Request::from_parts(self.parts.clone(), full(self.whole.clone()))
    }

    /// The request for the provider.
    pub(crate) fn for_provider(&self, grant: &Grant, edits: Edits) -> Request<BoxBody> {
        let mut parts = self.parts.clone();
        hide_tenant(&mut parts.headers, grant);
        for name in edits.remove {
            parts.headers.remove(*name);
        }
        for &(name, value) in edits.set {
            let name = HeaderName::from_static(name);
            parts.headers.insert(name, HeaderValue::from_static(value));
        }
        Request::from_parts(parts, full(self.whole.clone()))
    }

    /// The same for these elements of a batch only.
    pub(crate) fn for_provider_only(
        &self,
        elements: &[u32],
        grant: &Grant,
        control: ClientControl,
        edits: Edits,
    ) -> Option<Request<BoxBody>> {
        let named = Named::of(&self.parts);
        let candidate = candidate(&named.head(), grant, control).ok()?;
        let body = candidate.batch(&self.whole)?.asking(elements);
        let mut request = self.for_provider(grant, edits);
        let length = HeaderValue::from(body.len());
        request.headers_mut().insert(CONTENT_LENGTH, length);
        Some(request.map(|_| full(body)))
    }
}

impl fmt::Debug for Question {
    /// Without the client's words and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("shape", &self.meaning.shape)
            .finish_non_exhaustive()
    }
}

/// The provider learns nothing of our tenants.
pub(crate) fn hide_tenant(headers: &mut http::HeaderMap, grant: &Grant) {
    if let Some(name) = &grant.tenant_header {
        headers.remove(name.as_str());
    }
}

/// A request that may be answered from the cache, as far as its head says, under the tenant's group.
///
/// # Errors
///
/// Why the request bypasses.
pub(crate) fn candidate<'h>(
    head: &Head<'h>,
    grant: &'h Grant,
    client_control: ClientControl,
) -> Result<Candidate<'h>, Bypass> {
    let policy = Policy {
        client_control,
        ..grant.policy()
    };
    let candidate = reflex_llm::candidate(head, &policy)?;
    let group = grant.group_of(candidate.tenant());
    Ok(candidate.as_tenant(group, grant.tenant_header.as_deref()))
}

/// A request's head, as `reflex-llm` reads it.
pub(crate) struct Named<'p> {
    parts: &'p Parts,
    upstream: String,
    headers: Vec<(&'p str, &'p [u8])>,
}

impl<'p> Named<'p> {
    pub(crate) fn of(parts: &'p Parts) -> Self {
        let scheme = parts.uri.scheme_str().unwrap_or_default();
        let authority = parts.uri.authority().map_or("", |it| it.as_str());
        // As many as there are: the iterator of the map does not know.
        let mut headers = Vec::with_capacity(parts.headers.len());
        let named = parts.headers.iter();
        headers.extend(named.map(|(name, value)| (name.as_str(), value.as_bytes())));
        Self {
            parts,
            upstream: [scheme, "://", authority].concat(),
            headers,
        }
    }

    pub(crate) fn head(&self) -> Head<'_> {
        Head {
            method: self.parts.method.as_str(),
            upstream: &self.upstream,
            path: path_of(self.parts),
            headers: &self.headers,
        }
    }
}

fn path_of(parts: &Parts) -> &str {
    parts.uri.path_and_query().map_or("", |it| it.as_str())
}

fn texts(batch: &embeddings::Batch<'_>) -> Batch {
    let element = |element: &Element| (element.key, element.bytes.into());
    let elements = batch.elements().iter().map(element).collect();
    Batch::new(Texts::new(elements, batch.places().to_vec()))
}
