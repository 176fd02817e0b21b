//! An LLM request that may be answered from the cache: its head, its whole body, and its key.

use crate::exchange::body::ahead::read_ahead;
use crate::exchange::boxed::{BoxBody, full};
use crate::exchange::error::Error;
use crate::exchange::policy::HttpPolicy;
use crate::exchange::reply::batch::{Batch, Texts};
use crate::exchange::watch::Wanted;
use crate::grant::Grant;
use crate::grant::ctx::ReflexCtx;
use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use reflex_llm::embeddings::{self, Element};
use reflex_llm::{
    Bypass, Candidate, ClientControl, Control, Examined, Exchange, Head, Key, Policy, Shape,
    X_REFLEX_TTL,
};
use std::fmt;

/// A request with everything that decides about its answer.
pub(crate) struct Question {
    parts: Parts,
    whole: Bytes,
    exchange: Exchange,
    model: Option<String>,
    /// Of the answer whose turn it is; the request's own, unless the operator wants several.
    key: Key,
    batch: Option<Batch>,
}

/// What a request turned out to be.
pub(crate) enum Read {
    Question(Box<Question>),
    /// It is none that the cache may answer. Its body begins with what was read of it.
    Passes(Request<BoxBody>, Bypass),
}

impl Question {
    /// Reads a request as far as its answer needs it: the head, and then the body, at most
    /// [`Grant::request_bytes_max`].
    ///
    /// # Errors
    ///
    /// The body broke off: the client will not send the rest.
    pub(crate) async fn read(
        request: Request<BoxBody>,
        ctx: &ReflexCtx,
        policy: &HttpPolicy,
    ) -> Result<Read, Error> {
        let grant = &ctx.grant;
        let (parts, body) = request.into_parts();
        let named = Named::of(&parts);
        let candidate = match candidate(&named.head(), grant, policy.client_control) {
            Ok(candidate) => candidate,
            Err(why) => return Ok(Read::Passes(Request::from_parts(parts, body), why)),
        };
        let prepared = candidate.prepare();
        let (whole, body) = read_ahead(body, grant.request_bytes_max, &policy.budget, None).await?;
        let examined = match &whole {
            Ok(whole) => prepared.examine(whole),
            Err(why) => Err(*why),
        };
        let (whole, Examined { exchange, model }) = match (whole, examined) {
            (Ok(whole), Ok(examined)) => (whole, examined),
            (_, Err(why)) | (Err(why), _) => {
                return Ok(Read::Passes(Request::from_parts(parts, body), why));
            }
        };
        // With several answers to one request, batches are kept as a whole.
        let batch = match policy.samples.count() {
            1 => candidate.batch(&whole).map(|batch| texts(&batch)),
            _ => None,
        };
        let key = policy.samples.next(&exchange.key);
        Ok(Read::Question(Box::new(Self {
            parts,
            whole,
            exchange,
            model,
            key,
            batch,
        })))
    }

    /// The head, as the client sent it.
    #[cfg(feature = "serve")]
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// The body.
    #[cfg(feature = "serve")]
    pub(crate) fn whole(&self) -> &Bytes {
        &self.whole
    }

    /// The key of the request, whichever of its answers is next.
    pub(crate) fn request_key(&self) -> &Key {
        &self.exchange.key
    }

    /// The key of the answer.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// What the client wants of the cache.
    pub(crate) fn control(&self) -> &Control {
        &self.exchange.control
    }

    /// The API and the form of the answer.
    pub(crate) fn shape(&self) -> Shape {
        self.exchange.shape
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
            shape: self.exchange.shape,
            path: path_of(&self.parts).into(),
            model: self.model.clone(),
            ttl_seconds: self.exchange.control.ttl_seconds,
        }
    }

    /// The request as it came.
    #[cfg(feature = "middleware")]
    pub(crate) fn request(&self) -> Request<BoxBody> {
        Request::from_parts(self.parts.clone(), full(self.whole.clone()))
    }

    /// The request for the provider, whose answer every client must be able to read.
    pub(crate) fn for_provider(&self, grant: &Grant) -> Request<BoxBody> {
        let mut parts = self.parts.clone();
        hide_tenant(&mut parts.headers, grant);
        parts.headers.remove(X_REFLEX_TTL);
        let identity = HeaderValue::from_static("identity");
        parts.headers.insert(ACCEPT_ENCODING, identity);
        Request::from_parts(parts, full(self.whole.clone()))
    }

    /// The same for these elements of a batch only.
    pub(crate) fn for_provider_only(
        &self,
        elements: &[u32],
        grant: &Grant,
        control: ClientControl,
    ) -> Option<Request<BoxBody>> {
        let named = Named::of(&self.parts);
        let candidate = candidate(&named.head(), grant, control).ok()?;
        let body = candidate.batch(&self.whole)?.asking(elements);
        let mut request = self.for_provider(grant);
        let length = HeaderValue::from(body.len());
        request.headers_mut().insert(CONTENT_LENGTH, length);
        Some(request.map(|_| full(body)))
    }
}

impl fmt::Debug for Question {
    /// Without the client's words and credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("shape", &self.exchange.shape)
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
/// Why it passes by.
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
        let headers = parts.headers.iter();
        Self {
            parts,
            upstream: [scheme, "://", authority].concat(),
            headers: headers
                .map(|(name, value)| (name.as_str(), value.as_bytes()))
                .collect(),
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
