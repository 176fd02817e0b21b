//! A service of WASI 0.2 behind the middleware: a component that exports
//! `wasi:http/incoming-handler@0.2`, as the sender of its misses.
//!
//! ```text
//! Handler ─► middleware ─► miss ─► Service02 ─► an instance of the service ─► its own calls ─► sender
//!                                      └◄ the head as soon as it is set, the body as it is written
//! ```
//!
//! No component can do that: in 0.2 only a host makes requests for a service, and sees its answers.
//! Each request has an instance of its own, as such services expect, and none is kept.

use crate::component::border::{from_wasi, from_wasi_error, to_wasi};
use crate::component::engine::{LoadError, load, one_line, thread_time};
use crate::component::limits::of_store;
use crate::component::pool::{bound, pooled_engine};
use crate::component::state::{Sent, sent};
use crate::component::watched::Watched;
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use crate::exchange::observer::{NoObserver, RecordingObserver};
use crate::grant::guest_limits::GuestLimits;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime::{Engine, Store, StoreLimits};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{
    RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// A component that exports `wasi:http/incoming-handler@0.2`, as the sender of a
/// [`Handler`](super::Handler): the middleware there answers hits, and this service the misses. A clone
/// is the same.
///
/// A service finds the usual environment of WASI 0.2: time, randomness, closed standard streams, no
/// variables and no folders. Of the network it has only HTTP: its own requests go through a sender,
/// which decides where they may go.
///
/// Of the [`GuestLimits`], `guest_time_max` bounds the CPU time until the response begins, and
/// `stream_time_max` the whole call, waiting included. The errors are:
///
/// - no instance free within `instance_wait_max`: [`Error::ConnectionLimitReached`];
/// - out of time: [`Error::HttpResponseTimeout`];
/// - a return without a response: [`Error::HttpResponseIncomplete`];
/// - a trap: [`Error::InternalError`].
///
/// A trap or the end of its time during the body breaks the body off.
#[derive(Clone)]
pub struct Service02 {
    pre: ProxyPre<State>,
    sender: Arc<dyn SendRequest>,
    observer: Arc<dyn RecordingObserver>,
    limits: GuestLimits,
    permits: Arc<Semaphore>,
}

impl fmt::Debug for Service02 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service02")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl Service02 {
    /// Compiles a component (its binary form) and checks that it fits. Its own HTTP requests go to
    /// `sender`.
    ///
    /// # Errors
    ///
    /// [`LoadError`] says in one line what is wrong with the component or the machine.
    pub fn new(
        component: &[u8],
        sender: Arc<dyn SendRequest>,
        limits: GuestLimits,
    ) -> Result<Self, LoadError> {
        let pre = load(pooled_engine(&limits), component, linker, ProxyPre::new)?;
        Ok(Self {
            pre,
            sender,
            observer: Arc::new(NoObserver),
            permits: Arc::new(Semaphore::new(limits.instances_max as usize)),
            limits,
        })
    }

    /// The same with an observer, which counts services that fail after their response has begun
    /// ([`RecordingObserver::guest_failed`]).
    #[must_use]
    pub fn observed(self, observer: Arc<dyn RecordingObserver>) -> Self {
        Self { observer, ..self }
    }

    async fn answer(self, request: Request<BoxBody>) -> Result<Response<BoxBody>, Error> {
        let acquire = Arc::clone(&self.permits).acquire_owned();
        let permit = tokio::time::timeout(self.limits.instance_wait_max, acquire).await;
        let Ok(Ok(permit)) = permit else {
            return Err(Error::ConnectionLimitReached);
        };
        let (set, mut head) = oneshot::channel();
        let fate = Arc::new(Fate::default());
        let work = Work::new(&self, request, set, Arc::clone(&fate))?;
        let observer = Arc::clone(&self.observer);
        // On a task of its own, and not where this is polled: that may be within the instance of a
        // middleware, and wasmtime runs none within another.
        let mut running = Running::new(self.run(permit, work));

        let head = tokio::select! {
            // First, so that a trap is reported as a trap. The call may end as soon as its head is
            // there.
            biased;
            ended = running.end() => {
                ended?;
                head.try_recv().map_err(|_| Error::HttpResponseIncomplete)?
            }
            head = &mut head => {
                let head = head.map_err(|_| Error::HttpResponseIncomplete)?;
                // Its body is still to be written.
                running.let_go();
                head
            }
        };
        let (broken, open) = (Arc::clone(&fate.broken), oneshot::channel().0);
        Ok(head?.map(|body| Watched::new(body, observer, broken, open).boxed_unsync()))
    }

    /// Runs an instance to its end, and then gives back the permit for it. When the future is
    /// dropped, so is the instance.
    async fn run(self, _permit: OwnedSemaphorePermit, work: Work) -> Result<(), Error> {
        let Work {
            mut store,
            request,
            out,
            fate,
        } = work;
        let call = async {
            let proxy = self.pre.instantiate_async(&mut store).await?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, out).await
        };
        let metered = Metered {
            call: pin!(call),
            left: self.limits.guest_time_max,
            fate: &fate,
        };
        let ended = tokio::time::timeout(self.limits.stream_time_max, metered).await;
        let (reason, error) = match ended {
            Ok(Some(Ok(()))) => return Ok(()),
            Ok(Some(Err(trap))) => {
                tracing::warn!(error = one_line(&trap), "service trapped");
                let told = Error::InternalError(Some("the service trapped".into()));
                ("stream-trap", told)
            }
            Ok(None) | Err(_) => {
                tracing::warn!("service stopped: it took too long");
                ("stream-timeout", Error::HttpResponseTimeout)
            }
        };
        // Before the store is dropped, because the body ends then.
        fate.broken.store(true, Ordering::Release);
        if fate.begun.load(Ordering::Relaxed) {
            self.observer.guest_failed(reason);
        }
        Err(error)
    }
}

