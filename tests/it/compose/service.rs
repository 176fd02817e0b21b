//! Our middleware in front of a service: of WASI 0.3, as one component with it, and of WASI 0.2, run
//! by the host. Misses and bypasses go to the service, hits come from the cache, and
//! bodies stream both ways.
//!
//! The services (`tests/guests/origin` and `origin02`) make their bodies themselves, and ask before
//! each part of a stream whether to go on; the tests answer that.

use super::tool;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use reflex_host::cache::{Cache, CacheOptions};
use reflex_host::clock::Clock;
use reflex_host::component::{Failure, GuestLimits, Handler, Service02};
use reflex_host::exchange::{
    BoxBody, HttpPolicy, NoObserver, Outcome, RecordingObserver, ResponseFuture, SendRequest,
};
use reflex_host::grant::{Grant, ReflexCtx};
use reflex_tests::PATIENCE;
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};

/// Longest request that the middleware looks at here, in bytes.
const REQUEST_BYTES_MAX: u64 = 64 << 10;

const CHAT: &str = "/v1/chat/completions";

/// Middleware and service as one component, and the file it is in.
fn composed() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let middleware = folder.path().join("middleware.wasm");
    std::fs::write(&middleware, reflex_host::serve::MIDDLEWARE).expect("written");
    let service = Path::new(env!("REFLEX_TEST_ORIGIN_WASM"));
    let component = tool::plug(folder.path(), &middleware, service);
    (folder, component)
}

/// A host of the middleware and a service.
struct Host {
    handler: Handler,
    pace: Arc<Pace>,
}

/// One of each kind.
fn hosts() -> impl Iterator<Item = Host> {
    ["0.3", "0.2"].into_iter().map(|version| {
        println!("a service of WASI {version}");
        match version {
            "0.2" => Host::before_02(),
            _ => Host::composed(),
        }
    })
}

/// The machine may be busy with a build.
fn limits() -> GuestLimits {
    GuestLimits {
        instances_max: 8,
        guest_time_max: PATIENCE,
        ..GuestLimits::default()
    }
}

/// The service of WASI 0.2, and its pace.
pub(super) fn origin02(limits: GuestLimits) -> (Service02, Arc<Pace>) {
    let pace = Arc::new(Pace(Semaphore::new(0)));
    let sender = Arc::new(Sender(Arc::clone(&pace)));
    let component = include_bytes!(env!("REFLEX_TEST_ORIGIN02_WASM"));
    let service = Service02::new(component, sender, limits);
    (service.expect("it is a service"), pace)
}

impl Host {
    fn composed() -> Self {
        Self::composed_with(limits(), Arc::new(NoObserver))
    }

    fn composed_with(limits: GuestLimits, observer: Arc<dyn RecordingObserver>) -> Self {
        let (_folder, component) = composed();
        let component = std::fs::read(component).expect("the component");
        let pace = Arc::new(Pace(Semaphore::new(0)));
        let sender = Arc::new(Sender(Arc::clone(&pace)));
        Self::of(&component, sender, pace, limits, observer)
    }

    fn before_02() -> Self {
        let (service, pace) = origin02(limits());
        let (component, observer) = (reflex_host::serve::MIDDLEWARE, Arc::new(NoObserver));
        Self::of(component, Arc::new(service), pace, limits(), observer)
    }

    fn of(
        component: &[u8],
        sender: Arc<dyn SendRequest>,
        pace: Arc<Pace>,
        limits: GuestLimits,
        observer: Arc<dyn RecordingObserver>,
    ) -> Self {
        let reflex = ReflexCtx {
            cache: Cache::in_memory(&CacheOptions::default()),
            grant: Grant {
                request_bytes_max: REQUEST_BYTES_MAX,
                ..Grant::new("composed")
            },
            clock: Clock::system(),
        };
        let policy = HttpPolicy {
            observer,
            ..HttpPolicy::new(&reflex.cache)
        };
        let handler = Handler::new(component, reflex, policy, sender, limits);
        Self {
            handler: handler.expect("the component fits our host"),
            pace,
        }
    }

    async fn try_send(&self, path: &str, body: BoxBody) -> Result<Response<BoxBody>, Failure> {
        let request = Request::builder()
            .method("POST")
            .uri(format!("http://model.test{path}"))
            .header("authorization", "Bearer key")
            .header("content-type", "application/json")
            .body(body)
            .expect("a request");
        within("a response", self.handler.handle(request)).await
    }

    async fn send(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let response = self.try_send(path, full(body)).await.expect("a response");
        Answer::new(response)
    }
}

