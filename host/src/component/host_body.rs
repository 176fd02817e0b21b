//! Bodies that the host makes, and how to tell them from a guest's.

use crate::component::border::to_wasi_error;
use crate::component::progress::Progress;
use crate::exchange::boxed::BoxBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use wasmtime_wasi_http::{Error, WasiBody};

/// A body that needs no guest: the provider's answer, or bytes of the cache. To a guest, it is a body
/// of `wasi:http`.
///
/// If a guest's response has such a body, the instance is free again at once. Otherwise it has to
/// run on for the body. The types do not show this, because both bodies end up boxed. But a call
/// for the size reaches this type only if it is at the bottom, and sets a mark then.
pub(crate) struct HostBody {
    inner: BoxBody,
    progress: Arc<Progress>,
}

impl HostBody {
    pub(crate) fn boxed(inner: BoxBody, progress: &Arc<Progress>) -> WasiBody {
        Self {
            inner,
            progress: Arc::clone(progress),
        }
        .boxed_unsync()
    }
}

/// Whether the host made this body during this request.
pub(crate) fn is_host_made(body: &WasiBody, progress: &Progress) -> bool {
    progress.host_body_asked.store(false, Ordering::Relaxed);
    let _ = body.size_hint();
    progress.host_body_asked.load(Ordering::Relaxed)
}

impl Body for HostBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(to_wasi_error)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.progress.host_body_asked.store(true, Ordering::Relaxed);
        self.inner.size_hint()
    }
}