impl SendRequest for Service02 {
    fn send(&self, request: Request<BoxBody>) -> ResponseFuture {
        Box::pin(self.clone().answer(request))
    }
}

/// An instance that runs, and ends with the request that waits for its response.
struct Running(Option<JoinHandle<Result<(), Error>>>);

impl Running {
    fn new(run: impl Future<Output = Result<(), Error>> + Send + 'static) -> Self {
        Self(Some(tokio::spawn(run)))
    }

    /// Waits for its end.
    async fn end(&mut self) -> Result<(), Error> {
        match &mut self.0 {
            // The client sees a panic of the host in there as it sees a trap.
            Some(task) => task.await.unwrap_or(Err(Error::InternalError(None))),
            None => Ok(()),
        }
    }

    /// From here on it runs on by itself, within its limits.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

type Head = Result<Response<BoxBody>, Error>;

/// The outcome of one request.
#[derive(Default)]
struct Fate {
    /// The service has set its response.
    begun: AtomicBool,
    /// The service has failed.
    broken: Arc<AtomicBool>,
}

/// One request, in a store of its own.
struct Work {
    store: Store<State>,
    request: Resource<HostIncomingRequest>,
    out: Resource<HostResponseOutparam>,
    fate: Arc<Fate>,
}

impl Work {
    fn new(
        service: &Service02,
        request: Request<BoxBody>,
        set: oneshot::Sender<Head>,
        fate: Arc<Fate>,
    ) -> Result<Self, Error> {
        let state = State::new(Arc::clone(&service.sender), &service.limits);
        let mut store = Store::new(service.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        bound(&mut store, &service.limits);
        let scheme = match request.uri().scheme_str() {
            None | Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => Scheme::Other(other.into()),
        };
        let begins = Arc::clone(&fate);
        let out = move |head: Result<Response<WasiBody>, ErrorCode>| {
            begins.begun.store(true, Ordering::Relaxed);
            // The receiver may be gone; ignore that.
            let head = head.map(|head| head.map(from_wasi));
            let _ = set.send(head.map_err(|code| from_wasi_error(code.into())));
        };
        let mut http = store.data_mut().http();
        let request = http.new_incoming_request(scheme, request.map(to_wasi));
        let request = request.map_err(|_| Error::HttpRequestUriInvalid)?;
        let out = http.new_response_outparam_from_callback(out);
        let out = out.map_err(|_| Error::InternalError(None))?;
        Ok(Self {
            store,
            request,
            out,
            fate,
        })
    }
}

/// A call with limited CPU time until the response begins; waiting does not count. The epoch makes
/// a computing service yield, which leads here.
struct Metered<'a, F> {
    call: Pin<&'a mut F>,
    left: Duration,
    fate: &'a Fate,
}

impl<F: Future> Future for Metered<'_, F> {
    /// Nothing if its time is up.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let began = thread_time();
        if let Poll::Ready(output) = self.call.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if self.fate.begun.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.left = self
            .left
            .saturating_sub(thread_time().saturating_sub(began));
        match self.left.is_zero() {
            true => Poll::Ready(None),
            false => Poll::Pending,
        }
    }
}

fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    // All of WASI 0.2: a language's standard library imports most of it, whether the service needs
    // it or not. Only HTTP reaches anything.
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// The data of a service's store.
struct State {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Outgoing,
    limits: StoreLimits,
}

impl State {
    fn new(sender: Arc<dyn SendRequest>, limits: &GuestLimits) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles_max);
        Self {
            table,
            wasi: WasiCtx::builder().build(),
            http: WasiHttpCtx::new(),
            hooks: Outgoing(sender),
            limits: of_store(limits),
        }
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: &mut self.hooks,
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

/// The service's own requests.
struct Outgoing(Arc<dyn SendRequest>);

impl WasiHttpHooks for Outgoing {
    // As for all senders: `Host` is written from the target.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _transmitted: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, wasmtime_wasi_http::Error>> + Send> {
        sent(self.0.send(request.map(from_wasi)))
    }
}