/// Answers the service's question whether to go on: yes, as often as the test has released it.
pub(super) struct Pace(pub(super) Semaphore);

/// The only place that the component reaches.
struct Sender(Arc<Pace>);

impl SendRequest for Sender {
    fn send(&self, request: Request<BoxBody>) -> ResponseFuture {
        assert_eq!(request.uri().host(), Some("pace.test"));
        let pace = Arc::clone(&self.0);
        Box::pin(async move {
            pace.0.acquire().await.expect("never closed").forget();
            Ok(Response::new(full("")))
        })
    }
}

pub(super) fn full(body: impl Into<Bytes>) -> BoxBody {
    boxed(Full::new(body.into()))
}

pub(super) fn boxed(
    body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> BoxBody {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A response whose body comes bit by bit.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: BoxBody,
}

impl Answer {
    pub(super) fn new(response: Response<BoxBody>) -> Self {
        let (head, body) = response.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body,
        }
    }

    fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str());
        value.transpose().expect("text").unwrap_or_default()
    }

    /// What the middleware says, and whether the service made this very answer.
    fn origin(&self) -> (&str, bool) {
        let asked = self.header("x-origin") == "asked";
        (self.header("x-reflex-status"), asked)
    }

    /// The next part of the body, as text; nothing at its end.
    pub(super) async fn part(&mut self) -> String {
        match within("a part of the body", self.body.frame()).await {
            None => String::new(),
            Some(frame) => {
                let data = frame.expect("no error").into_data().expect("no trailers");
                String::from_utf8(data.into()).expect("text")
            }
        }
    }

    /// Whether the rest of the body breaks off before its end.
    async fn breaks(self) -> bool {
        let rest = within("the end of the body", self.body.collect()).await;
        rest.is_err()
    }

    pub(super) async fn rest(&mut self) -> String {
        let mut text = String::new();
        loop {
            let part = self.part().await;
            if part.is_empty() {
                return text;
            }
            text.push_str(&part);
        }
    }
}

pub(super) fn chat(prompt: &str, stream: bool) -> String {
    format!(
        r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"{prompt}"}}]}}"#
    )
}

#[tokio::test]
async fn a_miss_is_answered_by_the_service_and_a_hit_by_us() {
    for host in hosts() {
        let mut miss = host.send(CHAT, chat("Hello", false)).await;
        assert_eq!(
            (miss.status, miss.origin()),
            (StatusCode::OK, ("MISS", true))
        );
        let body = miss.rest().await;
        assert!(body.contains("bytes"), "{body}");

        let mut hit = host.send(CHAT, chat("Hello", false)).await;
        assert_eq!(hit.origin(), ("HIT_L1_EXACT", false));
        assert_eq!(hit.rest().await, body);

        let other = host.send(CHAT, chat("Good bye", false)).await;
        assert_eq!(other.origin(), ("MISS", true));
    }
}

#[tokio::test]
async fn a_stream_reaches_the_client_as_it_is_made_and_is_replayed() {
    for host in hosts() {
        let mut miss = host.send(CHAT, chat("Tell me", true)).await;
        assert_eq!(miss.origin(), ("MISS", true));
        // The service waits for permission to go on, and the first part has arrived.
        let mut body = miss.part().await;
        assert!(body.contains("On"), "{body}");
        for _ in 0..3 {
            host.pace.0.add_permits(1);
            body.push_str(&miss.part().await);
        }
        assert_eq!(miss.part().await, "");
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");

        let mut hit = host.send(CHAT, chat("Tell me", true)).await;
        assert_eq!(hit.origin(), ("HIT_L1_EXACT", false));
        assert_eq!(hit.rest().await, body);
    }
}

#[tokio::test]
async fn equal_requests_meanwhile_read_along_also_when_the_first_has_left() {
    for host in hosts() {
        let mut first = host.send(CHAT, chat("Together", true)).await;
        let begin = first.part().await;
        let mut second = host.send(CHAT, chat("Together", true)).await;
        assert_eq!(second.header("cache-status"), "reflex; fwd=miss; collapsed");
        assert_eq!(second.part().await, begin);

        drop(first);
        host.pace.0.add_permits(3);
        let rest = second.rest().await;
        assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
        let mut hit = host.send(CHAT, chat("Together", true)).await;
        assert_eq!(hit.origin(), ("HIT_L1_EXACT", false));
        assert_eq!(hit.rest().await, format!("{begin}{rest}"));
    }
}

