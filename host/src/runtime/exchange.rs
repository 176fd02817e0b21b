//! The provider's answer to a client's own request, held by the host while a guest works with it.
//!
//! A guest that fails after it has sent the client's request must not cause a second call: the
//! provider may have acted on the first one. So the host owns the exchange. The guest reads the
//! response through it, and when the guest fails, the host hands what it still has to the client.

use super::body::Prefixed;
use super::handler::Failure;
use super::state::ResponseFuture;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::{Error, WasiBody};

/// A client's request as the host has given it to a guest, and what the guest has sent of it.
#[derive(Debug)]
pub(super) struct Errand {
    method: Method,
    path: Option<PathAndQuery>,
    /// Of the body, as far as the guest has read it.
    read: Sum,
    sent: Mutex<Sent>,
}

#[derive(Debug, Default)]
struct Sent {
    /// The last request of the guest that went where the client's was to go.
    last: Option<Arc<Exchange>>,
    /// Whether an earlier one may have reached the provider.
    before: bool,
}

impl Errand {
    /// Watches a request on its way into a guest.
    pub(super) fn watch(request: Request<WasiBody>) -> (Arc<Self>, Request<WasiBody>) {
        let errand = Self {
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            read: Sum::default(),
            sent: Mutex::default(),
        };
        let request = request.map(|body| Summed::boxed(body, &errand.read));
        (Arc::new(errand), request)
    }

    /// Has `send` send a request of the guest. Its response is kept if the client's own request
    /// may be what was sent.
    pub(super) fn send(
        &self,
        request: Request<WasiBody>,
        send: impl FnOnce(Request<WasiBody>) -> ResponseFuture,
    ) -> ResponseFuture {
        let is_ours = *request.method() == self.method
            && request.uri().path_and_query() == self.path.as_ref();
        if !is_ours {
            return send(request);
        }
        let sum = Sum::default();
        let response = send(request.map(|body| Summed::boxed(body, &sum)));
        let exchange = Arc::new(Exchange {
            sent: sum,
            state: Mutex::new(State::Waiting(response)),
        });
        let mut sent = lock(&self.sent);
        if let Some(earlier) = sent.last.replace(Arc::clone(&exchange)) {
            sent.before |= !earlier.was_not_sent();
        }
        drop(sent);
        Box::pin(Answering(exchange))
    }

    /// The guest has answered: what it has not kept of the provider's response may go.
    pub(super) fn is_done(&self) {
        if let Some(exchange) = lock(&self.sent).last.take() {
            exchange.forget();
        }
    }

    /// Names a failure of the guest by whether it has sent the client's request.
    pub(super) fn failed(self: Arc<Self>, cause: Failure) -> Failure {
        // An error that the guest returns is its decision.
        if matches!(cause, Failure::Refused { .. }) || lock(&self.sent).last.is_none() {
            return cause;
        }
        Failure::AfterSending {
            cause: Box::new(cause),
            rest: Rest(self),
        }
    }
}

/// What a guest has left behind that failed after it had sent the client's request.
#[derive(Debug)]
pub struct Rest(Arc<Errand>);

/// Why there is no answer to a request that a guest had sent before it failed.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// Nothing has reached the provider: the request may be sent again.
    NotSent,
    /// The provider may have acted, and its response took too long.
    TimedOut,
    /// The provider may have acted, and closed the connection.
    Closed,
    /// The provider has answered, and the answer is gone: the guest has read more of it than is
    /// kept, or had changed the request's body.
    WithTheGuest,
}

impl Rest {
    /// The provider's answer to the client's request, from its first byte. Waits for it as long as
    /// [`SendRequest::send`](super::SendRequest::send) does.
    ///
    /// # Errors
    ///
    /// [`Lost`] says whether the request may be sent again.
    ///
    /// # Cancellation
    ///
    /// The request to the provider is given up when the future is dropped.
    pub async fn answer(self) -> Result<Response<WasiBody>, Lost> {
        let Sent { last, before } = std::mem::take(&mut *lock(&self.0.sent));
        let answered = match last {
            Some(exchange) => exchange.take_back(&self.0.read).await,
            None => Err(Lost::NotSent),
        };
        match answered {
            Err(Lost::NotSent) if before => Err(Lost::WithTheGuest),
            answered => answered,
        }
    }
}

/// One request of a guest, and its response.
struct Exchange {
    /// Of the request's body, as far as the provider's connection has taken it.
    sent: Sum,
    state: Mutex<State>,
}

enum State {
    /// Until the response's head is there.
    Waiting(ResponseFuture),
    /// The guest has the response.
    Answered {
        status: StatusCode,
        headers: HeaderMap,
        body: Arc<Mutex<Given>>,
    },
    Lost(Lost),
}

