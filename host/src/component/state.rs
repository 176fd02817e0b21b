//! The host's state behind a guest instance, and the progress of its current request.

use crate::component::border::{from_wasi, to_wasi, to_wasi_error};
use crate::component::host_body::HostBody;
use crate::component::limits::{Measured, of_store};
use crate::component::progress::Progress;
use crate::component::wit::cache::ReflexCtxView;
use crate::component::wit::http::{ReflexHttpCtxView, ReflexHttpView};
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::policy::HttpPolicy;
use crate::grant::ctx::ReflexCtx;
use crate::grant::guest_limits::GuestLimits;
use http::HeaderName;
use std::sync::Arc;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

/// The data of a guest's store. It knows no file, no environment and no network but the provider.
pub(crate) struct GuestState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    reflex: ReflexCtx,
    policy: Arc<HttpPolicy>,
    pub(crate) limits: Measured,
}

impl GuestState {
    pub(crate) fn new(
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
            limits: Measured::new(of_store(limits)),
        }
    }

    /// A new request begins: nothing of the last one's progress counts.
    pub(crate) fn begin(&mut self) -> Arc<Progress> {
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
    pub(crate) fn reflex(&mut self) -> ReflexCtxView<'_> {
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
        let request = request.map(from_wasi);
        let response = match progress.errand() {
            Some(errand) => errand.send(request, |request| self.sender.send(request)),
            None => self.sender.send(request),
        };
        Box::new(async move {
            let waiting = progress.wait();
            progress.call_upstream();
            let response = response.await.map_err(to_wasi_error)?;
            drop(waiting);
            Ok(with_transmission(
                response.map(|body| HostBody::boxed(body, &progress)),
            ))
        })
    }
}

type Transmission = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The result of wasmtime-wasi-http's hooks: a response, and the transmission of its request.
pub(crate) type Sent = (http::Response<WasiBody>, Transmission);

/// A response under way, as those hooks return it.
pub(crate) fn sent(
    response: ResponseFuture,
) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
    Box::new(async move {
        let response = response.await.map_err(to_wasi_error)?;
        Ok(with_transmission(response.map(to_wasi)))
    })
}

/// Once the response is there, the request is sent.
fn with_transmission(response: http::Response<WasiBody>) -> Sent {
    (response, Box::new(std::future::ready(Ok(()))))
}
