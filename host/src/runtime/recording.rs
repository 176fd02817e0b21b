//! An answer on its way to the client, watched by a recorder and stored when it proves good.

use super::cache_host::ReflexCtx;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use reflex_llm::{Key, Recorder, Rejected, Storable};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use wasmtime_wasi_http::{Error, WasiBody};

use crate::answer::AnswerHead;

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer is in the cache.
    Stored,
    /// The answer must not be served again. The reason is one of `reflex-llm`'s.
    Rejected(&'static str),
    /// The answer was good, but the cache did not take it.
    Failed,
}

/// Told how each recording ended, for metrics.
pub trait RecordingObserver: Send + Sync + 'static {
    /// Called once per recording, from whatever thread polled the body last.
    fn ended(&self, outcome: Outcome);
}

/// For hosts that do not count.
#[derive(Debug)]
pub struct NoObserver;

impl RecordingObserver for NoObserver {
    fn ended(&self, _: Outcome) {}
}

/// Payloads up to this length are stored on the thread that polls the body, which is then done
/// before the client has the last byte, so that its next request is a hit. Longer ones would
/// hold up other requests for too long.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// What is being recorded, for whom, and how long it will live.
pub(super) struct Recording {
    pub(super) recorder: Recorder,
    pub(super) target: Arc<Target>,
}

/// Where a recording goes.
pub(super) struct Target {
    pub(super) ctx: ReflexCtx,
    pub(super) key: Key,
    pub(super) ttl: Option<Duration>,
    pub(super) observer: Arc<dyn RecordingObserver>,
}

impl Recording {
    /// The answer is whole.
    fn finish(self) {
        let target = self.target;
        match self.recorder.finish() {
            Ok(answer) if answer.body.len() <= INLINE_BYTES_MAX => target.store(&answer),
            Ok(answer) => {
                tokio::task::spawn_blocking(move || target.store(&answer));
            }
            Err(rejected) => target.reject(rejected),
        }
    }
}

impl Target {
    fn store(&self, answer: &Storable) {
        let metadata = AnswerHead::encode(answer.status, &answer.headers);
        let stored = self.ctx.store(&self.key, &metadata, &answer.body, self.ttl);
        self.observer.ended(match stored {
            Ok(()) => Outcome::Stored,
            Err(error) => {
                tracing::debug!(%error, "answer not stored");
                Outcome::Failed
            }
        });
    }

    pub(super) fn reject(&self, reason: Rejected) {
        self.observer.ended(Outcome::Rejected(reason.detail()));
    }
}

/// How far the recording of a body has come.
enum Stage {
    /// Boxed, because the stage is replaced at every frame.
    Open(Box<Recording>),
    /// Stored at the terminal event; the provider has not closed the stream yet.
    Early(Arc<Target>),
    Ended,
}

/// The body as the client gets it: every frame at once, and a look at it for the recorder.
pub(super) struct RecordedBody {
    inner: WasiBody,
    stage: Stage,
}

impl RecordedBody {
    pub(super) fn boxed(inner: WasiBody, recording: Recording) -> WasiBody {
        Self {
            inner,
            stage: Stage::Open(Box::new(recording)),
        }
        .boxed_unsync()
    }

    fn data(&mut self, data: &[u8]) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Open(mut recording) => {
                recording.recorder.feed(data);
                // A client may hang up at the terminal event, and its next request may come
                // before the provider has closed the stream. So it is stored now.
                if recording
                    .recorder
                    .complete()
                    .is_some_and(|bytes| bytes <= INLINE_BYTES_MAX)
                {
                    let target = Arc::clone(&recording.target);
                    recording.finish();
                    Stage::Early(target)
                } else {
                    Stage::Open(recording)
                }
            }
            // More after the end: not the answer that we took it for.
            Stage::Early(target) if !data.is_empty() => {
                target.ctx.cache.remove(&target.ctx.key(&target.key));
                Stage::Ended
            }
            stage => stage,
        };
    }

    fn end(&mut self, how: impl FnOnce(Recording)) {
        if let Stage::Open(recording) = std::mem::replace(&mut self.stage, Stage::Ended) {
            how(*recording);
        }
    }
}

fn cut(recording: Recording) {
    recording.target.reject(Rejected::Cut);
}

impl Body for RecordedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.data(data);
                }
                // A body of known length is not asked for its end once its last byte is out.
                if this.inner.is_end_stream() {
                    this.end(Recording::finish);
                }
            }
            Some(Err(_)) => this.end(cut),
            None => this.end(Recording::finish),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RecordedBody {
    fn drop(&mut self) {
        // The client went away, or the guest dropped the response: what came so far is a part.
        self.end(cut);
    }
}