/// What is kept of a response while a guest reads it and has not answered. Components that read
/// answers before they pass them on read texts.
const READ_BYTES_MAX: usize = 1 << 20;

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    fn was_not_sent(&self) -> bool {
        matches!(&*lock(&self.state), State::Lost(Lost::NotSent))
    }

    /// The guest keeps the response: what it reads from now on need not be kept here.
    fn forget(&self) {
        if let State::Answered { body, .. } = &*lock(&self.state) {
            lock(body).read = None;
        }
    }

    /// The response, if it is the answer to a request with the body of which `read` was read.
    async fn take_back(self: Arc<Self>, read: &Sum) -> Result<Response<WasiBody>, Lost> {
        let state = std::mem::replace(&mut *lock(&self.state), State::Lost(Lost::WithTheGuest));
        let response = match state {
            State::Waiting(response) => response.await.map_err(|error| lost(&error))?,
            State::Answered {
                status,
                headers,
                body,
            } => {
                let body = lock(&body).take_back().ok_or(Lost::WithTheGuest)?;
                let mut response = Response::new(body);
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            State::Lost(lost) => return Err(lost),
        };
        // The answer to another request is none to this one.
        match self.sent.is_all_of(read) {
            true => Ok(response),
            false => Err(Lost::WithTheGuest),
        }
    }
}

/// What an error says about where the request has got to.
fn lost(error: &Error) -> Lost {
    match error {
        Error::HttpRequestDenied
        | Error::HttpRequestUriInvalid
        | Error::DnsTimeout
        | Error::DnsError { .. }
        | Error::DestinationNotFound
        | Error::DestinationUnavailable
        | Error::DestinationIpProhibited
        | Error::DestinationIpUnroutable
        | Error::ConnectionRefused
        | Error::ConnectionTimeout
        | Error::ConnectionLimitReached
        | Error::TlsProtocolError
        | Error::TlsCertificateError => Lost::NotSent,
        Error::HttpResponseTimeout => Lost::TimedOut,
        _ => Lost::Closed,
    }
}

/// The guest's side of an exchange.
struct Answering(Arc<Exchange>);

impl Future for Answering {
    type Output = Result<Response<WasiBody>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0.state);
        let State::Waiting(response) = &mut *state else {
            return Poll::Ready(Err(Error::ConnectionTerminated));
        };
        let response = match ready!(response.as_mut().poll(cx)) {
            Ok(response) => response,
            Err(error) => {
                *state = State::Lost(lost(&error));
                return Poll::Ready(Err(error));
            }
        };
        let (parts, body) = response.into_parts();
        let body = Arc::new(Mutex::new(Given::new(body)));
        *state = State::Answered {
            status: parts.status,
            headers: parts.headers.clone(),
            body: Arc::clone(&body),
        };
        let response = Response::from_parts(parts, GivenBody(body).boxed_unsync());
        Poll::Ready(Ok(response))
    }
}

/// A response's body that a guest has been given, and what it has read of it.
struct Given {
    /// Gone when it has been taken back.
    body: Option<WasiBody>,
    /// In one piece; `None` once it was too much to keep.
    read: Option<Vec<u8>>,
}

impl Given {
    fn new(body: WasiBody) -> Self {
        Self {
            body: Some(body),
            read: Some(Vec::new()),
        }
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        // No API for LLMs sends trailers, and an answer without them is not whole.
        let data = frame.data_ref();
        match (&mut self.read, data) {
            (Some(read), Some(data)) if data.len() <= READ_BYTES_MAX - read.len() => {
                read.extend_from_slice(data);
            }
            _ => self.read = None,
        }
    }

    /// The body from its first byte, if it is still there.
    fn take_back(&mut self) -> Option<WasiBody> {
        let read = self.read.take()?;
        let rest = self.body.take()?;
        Some(match read.is_empty() {
            true => rest,
            false => Prefixed::boxed(read.into(), rest),
        })
    }
}

struct GivenBody(Arc<Mutex<Given>>);

impl Body for GivenBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut given = lock(&self.0);
        let Some(body) = &mut given.body else {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            _ if given.read.is_none() => {}
            Some(Ok(frame)) => given.keep(frame),
            Some(Err(_)) => given.read = None,
            // A body that has ended says so again.
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let given = lock(&self.0);
        given.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let given = lock(&self.0);
        let body = given.body.as_ref();
        body.map_or_else(SizeHint::default, Body::size_hint)
    }
}

/// A running checksum of a body: tells a body that passed through a guest from one that the guest
/// has changed. Guests are the operator's, so it need not withstand an attack.
#[derive(Clone)]
struct Sum(Arc<Mutex<Seen>>);

struct Seen {
    digest: Digest,
    /// Whether that is known to be all.
    ended: bool,
}

impl Default for Sum {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Seen {
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
            ended: false,
        })))
    }
}

impl fmt::Debug for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sum")
    }
}

impl Sum {
    /// Whether the body is all that was read of `read` so far.
    fn is_all_of(&self, read: &Self) -> bool {
        let of = |sum: &Self| {
            let seen = lock(&sum.0);
            let bytes = (seen.digest.get_amount(), seen.digest.finalize());
            (bytes, seen.ended)
        };
        let ((sent, sent_ended), (read, read_ended)) = (of(self), of(read));
        sent == read && (read_ended || !sent_ended)
    }
}

