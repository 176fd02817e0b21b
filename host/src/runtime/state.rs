//! The host's state behind a guest instance, and the progress of its current request.

use super::body::HostBody;
use super::cache_host::{ReflexCtx, ReflexCtxView};
use super::engine::thread_time;
use super::exchange::Errand;
use super::fills::Audience;
use super::http_host::{HttpPolicy, ReflexHttpCtxView, ReflexHttpView};
use super::limits::{GuestLimits, Measured};
use crate::cache::{Cache, Mark};
use http::HeaderName;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

/// A response on its way.
pub type ResponseFuture =
    Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, Error>> + Send>>;

/// How the requests of guests leave the host.
pub trait SendRequest: Send + Sync + 'static {
    /// Sends a request and resolves once the response's head has come.
    ///
    /// The future is polled while an instance of a guest runs, and wasmtime runs no instance within
    /// another. A sender that lets a guest answer must run it on a task of its own, as
    /// [`Service02`](super::Service02) does.
    ///
    /// # Errors
    ///
    /// The future fails without a response, or if the host does not allow guests that target.
    fn send(&self, request: http::Request<WasiBody>) -> ResponseFuture;
}

/// The data of a guest's store. It knows no file, no environment and no network but the provider.
pub(super) struct GuestState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    reflex: ReflexCtx,
    policy: Arc<HttpPolicy>,
    pub(super) limits: Measured,
}

impl GuestState {
    pub(super) fn new(
        reflex: ReflexCtx,
        policy: Arc<HttpPolicy>,
        sender: Arc<dyn SendRequest>,
        limits: &GuestLimits,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self {
            table,
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            hooks: Hooks {
                sender,
                progress: Arc::default(),
            },
            reflex,
            policy,
            limits: Measured::new(limits.of_store()),
        }
    }

    /// A new request begins: nothing of the last one's progress counts.
    pub(super) fn begin(&mut self) -> Arc<Progress> {
        self.hooks.progress = Arc::default();
        self.hooks.progress.since(&self.reflex.cache);
        Arc::clone(&self.hooks.progress)
    }
}

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for GuestState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

impl GuestState {
    pub(super) fn reflex(&mut self) -> ReflexCtxView<'_> {
        ReflexCtxView {
            ctx: &self.reflex,
            table: &mut self.table,
        }
    }
}

impl ReflexHttpView for GuestState {
    fn reflex_http(&mut self) -> ReflexHttpCtxView<'_> {
        ReflexHttpCtxView {
            ctx: &self.reflex,
            policy: &self.policy,
            progress: Arc::clone(&self.hooks.progress),
            http: WasiHttpCtxView {
                hooks: &mut self.hooks,
                table: &mut self.table,
                ctx: &mut self.http,
            },
        }
    }
}

/// Requests leave through the host's own client, and their progress is noted.
struct Hooks {
    sender: Arc<dyn SendRequest>,
    progress: Arc<Progress>,
}

impl WasiHttpHooks for Hooks {
    // As the default, without an allocation and a copy of the list for each header.
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        static FORBIDDEN: [HeaderName; 9] = DEFAULT_FORBIDDEN_HEADERS;
        FORBIDDEN.contains(name)
    }

    // The client writes `Host` from the target; a second one would be an error there.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _transmitted: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let progress = Arc::clone(&self.progress);
        let response = match progress.errand() {
            Some(errand) => errand.send(request, |request| self.sender.send(request)),
            None => self.sender.send(request),
        };
        sent(async move {
            let waiting = progress.wait();
            progress.call_upstream();
            let response = response.await?;
            drop(waiting);
            Ok(response.map(|body| HostBody::boxed(body, &progress)))
        })
    }
}

type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The result of wasmtime-wasi-http's hooks: a response, and the transmission of its request.
pub(super) type Sent = (http::Response<WasiBody>, Transmission);

/// A response on its way, as those hooks want it. Once the response is there, the request is sent.
pub(super) fn sent(
    response: impl Future<Output = Result<http::Response<WasiBody>, Error>> + Send + 'static,
) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
    Box::new(async move {
        let done: Transmission = Box::new(std::future::ready(Ok(())));
        Ok((response.await?, done))
    })
}

/// The progress of one request. Shared by the guest's store and the task that waits for the
/// response.
#[derive(Debug, Default)]
pub struct Progress {
    /// Calls in flight in which the guest waits for the client, the provider or the disk.
    waiting: AtomicU32,
    /// The host's CPU time within the guest's polls, in nanoseconds.
    host_ns: AtomicU64,
    upstream_called: AtomicBool,
    /// When it began, among purges.
    since: OnceLock<Mark>,
    /// The followers of this request's fill.
    audience: Mutex<Option<Arc<Audience>>>,
    /// The client's request, where the host has one to answer.
    errand: OnceLock<Arc<Errand>>,
    /// Set when the host's body is asked for its size: see [`HostBody`].
    pub(super) host_body_asked: AtomicBool,
}

impl Progress {
    /// While the result is held, the guest waits for the host, which is not its own time
    /// (`guest_time.rs`).
    pub(super) fn wait(self: &Arc<Self>) -> Waiting {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(Arc::clone(self))
    }

    /// When this request began, among purges: at the first call of this.
    pub(super) fn since(&self, cache: &Cache) -> Mark {
        *self.since.get_or_init(|| cache.purges().now())
    }

    /// This request leads: it may have followers.
    pub(super) fn lead(&self, audience: Arc<Audience>) {
        *self.lock() = Some(audience);
    }

    /// The followers of this request's fill, if it leads one.
    pub(super) fn audience(&self) -> Option<Arc<Audience>> {
        let audience = self.lock().clone();
        audience.filter(|audience| audience.is_there())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Audience>>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.audience.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request that is to be answered, watched from now on.
    pub(super) fn watch(&self, errand: Errand) {
        // Set once: each request begins with a progress of its own.
        let _ = self.errand.set(Arc::new(errand));
    }

    /// The request that is to be answered, if it is watched.
    pub(super) fn errand(&self) -> Option<&Arc<Errand>> {
        self.errand.get()
    }

    /// The provider was called, for this request or its leader.
    pub(super) fn call_upstream(&self) {
        self.upstream_called.store(true, Ordering::Relaxed);
    }

    /// Whether the provider was called for this request, successfully or not.
    pub(super) fn upstream_called(&self) -> bool {
        self.upstream_called.load(Ordering::Relaxed)
    }

    /// Does work of the host for the guest. Neither the work nor its waits count as the guest's
    /// time.
    pub(super) async fn host<F: Future>(self: &Arc<Self>, work: F) -> F::Output {
        let _waiting = self.wait();
        let mut work = pin!(work);
        poll_fn(|cx| {
            let began = thread_time();
            let polled = work.as_mut().poll(cx);
            let used = thread_time().saturating_sub(began).as_nanos();
            let used = u64::try_from(used).unwrap_or(u64::MAX);
            self.host_ns.fetch_add(used, Ordering::Relaxed);
            polled
        })
        .await
    }

    /// The host's CPU time for the guest so far.
    pub(super) fn host_time(&self) -> Duration {
        Duration::from_nanos(self.host_ns.load(Ordering::Relaxed))
    }

    /// Whether the guest waits for the host.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// A wait of the guest that is not its fault. Ends when dropped.
pub(super) struct Waiting(Arc<Progress>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
