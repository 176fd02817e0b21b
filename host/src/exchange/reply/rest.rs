//! The provider's answer to the rest of a batch of embeddings: read to its end, joined with the
//! cached part, and stored text by text.

use crate::exchange::body::budget::{Budget, Reservation};
use crate::exchange::body::counted;
use crate::exchange::boxed::BoxBody;
use crate::exchange::recording::Target;
use crate::exchange::reply::batch::{Batch, Made};
use crate::exchange::watch::recorder;
use http::StatusCode;
use http::header::HeaderMap;
use http_body_util::BodyExt as _;
use reflex_llm::{Limits, Recorder, Rejected, Shape, Storable};
use std::sync::Arc;

/// Answers up to this length are taken apart on the thread that has read them. Longer ones would
/// hold up other requests for too long.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// An answer that is about to be read.
pub(crate) struct Rest {
    batch: Batch,
    asked: Vec<u32>,
    recorder: Recorder,
    /// Where it is stored, if it is to be.
    target: Option<Target>,
    /// For the bytes that the recorder holds.
    reserved: Reservation,
}

impl Rest {
    /// The answer to these elements, by number, and where to store it, if anywhere. None if its
    /// head already shows that it is no good.
    pub(crate) fn new(
        batch: &Batch,
        asked: &[u32],
        shape: Shape,
        head: (StatusCode, &HeaderMap),
        limits: Limits,
        target: Option<Target>,
        budget: &Arc<Budget>,
    ) -> Option<Self> {
        let texts = batch.texts.only(asked);
        // The shape is of the whole batch; this answer has only these parts.
        let shape = Shape {
            parts: u32::try_from(asked.len()).ok(),
            ..shape
        };
        let target = target.map(|target| Target {
            texts: Some(texts),
            ..target
        });
        Some(Self {
            batch: batch.clone(),
            asked: asked.to_vec(),
            recorder: recorder(shape, limits, head).ok()?,
            target,
            reserved: budget.reserve(),
        })
    }

    /// The answer to the whole batch. None if this answer does not certainly fit the cached part;
    /// then nothing is stored.
    pub(crate) async fn read(mut self, body: BoxBody) -> Option<Made> {
        let bytes = self.feed(body).await?;
        let Self {
            batch,
            asked,
            recorder,
            target,
            reserved,
        } = self;
        let is_short = bytes <= INLINE_BYTES_MAX;
        let complete = move || {
            let answer = recorder.finish();
            complete(&batch, &asked, (answer, reserved), target)
        };
        match is_short {
            true => complete(),
            false => tokio::task::spawn_blocking(complete).await.ok().flatten(),
        }
    }

    /// The length of the whole body.
    async fn feed(&mut self, mut body: BoxBody) -> Option<usize> {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame.ok()?.data_ref() {
                self.recorder.feed(data);
                bytes += data.len();
                // The budget had room when it was asked for. Giving up now would waste an answer
                // that has been paid for.
                self.reserved.count(data.len());
            }
            // A longer answer is not read on either.
            if let Some(rejected) = self.recorder.rejected() {
                if let Some(target) = &self.target {
                    target.reject(rejected);
                }
                return None;
            }
        }
        Some(bytes)
    }
}

/// Joins the answer, and stores its new part.
fn complete(
    batch: &Batch,
    asked: &[u32],
    (answer, reserved): (Result<Storable, Rejected>, Reservation),
    target: Option<Target>,
) -> Option<Made> {
    let mut answer = match answer {
        Ok(answer) => answer,
        Err(rejected) => {
            if let Some(target) = target {
                target.reject(rejected);
            }
            return None;
        }
    };
    // The answer that is made reads the same bytes as those that are stored. They count for as long
    // as the client reads.
    let body = counted(std::mem::take(&mut answer.body), reserved);
    let made = batch.complete(asked, body.clone())?;
    if let Some(target) = target {
        target.store(&answer, &body, Vec::new());
    }
    Some(made)
}