struct Summed {
    inner: WasiBody,
    sum: Sum,
}

impl Summed {
    fn boxed(inner: WasiBody, sum: &Sum) -> WasiBody {
        // Most GETs: there is nothing to watch.
        if inner.is_end_stream() {
            lock(&sum.0).ended = true;
            return inner;
        }
        let sum = sum.clone();
        Self { inner, sum }.boxed_unsync()
    }
}

impl Body for Summed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let mut seen = lock(&self.sum.0);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    seen.digest.update(data);
                }
                seen.ended = self.inner.is_end_stream();
            }
            Some(Err(_)) => {}
            None => seen.ended = true,
        }
        drop(seen);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A body or future that panicked while it was polled leaves nothing half-changed here.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::future::ready;

    fn request(path: &str, body: &'static str) -> Request<WasiBody> {
        let body = Full::new(Bytes::from_static(body.as_bytes()));
        Request::post(format!("http://model.test{path}"))
            .body(body.map_err(Error::from).boxed_unsync())
            .expect("a request")
    }

    /// The provider reads the request to its end and answers with its length.
    fn provider(request: Request<WasiBody>) -> ResponseFuture {
        Box::pin(async move {
            let read = request.into_body().collect().await?.to_bytes();
            let answer = Full::new(Bytes::from(format!("{} bytes", read.len())));
            Ok(Response::new(answer.map_err(Error::from).boxed_unsync()))
        })
    }

    fn refused(_: Request<WasiBody>) -> ResponseFuture {
        Box::pin(ready(Err(Error::ConnectionRefused)))
    }

    /// What the client gets after the guest has done this and failed.
    async fn left<F: Future<Output = ()>>(
        guest: impl FnOnce(Arc<Errand>, Request<WasiBody>) -> F,
    ) -> Result<String, Lost> {
        let (errand, lent) = Errand::watch(request("/v1/files", "a file"));
        guest(Arc::clone(&errand), lent).await;
        let rest = match errand.failed(Failure::TimedOut) {
            Failure::AfterSending { rest, .. } => rest,
            _ => return Err(Lost::NotSent),
        };
        let body = rest.answer().await?.into_body();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    #[tokio::test]
    async fn what_the_provider_answers_outlives_the_guest() {
        let answer = || Ok("6 bytes".to_owned());
        let got = left(|errand, lent| async move {
            drop(errand.send(lent, provider));
        });
        assert_eq!(got.await, answer(), "before the response");
        let got = left(|errand, lent| async move {
            drop(errand.send(lent, provider).await);
        });
        assert_eq!(got.await, answer(), "with the response in hand");
        let got = left(|errand, lent| async move {
            drop(errand.send(request("/v1/models", ""), provider).await);
            drop(errand.send(lent, provider).await);
        });
        assert_eq!(got.await, answer(), "with another response before");
        let got = left(|errand, lent| async move {
            let response = errand.send(lent, provider).await.expect("a response");
            let read = response.into_body().collect().await.expect("a body");
            assert_eq!(read.to_bytes(), "6 bytes");
        });
        assert_eq!(got.await, answer(), "with the response read");
    }

    #[tokio::test]
    async fn an_answer_to_something_else_is_not_the_clients() {
        let got = left(|errand, lent| async move {
            drop(lent);
            drop(errand.send(request("/v1/files", ""), provider).await);
        });
        assert_eq!(got.await, Err(Lost::WithTheGuest), "unread");
        let got = left(|errand, lent| async move {
            let _ = lent.into_body().collect().await;
            let other = request("/v1/files", "A file");
            drop(errand.send(other, provider).await);
        });
        assert_eq!(got.await, Err(Lost::WithTheGuest), "changed");
        let long = |request: Request<WasiBody>| -> ResponseFuture {
            Box::pin(async move {
                let _ = request.into_body().collect().await?;
                let body = Full::new(Bytes::from(vec![0; READ_BYTES_MAX + 1]));
                Ok(Response::new(body.map_err(Error::from).boxed_unsync()))
            })
        };
        let got = left(|errand, lent| async move {
            let response = errand.send(lent, long).await.expect("a response");
            let _ = response.into_body().frame().await;
        });
        assert_eq!(got.await, Err(Lost::WithTheGuest), "too much was read");
    }

    #[tokio::test]
    async fn what_was_not_sent_may_be_sent_again() {
        let got = left(|_, _| ready(()));
        assert_eq!(got.await, Err(Lost::NotSent));
        let got = left(|errand, _| async move {
            drop(errand.send(request("/v1/models", ""), provider).await);
        });
        assert_eq!(got.await, Err(Lost::NotSent), "elsewhere");
        let got = left(|errand, lent| async move {
            drop(errand.send(lent, refused).await);
        });
        assert_eq!(got.await, Err(Lost::NotSent), "refused");
        let got = left(|errand, lent| async move {
            drop(errand.send(lent, provider).await);
            let again = request("/v1/files", "a file");
            drop(errand.send(again, refused).await);
        });
        assert_eq!(got.await, Err(Lost::WithTheGuest), "sent before");
    }
}
