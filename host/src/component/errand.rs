//! The provider's answer to a client's own request, held by the host while a guest works with it.
//!
//! A guest that fails after it has sent the client's request must not cause a second call: the
//! provider may have acted on the first one. So the host owns the exchange. The guest reads the
//! response through it, and when the guest fails, the host hands what it still has to the client.

use crate::exchange::ask::ResponseFuture;
use crate::exchange::body::budget::Budget;
use crate::exchange::body::lent::{Lender, lend};
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::sync::lock;
use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

/// A client's request as the host has given it to a guest, and what the guest has sent of it.
#[derive(Debug)]
pub(crate) struct Errand {
    method: Method,
    path: Option<PathAndQuery>,
    /// What the host has noted of the request, which no guest sees.
    extensions: Extensions,
    budget: Arc<Budget>,
    calls: Mutex<Calls>,
}

#[derive(Debug)]
struct Calls {
    /// The client's body, as the guest has it. Gone once the guest has answered: an answer may go on
    /// for much longer.
    client: Option<Lender>,
    /// The last request of the guest that went where the client's was to go.
    last: Option<Arc<Exchange>>,
    /// Whether an earlier one may have reached the provider.
    before: bool,
}

impl Errand {
    /// A request with a body that `client` has lent, on its way into a guest.
    pub(crate) fn new(request: &Request<BoxBody>, client: Lender, budget: &Arc<Budget>) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path_and_query().cloned(),
            extensions: request.extensions().clone(),
            budget: Arc::clone(budget),
            calls: Mutex::new(Calls {
                client: Some(client),
                last: None,
                before: false,
            }),
        }
    }

    /// The client's body, as the guest has it, until the guest has answered.
    pub(crate) fn client(&self) -> Option<Lender> {
        lock(&self.calls).client.clone()
    }

    /// Has `send` send a request of the guest, with what the host has noted of the client's. Its response
    /// is kept if the client's own request may be what was sent.
    pub(crate) fn send(
        &self,
        mut request: Request<BoxBody>,
        send: impl FnOnce(Request<BoxBody>) -> ResponseFuture,
    ) -> ResponseFuture {
        request.extensions_mut().extend(self.extensions.clone());
        let is_ours = *request.method() == self.method
            && request.uri().path_and_query() == self.path.as_ref();
        let client = self.client().filter(|_| is_ours);
        let Some(client) = client else {
            return send(request);
        };
        let sent = Sent::of(client);
        let response = send(request.map(|body| sent.watch(body)));
        let exchange = Arc::new(Exchange {
            sent,
            budget: Arc::clone(&self.budget),
            state: Mutex::new(State::Waiting(response)),
        });
        let mut calls = lock(&self.calls);
        if let Some(earlier) = calls.last.replace(Arc::clone(&exchange)) {
            calls.before |= !earlier.was_not_sent();
        }
        drop(calls);
        Box::pin(Answering(exchange))
    }

    /// The guest has answered: what it has not kept of the provider's response may go.
    pub(crate) fn is_done(&self) {
        let mut calls = lock(&self.calls);
        calls.client = None;
        if let Some(exchange) = calls.last.take() {
            exchange.forget();
        }
    }

    /// The guest has failed: what it leaves behind, if it has sent the client's request.
    pub(crate) fn rest(self: Arc<Self>) -> Option<Rest> {
        let has_sent = lock(&self.calls).last.is_some();
        has_sent.then(|| Rest(self))
    }
}

/// What a guest has left behind that failed after it had sent the client's request.
#[derive(Debug)]
pub struct Rest(Arc<Errand>);

/// Why a request that a guest had sent before it failed has no answer.
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
    /// [`SendRequest::send`](crate::exchange::ask::SendRequest::send) does.
    ///
    /// # Errors
    ///
    /// [`Lost`] says whether the request may be sent again.
    ///
    /// # Cancellation
    ///
    /// The request to the provider is given up when the future is dropped.
    pub async fn answer(self) -> Result<Response<BoxBody>, Lost> {
        let (last, before) = {
            let mut calls = lock(&self.0.calls);
            (calls.last.take(), calls.before)
        };
        let answered = match last {
            Some(exchange) => exchange.take_back().await,
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
    sent: Sent,
    budget: Arc<Budget>,
    state: Mutex<State>,
}

enum State {
    /// Until the response's head is there.
    Waiting(ResponseFuture),
    /// The guest has the response.
    Answered {
        status: StatusCode,
        headers: HeaderMap,
        body: Lender,
    },
    Lost(Lost),
}

/// What is kept of a response while a guest reads it and has not answered; it counts in the budget
/// of all requests. Components that read answers before they pass them on read texts.
const READ_BYTES_MAX: u64 = 1 << 20;

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
            body.let_go();
        }
    }

    /// The response, if it is the answer to the client's request.
    async fn take_back(self: Arc<Self>) -> Result<Response<BoxBody>, Lost> {
        let state = std::mem::replace(&mut *lock(&self.state), State::Lost(Lost::WithTheGuest));
        let response = match state {
            State::Waiting(response) => response.await.map_err(|error| lost(&error))?,
            State::Answered {
                status,
                headers,
                body,
            } => {
                let body = body.take_back().map_err(|_| Lost::WithTheGuest)?;
                let mut response = Response::new(body);
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                response
            }
            State::Lost(lost) => return Err(lost),
        };
        // The answer to another request is none to this one.
        match self.sent.is_all() {
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
        | Error::DnsError
        | Error::DestinationUnavailable
        | Error::DestinationUnroutable
        | Error::ConnectionRefused
        | Error::ConnectionTimeout
        | Error::ConnectionLimitReached
        | Error::TlsProtocolError => Lost::NotSent,
        Error::HttpResponseTimeout => Lost::TimedOut,
        _ => Lost::Closed,
    }
}

