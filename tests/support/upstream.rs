//! A provider on a loopback port of its own, for HTTP/1.1 and HTTP/2 without TLS. It records
//! what it is asked, and does with each request what the test or the request's `x-mock` says.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::behaviour::Behaviour;
use crate::completion;
use crate::reply::{Reply, events, gzip, json, json_of, models, preflight, refuse, set};
use crate::spoken::{self, Asked, Ending, Wish};
use crate::within;

/// The largest request that is taken in.
const REQUEST_BYTES_MAX: usize = 64 << 20;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its method.
    pub method: Method,
    /// Path and query, as sent.
    pub path: String,
    /// HTTP/1.1 or HTTP/2.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Bytes,
    /// What came behind the body.
    pub trailers: HeaderMap,
}

impl Call {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("")
    }
}

/// A running provider. It stops when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    draining: watch::Sender<()>,
    listening: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    /// Makes ids differ from those of other providers, and of this one before a restart.
    started: u64,
    behaviour: Mutex<Behaviour>,
    /// Headers of every answer, on top of the usual ones.
    headers: Mutex<Vec<(HeaderName, HeaderValue)>>,
    calls: watch::Sender<Vec<Call>>,
    /// How many requests lost their client before the answer's end.
    abandoned: watch::Sender<usize>,
    /// A permit for each frame that a gated answer may send.
    gate: Semaphore,
}

impl Upstream {
    /// Starts a provider that answers at once.
    pub async fn start() -> Self {
        Self::start_with(Behaviour::Answer).await
    }

