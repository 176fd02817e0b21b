//! Transparent mode: the host's outgoing HTTP answers a guest's own LLM calls from the cache,
//! without a change in the guest.
//!
//! ```text
//! guest ─► wasi:http client ─► Transparent ─► exchange::NativeFlow ─► hit ─► guest
//!                                                 └► miss: sender ─► recorded on its way ─► guest
//! ```
//!
//! The middleware component does the same in front of a handler; this is for a guest's own calls.

use crate::component::border::from_wasi;
use crate::component::state::{Sent, sent};
use crate::exchange::NativeFlow;
use crate::exchange::ask::{ResponseFuture, SendRequest};
use crate::exchange::boxed::BoxBody;
use crate::exchange::policy::HttpPolicy;
use crate::grant::ctx::ReflexCtx;
use http::Request;
use std::sync::Arc;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

/// Outgoing HTTP for guests that answers LLM calls from the cache. A clone is the same.
///
/// It is a [`SendRequest`] around another one, and `WasiHttpHooks` for the `hooks` of a host's
/// `WasiHttpCtxView`, in WASI 0.3 and 0.2 alike. Every response to a guest says in its
/// `x-reflex-status` and `cache-status` what happened.
///
/// The sender decides where guests' requests may go, and writes `Host` from the target. The target
/// of a request is part of the key; a sender that sends it elsewhere must do so for all alike.
#[derive(Clone, Debug)]
pub struct Transparent(NativeFlow);

impl Transparent {
    /// Answers from the cache as the grant allows, and has `sender` send the rest.
    pub fn new(ctx: ReflexCtx, policy: HttpPolicy, sender: Arc<dyn SendRequest>) -> Self {
        Self(NativeFlow::new(ctx, Arc::new(policy), sender))
    }
}

impl SendRequest for Transparent {
    fn send(&self, request: Request<BoxBody>) -> ResponseFuture {
        let flow = self.0.clone();
        Box::pin(async move { flow.answer(request).await })
    }
}

impl WasiHttpHooks for Transparent {
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _transmitted: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        sent(self.send(request.map(from_wasi)))
    }
}