#[tokio::test]
async fn a_stream_that_its_client_leaves_is_not_stored() {
    for host in hosts() {
        let mut left = host.send(CHAT, chat("Never mind", true)).await;
        left.part().await;
        drop(left);
        host.pace.0.add_permits(6);
        let mut again = host.send(CHAT, chat("Never mind", true)).await;
        assert_eq!(again.origin(), ("MISS", true));
        let body = again.rest().await;
        assert!(body.ends_with("data: [DONE]\n\n"), "{body}");
    }
}

/// Passes on how guests fail.
pub(super) struct Told(mpsc::UnboundedSender<&'static str>);

impl Told {
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<&'static str>) {
        let (tell, failures) = mpsc::unbounded_channel();
        (Arc::new(Self(tell)), failures)
    }
}

impl RecordingObserver for Told {
    fn guest_failed(&self, reason: &'static str) {
        // The test may be over.
        let _ = self.0.send(reason);
    }

    fn ended(&self, _: Outcome) {}
}

/// A body of unknown length, in parts that a test sends.
pub(super) struct Parts(pub(super) mpsc::Receiver<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|part| part.map(|part| Ok(Frame::data(part))))
    }
}

/// Sends a request in 16 parts of 16 KiB, of which hardly more than one waits anywhere; the answer
/// comes after the last.
async fn check_streams_through(path: &str, bypass: &str) {
    const PARTS: usize = 16;
    for host in hosts() {
        let (parts, body) = mpsc::channel(1);
        let sending = async move {
            for _ in 0..PARTS {
                let part = Bytes::from(vec![b' '; 16 << 10]);
                within("room for a part", parts.send(part))
                    .await
                    .expect("it is read");
            }
        };
        let (response, ()) = tokio::join!(host.try_send(path, boxed(Parts(body))), sending);
        let mut answer = Answer::new(response.expect("a response"));
        assert_eq!(answer.origin(), ("BYPASS", true));
        let why = format!("reflex; fwd=bypass; detail=\"{bypass}\"");
        assert_eq!(answer.header("cache-status"), why);
        let said = answer.rest().await;
        assert!(said.contains(&(PARTS * (16 << 10)).to_string()), "{said}");
    }
}

#[tokio::test]
async fn what_is_not_ours_streams_through_to_the_service() {
    check_streams_through("/v1/files", "path").await;
}

/// The middleware has read the beginning by then, and gives it back.
#[tokio::test]
async fn what_is_too_long_to_look_at_streams_through_to_the_service() {
    check_streams_through(CHAT, "body-too-large").await;
}

#[tokio::test]
async fn an_error_of_the_service_is_the_clients_and_is_not_stored() {
    for host in hosts() {
        let body = chat("Hello", false).replace("\"m\"", "\"none\"");
        for _ in 0..2 {
            let Err(Failure::Refused { error, .. }) = host.try_send(CHAT, full(body.clone())).await
            else {
                panic!("an error of the service");
            };
            assert_eq!(error.to_string(), "destination unavailable");
        }
    }
}

/// Its client waits for the body, and the service for an answer that never comes.
#[tokio::test]
async fn a_service_that_streams_for_too_long_is_stopped_and_counted() {
    let limits = GuestLimits {
        stream_time_max: Duration::from_secs(2),
        instances_max: 1,
        instance_wait_max: PATIENCE,
        ..limits()
    };
    let (observer, mut failures) = Told::new();
    let host = Host::composed_with(limits, observer);
    let mut answer = host.send(CHAT, chat("Slowly", true)).await;
    assert_eq!(answer.origin(), ("MISS", true));
    assert!(answer.part().await.contains("On"));
    assert!(answer.breaks().await, "it passes for a whole body");
    let failure = within("a count", failures.recv()).await;
    assert_eq!(failure, Some("stream-timeout"));

    // Its instance has gone with it.
    let mut other = host.send(CHAT, chat("At once", false)).await;
    assert_eq!(other.origin(), ("MISS", true));
    assert!(other.rest().await.contains("bytes"));
    assert_eq!(failures.try_recv().ok(), None);
}

#[tokio::test]
async fn the_daemon_runs_the_composed_component() {
    let (_folder, component) = composed();
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .component(&component)
        .start()
        .await;
    for (status, asked) in [("MISS", "asked"), ("HIT_L1_EXACT", "")] {
        let answer = edge.client.fetch(Ask::chat("composed")).await;
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, status));
        assert_eq!(answer.header("x-origin"), asked);
        assert_eq!(answer.json()["object"], "chat.completion");
    }
    assert_eq!(upstream.call_count(), 0);
}
