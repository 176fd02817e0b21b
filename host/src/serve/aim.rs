//! A client's request becomes the one for its provider.

use super::heads;
use super::hop::{is_hop_by_hop, strip};
use super::own_error::ErrorVoice;
use super::timed::Timed;
use super::upstream::{Aim, NoProvider, Providers, Wanted};
use crate::exchange::body::ahead::read_ahead;
use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use reflex_llm::{BODY_BYTES_MAX, Bypass, PathRule, model_of};
use std::sync::Arc;
use std::time::Duration;

/// The longest body in which a model is looked for: images in a request make it long. What is read counts
/// among the bytes that all requests hold (`inflight_max`).
const NAMING_BYTES_MAX: u64 = BODY_BYTES_MAX as u64;

/// The request for its provider, and what errors are told by.
pub(crate) type Aimed<B> = (Request<B>, ErrorVoice);

/// Our answer in place of the provider's.
pub(crate) type Refused = Box<Response<BoxBody>>;

/// A request that has no provider.
pub(super) enum Unaimed {
    Refused(Refused),
    /// Not yet: the model decides, and is in its body.
    Unread(Box<Request<Timed>>),
}

/// What turns requests of clients into those for their providers.
#[derive(Debug)]
pub(crate) struct Aimer {
    pub(crate) providers: Arc<Providers>,
    /// The memory budget of all requests.
    pub(crate) budget: Arc<Budget>,
    /// Which API answers at paths that name none, for the shape of an error.
    pub(crate) paths: Arc<[PathRule]>,
    /// Names the tenant. It stays with the request.
    pub(crate) tenant_header: Option<HeaderName>,
    /// Longest pause in a client's body.
    pub(crate) idle_max: Duration,
    /// The longest that a client may take to send a request.
    pub(crate) request_max: Duration,
}

impl Aimer {
    /// Turns the client's request into the one for its provider, by its head alone.
    pub(super) fn aim(&self, request: Request<Incoming>) -> Result<Aimed<Timed>, Unaimed> {
        let head_fits = heads::fits(&request);
        let idle_max = self.idle_max;
        let request = request.map(|body| Timed::request(body, idle_max, self.request_max));
        let refused = |status, why| Err(Unaimed::Refused(self.refuse(&request, status, why)));
        if !head_fits {
            return refused(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "the head of the request is too large",
            );
        }
        if *request.method() == Method::CONNECT {
            return refused(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is not a forward proxy, and WebSockets need HTTP/1.1 here",
            );
        }
        if self.providers.has_passed(request.headers()) {
            return refused(
                StatusCode::LOOP_DETECTED,
                "this request has come through here before: the address of the provider leads back",
            );
        }
        if self.providers.only().is_some() {
            return self.aimed(request, None).map_err(Unaimed::Refused);
        }
        let wanted = Wanted::of(request.method(), request.uri(), request.headers());
        let chosen = self.providers.choose(&wanted).map(Aim::of);
        match chosen {
            Err(NoProvider::NeedsModel) => Err(Unaimed::Unread(Box::new(request))),
            chosen => self.aimed_at(request, chosen).map_err(Unaimed::Refused),
        }
    }