/// The guest's side of an exchange.
struct Answering(Arc<Exchange>);

impl Future for Answering {
    type Output = Result<Response<BoxBody>, Error>;

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
        let (lender, body) = lend(body, READ_BYTES_MAX, &self.0.budget);
        *state = State::Answered {
            status: parts.status,
            headers: parts.headers.clone(),
            body: lender,
        };
        let response = Response::from_parts(parts, body);
        Poll::Ready(Ok(response))
    }
}

/// How much of the body that a guest sends is the client's: tells a body that passed through a
/// guest from one that the guest has changed. Most are not even looked at, for they are the bytes
/// that the host has lent.
#[derive(Clone)]
struct Sent {
    client: Lender,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    bytes: u64,
    /// Something else was among them.
    differs: bool,
    /// Whether that is known to be all.
    ended: bool,
}

impl Sent {
    fn of(client: Lender) -> Self {
        Self {
            client,
            seen: Arc::default(),
        }
    }

    /// Whether it is all that was read of the client's body so far.
    fn is_all(&self) -> bool {
        let (read, read_ended) = self.client.given();
        let seen = lock(&self.seen);
        !seen.differs && seen.bytes == read && (read_ended || !seen.ended)
    }

    /// A body that is watched on its way to the provider.
    fn watch(&self, inner: BoxBody) -> BoxBody {
        // Most GETs have no body to watch.
        if inner.is_end_stream() {
            lock(&self.seen).ended = true;
            return inner;
        }
        let sent = self.clone();
        Sending { inner, sent }.boxed_unsync()
    }
}

struct Sending {
    inner: BoxBody,
    sent: Sent,
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let mut seen = lock(&self.sent.seen);
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    seen.differs = seen.differs || !self.sent.client.has(seen.bytes, data);
                    seen.bytes += data.len() as u64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use std::future::ready;

    fn request(path: &str, body: &'static str) -> Request<BoxBody> {
        let body = Full::new(Bytes::from_static(body.as_bytes()));
        Request::post(format!("http://model.test{path}"))
            .body(body.map_err(Error::from).boxed_unsync())
            .expect("a request")
    }

    /// The provider reads the request to its end and answers with its length.
    fn provider(request: Request<BoxBody>) -> ResponseFuture {
        Box::pin(async move {
            let read = request.into_body().collect().await?.to_bytes();
            let answer = Full::new(Bytes::from(format!("{} bytes", read.len())));
            Ok(Response::new(answer.map_err(Error::from).boxed_unsync()))
        })
    }

    fn refused(_: Request<BoxBody>) -> ResponseFuture {
        Box::pin(ready(Err(Error::ConnectionRefused)))
    }

    /// Of an answer, more than is kept of one.
    const HELD_MAX: u64 = 2 * READ_BYTES_MAX;

    /// What the client gets after the guest has done this and failed.
    async fn left<F: Future<Output = ()>>(
        guest: impl FnOnce(Arc<Errand>, Request<BoxBody>) -> F,
    ) -> Result<String, Lost> {
        let (parts, body) = request("/v1/files", "a file").into_parts();
        let budget = Budget::new(HELD_MAX);
        let (client, lent) = lend(body, 6, &budget);
        let lent = Request::from_parts(parts, lent);
        let errand = Arc::new(Errand::new(&lent, client, &budget));
        guest(Arc::clone(&errand), lent).await;
        let rest = errand.rest().ok_or(Lost::NotSent)?;
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
        let got = left(|errand, lent| async move {
            let read = lent.into_body().collect().await.expect("a body").to_bytes();
            let copy = Full::new(Bytes::from(read.to_vec()));
            let copy = Request::post("http://model.test/v1/files")
                .body(copy.map_err(Error::from).boxed_unsync())
                .expect("a request");
            drop(errand.send(copy, provider).await);
        });
        assert_eq!(got.await, answer(), "with a copy of the body sent");
    }

    /// Its body is not kept, and need not be.
    #[tokio::test]
    async fn a_long_body_that_passes_through_is_known_by_where_it_came_from() {
        let budget = Budget::new(HELD_MAX);
        let (parts, body) = request("/v1/files", "a file").into_parts();
        let (client, lent) = lend(body, 5, &budget);
        let lent = Request::from_parts(parts, lent);
        let errand = Arc::new(Errand::new(&lent, client, &budget));
        drop(errand.send(lent, provider).await);
        let rest = Arc::clone(&errand).rest().expect("it was sent");
        assert_eq!(rest.answer().await.expect("an answer").status(), 200);
    }

    /// A megabyte of each answer that a guest read counted nowhere.
    #[tokio::test]
    async fn what_is_kept_of_an_answer_counts_for_as_long_as_it_is_kept() {
        let budget = Budget::new(HELD_MAX);
        let (client, lent) = lend(request("/v1/files", "a file").into_body(), 6, &budget);
        let lent = request("/v1/files", "").map(|_| lent);
        let errand = Arc::new(Errand::new(&lent, client, &budget));
        let response = errand.send(lent, provider).await.expect("a response");
        assert_eq!(budget.held(), 6);
        let mut body = response.into_body();
        drop(body.frame().await);
        assert_eq!(budget.held(), 6 + "6 bytes".len() as u64);
        // Nor does the request count any more, while the answer goes on.
        errand.is_done();
        assert_eq!(budget.held(), 0);
        drop((errand, body));
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
        let long = |request: Request<BoxBody>| -> ResponseFuture {
            Box::pin(async move {
                let _ = request.into_body().collect().await?;
                let body = Full::new(Bytes::from(vec![0; READ_BYTES_MAX as usize + 1]));
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
