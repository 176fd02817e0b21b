//! The pace of a stream: when each part of it came, and a replay that keeps to it.

pub(crate) use crate::embed::kept_head::Beat;
use crate::exchange::error::Error;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// Beats of one stream: 32 KiB, half of the bound of metadata. Parts after the last beat are
/// replayed with it.
const BEATS_MAX: usize = 4096;

/// Parts that came closer together than this are replayed as one: the difference is not visible.
const APART_MS_MIN: u32 = 2;

/// How replays go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replay {
    /// At once.
    #[default]
    Instant,
    /// Streams as they were recorded.
    Paced,
}

/// Takes the time of a stream.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    beats: Vec<Beat>,
}

impl Pace {
    pub(crate) fn begin() -> Self {
        Self {
            began: Instant::now(),
            beats: Vec::new(),
        }
    }

    /// Notes that `bytes` have come now.
    pub(crate) fn note(&mut self, bytes: usize) {
        let ms = u32::try_from(self.began.elapsed().as_millis()).unwrap_or(u32::MAX);
        self.note_at(bytes, ms);
    }

    fn note_at(&mut self, bytes: usize, ms: u32) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let is_full = self.beats.len() == BEATS_MAX;
        match self.beats.last_mut() {
            Some(last) if is_full || ms < last.ms.saturating_add(APART_MS_MIN) => {
                last.bytes = bytes;
            }
            _ => self.beats.push(Beat { bytes, ms }),
        }
    }

    pub(crate) fn beats(&self) -> Vec<Beat> {
        self.beats.clone()
    }
}

/// A stored stream on its way out, as it once came in.
pub(crate) struct PacedBody {
    rest: Bytes,
    sent: usize,
    beats: std::vec::IntoIter<Beat>,
    /// Set at the client's first read.
    began: Option<Instant>,
    next: Option<Beat>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    pub(crate) fn new(payload: Bytes, beats: Vec<Beat>) -> Self {
        Self {
            rest: payload,
            sent: 0,
            beats: beats.into_iter(),
            began: None,
            next: None,
            sleep: None,
        }
    }
}

impl Body for PacedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let began = *this.began.get_or_insert_with(Instant::now);
        while !this.rest.is_empty() {
            let Some(mark) = this.next.take().or_else(|| this.beats.next()) else {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
            };
            let due = began + Duration::from_millis(mark.ms.into());
            if due > Instant::now() {
                this.next = Some(mark);
                let sleep = this
                    .sleep
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
                if sleep.deadline() != due {
                    sleep.as_mut().reset(due);
                }
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            let end = usize::try_from(mark.bytes).unwrap_or(usize::MAX);
            let length = end.saturating_sub(this.sent).min(this.rest.len());
            if length > 0 {
                this.sent += length;
                return Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(length)))));
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[test]
    fn what_came_together_is_one_mark_and_beats_have_an_end() {
        let mut pace = Pace::begin();
        for (bytes, ms) in [(1, 0), (2, 1), (3, 5), (4, 6), (5, 7)] {
            pace.note_at(bytes, ms);
        }
        let beat = |bytes, ms| Beat { bytes, ms };
        assert_eq!(pace.beats(), [beat(2, 0), beat(4, 5), beat(5, 7)]);
        for number in 0..2 * BEATS_MAX {
            pace.note_at(number, u32::try_from(10 * number).expect("small"));
        }
        assert_eq!(pace.beats().len(), BEATS_MAX);
    }

    #[tokio::test]
    async fn parts_are_those_that_came_and_none_comes_before_its_time() {
        let beat = |bytes, ms| Beat { bytes, ms };
        let beats = vec![beat(3, 0), beat(3, 2), beat(5, 5), beat(99, 10)];
        let mut body = PacedBody::new(Bytes::from_static(b"onetwothree"), beats);
        let began = Instant::now();
        for (text, ms) in [("one", 0), ("tw", 5), ("othree", 10)] {
            let frame = body.frame().await.expect("a frame").expect("a part");
            assert_eq!(frame.into_data().expect("data"), text);
            assert!(began.elapsed() >= Duration::from_millis(ms), "{text}");
        }
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }
}