    /// Starts a provider that does this, unless a request's `x-mock` says otherwise.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start_with(behaviour: Behaviour) -> Self {
        Self::start_allowing(behaviour, None).await
    }

    /// Starts a provider that takes so many requests at once on one connection of HTTP/2.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    pub async fn start_allowing(behaviour: Behaviour, streams: Option<u32>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free loopback port");
        let address = listener.local_addr().expect("the address of a listener");
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let shared = Arc::new(Shared {
            started: since.as_secs(),
            behaviour: Mutex::new(behaviour),
            headers: Mutex::default(),
            calls: watch::Sender::new(Vec::new()),
            abandoned: watch::Sender::new(0),
            gate: Semaphore::new(0),
        });
        let (draining, drain) = watch::channel(());
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared), drain, streams));
        Self {
            address,
            shared,
            draining,
            listening,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--upstream` is to be.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What to do with the requests from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour() = behaviour;
    }

    /// Which headers every answer has from now on, errors too, beside the usual ones.
    ///
    /// # Panics
    ///
    /// If the test has made something up that is no header.
    pub fn also_send(&self, headers: &[(&str, &str)]) {
        let header = |(name, value): &(&str, &str)| {
            let name = name.parse().expect("a header's name");
            (name, value.parse().expect("a header's value"))
        };
        *lock(&self.shared.headers) = headers.iter().map(header).collect();
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.borrow().clone()
    }

    /// How many requests have arrived so far.
    pub fn call_count(&self) -> usize {
        self.shared.calls.borrow().len()
    }

    /// Waits until so many requests have arrived in all.
    pub async fn called(&self, count: usize) {
        let mut calls = self.shared.calls.subscribe();
        let enough = calls.wait_for(|calls| calls.len() >= count);
        let _ = within(&format!("{count} calls of the provider"), enough).await;
    }

    /// Waits until so many answers have lost their reader before their end.
    pub async fn abandoned(&self, count: usize) {
        let mut abandoned = self.shared.abandoned.subscribe();
        let enough = abandoned.wait_for(|abandoned| *abandoned >= count);
        let _ = within(&format!("{count} answers without a reader"), enough).await;
    }

    /// Lets gated answers send so many frames more, or so many held ones (with the header
    /// `x-hold`) begin.
    pub fn release(&self, frames: usize) {
        self.shared.gate.add_permits(frames);
    }

    /// Takes back what was released and not used.
    pub fn forget_permits(&self) {
        self.shared.gate.forget_permits(usize::MAX >> 3);
    }

    /// Lets gated answers send all they have, from now on.
    pub fn release_all(&self) {
        self.shared.gate.close();
    }

    /// Stops listening and lets running answers come to their end.
    pub async fn drain(&mut self) {
        self.draining.send_replace(());
        // It was aborted, or has panicked: then nothing runs any more either.
        let _ = (&mut self.listening).await;
    }

    /// Stops listening and closes every connection: a provider that is down.
    pub async fn stop(self) {
        self.listening.abort();
        // The port is free when the task and its connections are gone, not before.
        while !self.listening.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Shared {
    fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        lock(&self.behaviour)
    }

    /// Records a request and returns its number, from 1.
    fn record(&self, call: Call) -> u64 {
        let mut number = 0;
        self.calls.send_modify(|calls| {
            calls.push(call);
            number = calls.len() as u64;
        });
        number
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut drain: watch::Receiver<()>,
    streams: Option<u32>,
) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    let graceful = GracefulShutdown::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = drain.changed() => break,
        };
        let Ok((stream, _)) = accepted else { continue };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| answer(Arc::clone(&shared), request));
        let mut builder = Builder::new(TokioExecutor::new());
        if streams.is_some() {
            builder.http2().max_concurrent_streams(streams);
        }
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        // A connection that ends badly is what some tests are about.
        connections.spawn(graceful.watch(connection));
    }
    drop(listener);
    graceful.shutdown().await;
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BYTES_MAX).collect().await else {
        return Ok(refuse(400, "the body could not be read"));
    };
    let call = Call {
        method: parts.method,
        path: parts
            .uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
        version: parts.version,
        headers: parts.headers,
        trailers: body.trailers().cloned().unwrap_or_default(),
        body: body.to_bytes(),
    };
    let number = shared.record(call.clone());
    let mut unanswered = Unanswered(Some(&shared));
    if !call.header("x-hold").is_empty()
        && let Ok(permit) = shared.gate.acquire().await
    {
        permit.forget();
    }
    let route = call.path.split('?').next().unwrap_or_default();
    let headers = lock(&shared.headers).clone();
    let mut response = match (&call.method, route) {
        // What a browser asks before it lets a page ask.
        (&Method::OPTIONS, _) => preflight(&call),
        (&Method::GET, "/v1/models") => json(StatusCode::OK, models()),
        (&Method::POST, path) if spoken::speaks(path) => {
            complete(Arc::clone(&shared), &call, number).await
        }
        _ => refuse(404, "no such route"),
    };
    for (name, value) in headers {
        response.headers_mut().append(name, value);
    }
    unanswered.0 = None;
    Ok(response)
}

/// A request whose client may leave before the answer.
struct Unanswered<'a>(Option<&'a Shared>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.abandoned.send_modify(|count| *count += 1);
        }
    }
}

async fn complete(shared: Arc<Shared>, call: &Call, number: u64) -> Response<Reply> {
    let behaviour = match call.header("x-mock") {
        "" => *shared.behaviour(),
        wanted => match wanted.parse::<Behaviour>() {
            Ok(behaviour) => behaviour,
            Err(error) => return refuse(400, &error),
        },
    };
    let mut wish = Wish::default();
    match behaviour {
        Behaviour::Silent => std::future::pending::<()>().await,
        Behaviour::Status(status) => return refuse(status, "as the test wants it"),
        Behaviour::Length => wish.ending = Ending::Length,
        Behaviour::Refusal => wish.ending = Ending::Refusal,
        Behaviour::Tool => wish.ending = Ending::Tool,
        Behaviour::Thought => wish.thinks = true,
        Behaviour::Large(bytes) => wish.padding = bytes,
        Behaviour::Odd(oddity) => wish.oddity = Some(oddity),
        _ => {}
    }
    let asked = Asked {
        path: &call.path,
        body: &call.body,
        started: shared.started,
        number,
        wish,
    };
    let Some(mut spoken) = spoken::answer(&asked) else {
        return refuse(400, "the body is not a request of this API");
    };
    match behaviour {
        Behaviour::Error if !spoken.stream => {
            return json(
                StatusCode::OK,
                completion::error(500, "as the test wants it"),
            );
        }
        Behaviour::Error => {
            let error = serde_json::json!({"error": {"message": "overloaded"}});
            spoken.frames.insert(2, completion::event(&error));
        }
        Behaviour::Done => spoken.frames.push(Bytes::from_static(b"data: [DONE]\n\n")),
        Behaviour::More => spoken.frames.push(Bytes::from_static(b"data: {}\n\n")),
        Behaviour::Paced(pause) if !spoken.stream => {
            tokio::time::sleep(pause * u32::try_from(spoken.tokens).unwrap_or(u32::MAX)).await;
        }
        _ => {}
    }

    let mut response = match spoken.stream {
        true => events(stream_of(shared, spoken.frames, behaviour)),
        false if behaviour == Behaviour::Gzip => {
            let mut response = json(StatusCode::OK, gzip(&spoken.json));
            set(&mut response, "content-encoding", "gzip");
            response
        }
        false => {
            let whole = match call.header("x-mock-body") {
                "" => spoken.json,
                body => Bytes::copy_from_slice(body.as_bytes()),
            };
            match behaviour {
                Behaviour::Cut => {
                    let half = vec![whole.slice(..whole.len() / 2)];
                    let body = stream_of(shared, half, behaviour).promising(whole.len() as u64);
                    json_of(StatusCode::OK, body)
                }
                Behaviour::Gated => {
                    let body = stream_of(shared, vec![whole], behaviour);
                    json_of(StatusCode::OK, body)
                }
                _ => json(StatusCode::OK, whole),
            }
        }
    };
    for (name, value) in [
        ("openai-version", "2020-10-01"),
        ("x-request-id", &*format!("req_{number}")),
        ("x-ratelimit-remaining-requests", "9999"),
        ("set-cookie", "__cf_bm=secret; path=/"),
    ] {
        set(&mut response, name, value);
    }
    // More of the head, as `NAME: VALUE`.
    for head in call.headers.get_all("x-mock-head") {
        let head = head.to_str().ok().and_then(|head| head.split_once(": "));
        let (name, value) = head.expect("a header that the test spells");
        let name = http::HeaderName::try_from(name).expect("a name");
        let value = value.parse().expect("a value");
        response.headers_mut().append(name, value);
    }
    if behaviour == Behaviour::HopByHop {
        set(&mut response, "connection", "x-only-this-connection");
        set(&mut response, "x-only-this-connection", "1");
        set(&mut response, "proxy-authenticate", "Basic");
    }
    response
}

/// Sends frames one after the other, in the behaviour's time, until the reader goes away.
fn stream_of(shared: Arc<Shared>, frames: Vec<Bytes>, behaviour: Behaviour) -> Reply {
    let (sender, frames_out) = mpsc::channel(1);
    tokio::spawn(async move {
        let half = frames.len() / 2;
        for (index, frame) in frames.into_iter().enumerate() {
            match behaviour {
                Behaviour::Gated | Behaviour::Done | Behaviour::More => tokio::select! {
                    // The permit is used up; a closed semaphore stands for a gate that stays open.
                    permit = shared.gate.acquire() => if let Ok(permit) = permit { permit.forget() },
                    () = sender.closed() => {}
                },
                Behaviour::Paced(pause) => tokio::time::sleep(pause).await,
                Behaviour::Cut if index >= half && half > 0 => break,
                _ => {}
            }
            if sender.send(Ok(frame)).await.is_err() {
                shared.abandoned.send_modify(|count| *count += 1);
                return;
            }
        }
        if behaviour == Behaviour::Cut {
            let _ = sender
                .send(Err(io::Error::other("cut, as the test wants it")))
                .await;
        }
    });
    Reply::Frames {
        frames: frames_out,
        length: None,
    }
}

#[cfg(test)]
mod tests {
    use super::Upstream;
    use crate::client::{Ask, Client};

    #[tokio::test]
    async fn the_provider_does_what_it_is_told() {
        let upstream = Upstream::start().await;
        let client = Client::new(&upstream.url());
        let check = |status: u16, ask: Ask| {
            let client = client.clone();
            async move {
                let answer = client.fetch(ask).await;
                assert_eq!(answer.status, status, "{:?}", answer.body);
                String::from_utf8_lossy(&answer.body).into_owned()
            }
        };
        let whole = check(200, Ask::stream("hello")).await;
        assert!(whole.ends_with("data: [DONE]\n\n"), "{whole}");
        assert!(check(200, Ask::chat("hello")).await.contains("\"stop\""));
        assert!(
            check(200, Ask::chat("hello").mock("length"))
                .await
                .contains("\"length\"")
        );
        assert!(
            check(200, Ask::stream("hello").mock("error"))
                .await
                .contains("overloaded")
        );
        check(429, Ask::chat("hello").mock("status=429")).await;
        check(400, Ask::body("{")).await;
        check(400, Ask::chat("hello").mock("dance")).await;
        check(404, Ask::get("/elsewhere")).await;
        assert_eq!(upstream.call_count(), 8);
        assert_eq!(upstream.calls()[0].header("authorization"), "Bearer test");
    }

    #[tokio::test]
    async fn a_cut_answer_looks_cut() {
        let upstream = Upstream::start().await;
        let client = Client::new(&upstream.url());
        for ask in [Ask::chat("hello"), Ask::stream("hello")] {
            let Ok(mut answer) = client.try_send(ask.mock("cut")).await else {
                continue;
            };
            while let Ok(chunk) = answer.chunk().await {
                assert!(chunk.is_some(), "it looks whole");
            }
        }
    }

    #[tokio::test]
    async fn a_gated_answer_waits_and_notices_when_its_client_leaves() {
        let upstream = Upstream::start().await;
        let client = Client::new(&upstream.url());
        let mut left = client.send(Ask::stream("one").mock("gated")).await;
        upstream.release(1);
        left.until("assistant").await;
        drop(left);
        upstream.abandoned(1).await;

        let stays = client.send(Ask::stream("two").mock("gated")).await;
        upstream.release_all();
        assert!(stays.whole().await.body.ends_with(b"[DONE]\n\n"));
    }

    #[tokio::test]
    async fn a_provider_that_was_stopped_is_down() {
        let upstream = Upstream::start().await;
        let client = Client::new(&upstream.url());
        client.fetch(Ask::chat("hello")).await;
        upstream.stop().await;
        assert!(client.try_send(Ask::chat("hello")).await.is_err());
    }
}
