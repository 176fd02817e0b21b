//! One line of the log for each request, the access log, and with the feature `otlp` one span. Neither has a
//! prompt, a credential, a key or a path, which can hold one.
//!
//! A client chooses its request id, its trace and its model. They are taken only in a plain and
//! short form, so that no line can be forged.

use super::logs::ACCESS;
#[cfg(feature = "otlp")]
use super::otlp::{Ended, Spans};
use super::trace::Trace;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use bytes::Bytes;
use http::header::HeaderMap;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use reflex_llm::Shape;
use reflex_llm::status::{CACHE_STATUS, X_REFLEX_STATUS, last_cache_status};
use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The longest request id that is taken from a client. A UUID has 36 bytes.
const ID_BYTES_MAX: usize = 128;
/// The longest name of a model in a line.
const MODEL_BYTES_MAX: usize = 128;

/// What a request turned out to ask, for its line: left in the extensions of its response.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) shape: Shape,
    pub(super) model: Option<Arc<str>>,
}

/// Where it is told how requests ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Whether each request has a line in the log.
    pub(super) in_log: bool,
    /// Where each request has a span.
    #[cfg(feature = "otlp")]
    pub(super) in_spans: Option<Arc<Spans>>,
}

impl Told {
    /// Whether that is anywhere.
    pub(super) fn is_anywhere(&self) -> bool {
        #[cfg(feature = "otlp")]
        if self.in_spans.is_some() {
            return true;
        }
        self.in_log
    }

    fn trace(&self, headers: &HeaderMap) -> Option<Trace> {
        let trace = Trace::of(headers);
        #[cfg(feature = "otlp")]
        let trace = trace.or_else(|| Some(Trace::begun_here(self.in_spans.as_ref()?.new_trace())));
        trace
    }
}

/// A request under way; its line is written when its response ends.
#[derive(Debug)]
pub(super) struct Trail {
    told: Told,
    began: Instant,
    request_id: String,
    trace: Option<Trace>,
    method: &'static str,
}

impl Trail {
    /// The trail of a request that came just now; none if it is told nowhere how it ends.
    pub(super) fn of<B>(request: &Request<B>, told: &Told) -> Option<Self> {
        if !told.is_anywhere() {
            return None;
        }
        let headers = request.headers();
        Some(Self {
            told: told.clone(),
            began: Instant::now(),
            request_id: request_id(headers),
            trace: told.trace(headers),
            method: match *request.method() {
                Method::POST => "POST",
                Method::GET => "GET",
                Method::HEAD => "HEAD",
                Method::OPTIONS => "OPTIONS",
                Method::PUT => "PUT",
                Method::DELETE => "DELETE",
                Method::PATCH => "PATCH",
                Method::CONNECT => "CONNECT",
                _ => "OTHER",
            },
        })
    }

    /// Follows the response to its end, and writes the line then. `tier` is where a hit came from.
    pub(super) fn follow(
        self,
        response: Response<BoxBody>,
        tier: Option<&'static str>,
    ) -> Response<BoxBody> {
        let head_after = self.began.elapsed();
        let headers = response.headers();
        let own = |name| {
            let value = headers.get_all(name).iter().next_back();
            value.and_then(|value| value.to_str().ok())
        };
        let cache_status = own(CACHE_STATUS).map_or("", last_cache_status);
        let asked = response.extensions().get::<Asked>();
        let line = Line {
            trail: self,
            status: response.status().as_u16(),
            cache: plain(own(X_REFLEX_STATUS).unwrap_or("ERROR"), 32),
            cache_status: plain(cache_status, 256),
            reason: reason(cache_status).map(|reason| plain(reason, 64)),
            api: asked.map(|asked| asked.shape.name()),
            model: asked
                .and_then(|asked| asked.model.as_deref())
                .map(|model| plain(model, MODEL_BYTES_MAX)),
            tier,
            head_after,
            first_byte_after: None,
            bytes: 0,
            is_whole: response.body().is_end_stream(),
        };
        response.map(|inner| Followed { inner, line }.boxed_unsync())
    }
}

/// A line that is being gathered. It is written when this is dropped.
struct Line {
    trail: Trail,
    status: u16,
    cache: String,
    cache_status: String,
    reason: Option<String>,
    api: Option<&'static str>,
    model: Option<String>,
    tier: Option<&'static str>,
    head_after: Duration,
    first_byte_after: Option<Duration>,
    /// Of the body, as far as the client has taken it.
    bytes: u64,
    is_whole: bool,
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = self.trail.began.elapsed();
        if self.trail.told.in_log {
            self.log(took);
        }
        #[cfg(feature = "otlp")]
        self.span(took);
    }
}

