//! Response bodies that the host makes, and how to tell them from a guest's.

use super::state::Progress;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use wasmtime_wasi_http::{Error, WasiBody};

/// A body that needs no guest: the provider's answer, or bytes of the cache.
///
/// Whether a response that a guest returned has such a body decides whether the instance is free
/// again at once or has to be kept running for the body's sake. The types do not tell, since
/// both end as a boxed body; but only if ours is at the bottom does a question for the size get
/// here, and leaves its mark.
pub(super) struct HostBody {
    inner: WasiBody,
    progress: Arc<Progress>,
}

impl HostBody {
    pub(super) fn boxed(inner: WasiBody, progress: &Arc<Progress>) -> WasiBody {
        Self {
            inner,
            progress: Arc::clone(progress),
        }
        .boxed_unsync()
    }
}

/// Whether the body is one that the host made during this request.
pub(super) fn is_host_made(body: &WasiBody, progress: &Progress) -> bool {
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
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.progress.host_body_asked.store(true, Ordering::Relaxed);
        self.inner.size_hint()
    }
}

/// Frames that were read ahead, then the rest of the body that they came from.
pub(crate) struct Prefixed {
    read: VecDeque<Frame<Bytes>>,
    rest: WasiBody,
}

impl Prefixed {
    pub(crate) fn boxed(read: VecDeque<Frame<Bytes>>, rest: WasiBody) -> WasiBody {
        Self { read, rest }.boxed_unsync()
    }
}

impl Body for Prefixed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read: usize = self
            .read
            .iter()
            .filter_map(|frame| frame.data_ref())
            .map(Bytes::len)
            .sum();
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read as u64));
        }
        hint.set_lower(hint.lower().saturating_add(read as u64));
        hint
    }
}