    /// The same once the body is read as far as its model.
    pub(super) async fn aim_by_model(
        &self,
        request: Request<Timed>,
    ) -> Result<Aimed<BoxBody>, Refused> {
        let identity = |coding: &HeaderValue| {
            coding
                .as_bytes()
                .trim_ascii()
                .eq_ignore_ascii_case(b"identity")
        };
        let mut codings = request.headers().get_all(header::CONTENT_ENCODING).iter();
        if !codings.all(identity) {
            let why = "the request's model, which decides about its provider, is not to be read: send the body \
                       without Content-Encoding";
            return Err(self.refuse(&request, StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
        }
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, ());
        let (whole, body) = match read_ahead(body, NAMING_BYTES_MAX, &self.budget, None).await {
            Ok(read) => read.with_body(),
            Err(_) => return Err(Box::new(self.voice(&request).cut_off())),
        };
        let model = match whole {
            Ok(whole) => model_of(request.uri().path(), &whole),
            Err(why) => {
                let (status, why) = unread(why);
                return Err(self.refuse(&request, status, why));
            }
        };
        self.aim_with_model(request.map(|()| body), model)
    }

    /// The same of a request that names no model.
    pub(super) fn aim_without_model<B>(&self, request: Request<B>) -> Result<Aimed<B>, Refused> {
        self.aim_with_model(request, None)
    }

    /// The same of a request whose model is known.
    pub(crate) fn aim_with_model<B>(
        &self,
        request: Request<B>,
        model: Option<String>,
    ) -> Result<Aimed<B>, Refused> {
        let wanted = Wanted::of(request.method(), request.uri(), request.headers());
        let chosen = self.providers.choose(&wanted.with_model(model));
        let chosen = chosen.map(Aim::of);
        self.aimed_at(request, chosen)
    }

    fn aimed_at<B>(
        &self,
        request: Request<B>,
        chosen: Result<Aim, NoProvider>,
    ) -> Result<Aimed<B>, Refused> {
        match chosen {
            Ok(aim) => self.aimed(request, Some(aim)),
            Err(why) => {
                let (status, why) = why.told();
                Err(self.refuse(&request, status, why))
            }
        }
    }

    /// The request for a chosen provider; for the only one if there is no choice.
    fn aimed<B>(&self, request: Request<B>, aim: Option<Aim>) -> Result<Aimed<B>, Refused> {
        let path = request.uri().path_and_query();
        let member = aim
            .as_ref()
            .map(Aim::member)
            .or_else(|| self.providers.only());
        let Some(Ok(uri)) = member.map(|member| member.target(path)) else {
            let why = "the request's path does not lead to the provider";
            return Err(self.refuse(&request, StatusCode::BAD_REQUEST, why));
        };
        // Rules are about the path that the provider gets.
        let voice = ErrorVoice::of(&uri, request.method(), request.headers(), &self.paths);
        let (mut parts, body) = request.into_parts();
        parts.uri = uri;
        aim_headers(&mut parts.headers, self.tenant_header.as_ref());
        // Nothing but its method, its headers and its body is about this one.
        parts.version = Version::default();
        parts.extensions = Extensions::new();
        if let Some(aim) = aim {
            parts.extensions.insert(aim);
        }
        Ok((Request::from_parts(parts, body), voice))
    }

    fn voice<B>(&self, request: &Request<B>) -> ErrorVoice {
        ErrorVoice::of(
            request.uri(),
            request.method(),
            request.headers(),
            &self.paths,
        )
    }

    fn refuse<B>(&self, request: &Request<B>, status: StatusCode, why: &str) -> Refused {
        Box::new(self.voice(request).error(status, why))
    }
}

/// What the client is told whose body is not read to its end.
fn unread(why: Bypass) -> (StatusCode, &'static str) {
    match why {
        Bypass::BodyTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's model decides about its provider, and its body is too long to be read for that",
        ),
        Bypass::Memory => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the request's model decides about its provider, and the requests under way hold all the memory that \
             they may (inflight_max)",
        ),
        _ => NoProvider::NeedsModel.told(),
    }
}

/// Takes out of a request's headers what must not go past this hop.
pub(super) fn aim_headers(headers: &mut HeaderMap, tenant_header: Option<&HeaderName>) {
    // A client must not remove the header that the operator's gateway has set.
    let kept = tenant_header.map_or(&[][..], std::slice::from_ref);
    // The client's connection is ours to answer, and the provider's host has its own name.
    let is_ours = |name: &HeaderName| matches!(name.as_str(), "expect" | "host");
    strip(headers, kept, |name| is_hop_by_hop(name) || is_ours(name));
    join_cookies(headers);
}

/// HTTP/2 lets a client send a cookie in parts, for compression. In all other protocols they are
/// one header: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if parts.len() > 1
        // Valid parts make a valid whole.
        && let Ok(mut joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..]))
    {
        joined.set_sensitive(true);
        headers.insert(header::COOKIE, joined);
    }
}