impl Line {
    fn log(&self, took: Duration) {
        let trail = &self.trail;
        let first_byte_after = self.first_byte_after.unwrap_or(self.head_after);
        tracing::info!(
            target: ACCESS,
            request_id = trail.request_id.as_str(),
            trace_id = trail.trace.as_ref().map(|trace| trace.id.as_str()),
            method = trail.method,
            status = self.status,
            cache = self.cache.as_str(),
            cache_status = self.cache_status.as_str(),
            reason = self.reason.as_deref(),
            tier = self.tier,
            api = self.api,
            model = self.model.as_deref(),
            head_ms = milliseconds(self.head_after),
            first_byte_ms = milliseconds(first_byte_after),
            total_ms = milliseconds(took),
            bytes = self.bytes,
            whole = self.is_whole,
        );
    }

    #[cfg(feature = "otlp")]
    fn span(&self, took: Duration) {
        let trail = &self.trail;
        let (Some(spans), Some(trace)) = (&trail.told.in_spans, &trail.trace) else {
            return;
        };
        spans.end(&Ended {
            trace,
            took,
            head_after: self.head_after,
            first_byte_after: self.first_byte_after.unwrap_or(self.head_after),
            request_id: &trail.request_id,
            method: trail.method,
            status: self.status,
            cache: &self.cache,
            reason: self.reason.as_deref(),
            tier: self.tier,
            api: self.api,
            model: self.model.as_deref(),
            bytes: self.bytes,
            is_whole: self.is_whole,
        });
    }
}

/// Three digits after the point: a hit takes microseconds.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

/// A body whose bytes are counted.
struct Followed {
    inner: BoxBody,
    line: Line,
}

impl Body for Followed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        let line = &mut this.line;
        match &frame {
            None => line.is_whole = true,
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let began = line.trail.began;
                    line.first_byte_after.get_or_insert_with(|| began.elapsed());
                    line.bytes += data.len() as u64;
                }
                line.is_whole = this.inner.is_end_stream();
            }
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The client's id of the request if it is plain, or one of our own: a hash with a seed of the
/// process, so that the ids of two processes differ.
fn request_id(headers: &HeaderMap) -> String {
    static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let is_plain = |id: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
        (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_plain)
    };
    let given = headers.get("x-request-id");
    let given = given.and_then(|id| id.to_str().ok()).filter(is_plain);
    given.map_or_else(
        || {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            format!("{:016x}", SEED.hash_one(number))
        },
        str::to_owned,
    )
}

/// The reason in a `Cache-Status` of ours: `detail`, or how the request was forwarded.
fn reason(cache_status: &str) -> Option<&str> {
    let parameter = |name: &str| {
        let mut parameters = cache_status.split(';').map(str::trim);
        parameters.find_map(|it| it.strip_prefix(name)?.strip_prefix('='))
    };
    let detail = parameter("detail").map(|it| it.trim_matches('"'));
    detail.or_else(|| parameter("fwd"))
}

/// A text that is safe in a line: visible ASCII without quotes and backslashes, at most
/// `bytes_max` of them.
fn plain(text: &str, bytes_max: usize) -> String {
    let is_plain = |it: &char| matches!(it, ' '..='~') && !matches!(it, '"' | '\\');
    let told = text.chars().map(|it| if is_plain(&it) { it } else { '?' });
    told.take(bytes_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in all {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn only_a_plain_request_id_is_taken() {
        let check = |id: &'static str, is_taken: bool| {
            let told = request_id(&headers(&[("x-request-id", id)]));
            assert_eq!(told == id, is_taken, "{id}");
            assert!(!told.is_empty() && told.len() <= ID_BYTES_MAX);
        };
        check("0b9f7c5e-1d1c-4b9e-9d9a-000000000000", true);
        check("req_01:a/b+c=", true);
        check("", false);
        check("a b", false);
        check("a\"b", false);
        check(
            Box::leak("a".repeat(ID_BYTES_MAX + 1).into_boxed_str()),
            false,
        );
        let none = headers(&[]);
        assert_ne!(request_id(&none), request_id(&none));
    }

    #[test]
    fn what_a_client_chooses_is_bounded_and_forges_nothing() {
        assert_eq!(plain("gpt-4\n\"x\\\u{1b}ü", 32), "gpt-4??x???");
        assert_eq!(plain("abc", 2), "ab");
        assert_eq!(reason("reflex; fwd=bypass; detail=\"path\""), Some("path"));
        assert_eq!(reason("reflex; fwd=miss; collapsed"), Some("miss"));
        assert_eq!(reason("reflex; hit; ttl=5"), None);
    }
}
