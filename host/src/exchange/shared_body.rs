//! One body of the provider, read by the leader and its followers, each at its own pace, and judged
//! for the cache on its way.
//!
//! Every reader polls for itself: a reader that has read all bytes here takes the next frame from
//! the provider, and all readers find it here. The leader may leave, or stop reading, and the
//! others go on. When the last reader leaves, the provider's response is dropped.
//!
//! How much is kept:
//!
//! 1. While the answer is recorded, all of it is kept, at most `entry_bytes_max`, in one buffer
//!    that readers and the store share. Requests may join, and read from the first byte.
//! 2. Recording ends if the answer proves longer, or finds no more room in the [`Budget`]. Then no
//!    request may join: one that has sent nothing to its client asks the provider itself. From then
//!    on, only bytes that a reader still has to read are kept; for a single reader, none.
//! 3. For a reader that is behind, these bytes may grow up to the budget (`inflight_bytes_max`).
//!    Until then, no reader waits for another, and none is cut.
//! 4. With the budget used up, the provider is read at the pace of the slowest reader. A reader that
//!    takes nothing for [`BEHIND_MAX`] while others wait for it is cut, also if it is the leader: a
//!    client that does not read must not take the answer from clients that do.

mod wakers;
pub(crate) mod window;

use crate::exchange::body::budget::Budget;
use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use wakers::Wakers;
use window::{Whole, Window};

/// What a part of the body was found to be.
pub(crate) enum Fed {
    /// Good so far.
    Good,
    /// Of no use, nor is what follows.
    Rejected,
    /// More than the budget has room for.
    NoMemory,
}

/// Judges the bytes of a body as they come, and keeps them if they prove good.
pub(crate) trait Record: Send {
    /// Judges the next part.
    fn feed(&mut self, data: &[u8]) -> Fed;

    /// Keeps what has come, which is `body`, if it is an answer already.
    fn store_complete(&mut self, body: &[u8]);

    /// The body has come to its proper end, and this is all of it.
    fn finish(self: Box<Self>, body: Arc<Whole>);

    /// What has come is no good. Whether it is only too long.
    fn reject(self: Box<Self>) -> bool;

    /// The budget has no memory for the body.
    fn abandon(self: Box<Self>);

    /// The body has ended before its time.
    fn cut(self: Box<Self>);
}

/// How long readers wait for a reader that takes nothing, when memory to go on without it is
/// missing. Most clients wait longer for a byte.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// How often readers that wait for memory look again: other requests give memory back.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Room required before a frame is drawn, because its length is not known yet.
const FRAME_BYTES: usize = 64 << 10;

/// A body that several may read.
pub(crate) struct Shared {
    /// For followers: the status, and the headers that the body cannot be read without.
    status: StatusCode,
    headers: HeaderMap,
    /// Of the whole body, where it is known.
    length: Option<u64>,
    /// Past this length no further request may join.
    bytes_max: usize,
    behind_max: Duration,
    wakers: Arc<Wakers>,
    state: Mutex<State>,
}

/// The response for a request that joins.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: BoxBody,
}

struct State {
    /// Gone at its end.
    inner: Option<BoxBody>,
    window: Window,
    /// How many readers have read up to each place of the body, without readers that were cut.
    places: BTreeMap<u64, usize>,
    /// The number of readers, including those that were cut.
    readers: usize,
    end: Option<End>,
    /// Until the body's end, or until it is known to be no good.
    recording: Option<Box<dyn Record>>,
    /// The body is longer than the kept part of an answer: no request may join.
    is_long: bool,
    /// Set while readers wait for the slowest one.
    held_up: Option<HeldUp>,
}

#[derive(Clone)]
enum End {
    Whole(Option<HeaderMap>),
    /// The provider has cut it, or was silent for too long.
    Cut {
        timed_out: bool,
    },
}

/// A wait for the slowest reader.
struct HeldUp {
    /// The place where that is.
    place: u64,
    /// When it is cut, if it has not read on.
    until: Instant,
    look_again: Pin<Box<Sleep>>,
}

impl Shared {
    /// The body of a response. Its kept bytes count in `budget`. Past `bytes_max`, which a recorded
    /// body never reaches, no request may join.
    pub(crate) fn new(
        (status, headers): (StatusCode, HeaderMap),
        inner: BoxBody,
        recording: Option<Box<dyn Record>>,
        bytes_max: usize,
        budget: &Arc<Budget>,
    ) -> Arc<Self> {
        Arc::new(Self {
            status,
            headers,
            length: inner.size_hint().exact(),
            bytes_max,
            behind_max: BEHIND_MAX,
            wakers: Arc::default(),
            state: Mutex::new(State {
                inner: Some(inner),
                window: Window::new(budget),
                places: BTreeMap::new(),
                readers: 0,
                end: None,
                recording,
                is_long: false,
                held_up: None,
            }),
        })
    }

    /// The reader of the request that asked for it, before any other.
    pub(crate) fn leader(self: &Arc<Self>) -> BoxBody {
        let mut state = self.lock();
        self.reader(&mut state, true)
    }

    /// A reader for a request that joins. None if the first byte is gone, or the body is too long
    /// to keep.
    pub(crate) fn follower(self: &Arc<Self>) -> Option<Follower> {
        let mut state = self.lock();
        if state.is_long || state.window.start() > 0 {
            return None;
        }
        Some(Follower {
            status: self.status,
            headers: self.headers.clone(),
            body: self.reader(&mut state, false),
        })
    }

    /// Whether requests may join: while it is recorded, until its end or until it proves no good.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().recording.is_some()
    }

    fn reader(self: &Arc<Self>, state: &mut State, leads: bool) -> BoxBody {
        state.readers += 1;
        *state.places.entry(0).or_default() += 1;
        Reader {
            shared: Arc::clone(self),
            leads,
            waker: self.wakers.enter(),
            at: 0,
            has_ended: false,
        }
        .boxed_unsync()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A body that panicked while it was polled leaves nothing half-changed here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether no other reader comes: none may join, or only readers know of this.
    fn is_closed(self: &Arc<Self>, state: &State) -> bool {
        state.is_long || Arc::strong_count(self) <= state.readers
    }

    /// Whether a single reader is left that can read on, and no other comes.
    fn is_for_one(self: &Arc<Self>, state: &State) -> bool {
        let mut places = state.places.values();
        let is_one = places.next() == Some(&1) && places.next().is_none();
        is_one && self.is_closed(state)
    }

    /// Drops bytes that no reader needs any more.
    fn trim(self: &Arc<Self>, state: &mut State) {
        if state.recording.is_none() && self.is_closed(state) {
            state.window.drop_to(state.slowest());
        }
    }

    /// Draws from the provider until more bytes or the end come, for a reader that has read all
    /// bytes. Returns the bytes drawn.
    fn draw(
        self: &Arc<Self>,
        state: &mut State,
        waker: usize,
        cx: &Context<'_>,
    ) -> Poll<Option<Bytes>> {
        while state.end.is_none() {
            if !self.has_room(state) {
                // The timer wakes all waiting readers.
                self.wakers.wait(waker, cx.waker());
                if self.wait_for_slowest(state).is_pending() {
                    return Poll::Pending;
                }
                continue;
            }
            state.held_up = None;
            // A frame wakes all waiting readers, whichever reader drew it. Register before it is
            // known whether this reader waits: the next frame may come at any moment.
            self.wakers.wait(waker, cx.waker());
            let all = Waker::from(Arc::clone(&self.wakers));
            let Some(inner) = &mut state.inner else {
                state.end = Some(End::Cut { timed_out: false });
                break;
            };
            let Poll::Ready(frame) = Pin::new(inner).poll_frame(&mut Context::from_waker(&all))
            else {
                return Poll::Pending;
            };
            let data = self.take(state, frame);
            self.wakers.wake_others(waker);
            if data.is_some() {
                return Poll::Ready(data);
            }
        }
        Poll::Ready(None)
    }

    /// Whether the budget has memory for another frame.
    fn has_room(self: &Arc<Self>, state: &mut State) -> bool {
        // A recorded answer is bounded, and given up without room for it.
        if state.recording.is_some() {
            return true;
        }
        self.trim(state);
        // With no reader behind, one frame may come; the next one when all have read it.
        state.slowest() == state.window.end() || state.window.has_room(FRAME_BYTES)
    }

    /// Ready when room may have come. Cuts the slowest reader if the others waited long enough.
    fn wait_for_slowest(&self, state: &mut State) -> Poll<()> {
        let place = state.slowest();
        let now = Instant::now();
        let held_up = state.held_up.get_or_insert_with(|| HeldUp {
            place,
            until: now + self.behind_max,
            look_again: Box::pin(tokio::time::sleep(LOOK_AGAIN)),
        });
        if held_up.place != place {
            held_up.place = place;
            held_up.until = now + self.behind_max;
        }
        let all = Waker::from(Arc::clone(&self.wakers));
        let mut cx = Context::from_waker(&all);
        if held_up.look_again.as_mut().poll(&mut cx).is_pending() {
            return Poll::Pending;
        }
        held_up.look_again.as_mut().reset(now + LOOK_AGAIN);
        if now >= held_up.until {
            state.places.pop_first();
            state.is_long = true;
            tracing::debug!("a client that does not read was cut: others read the same answer");
            self.wakers.wake_all();
        }
        Poll::Ready(())
    }

    /// Takes in a frame of the provider; returns its data, if it has any.
    fn take(
        self: &Arc<Self>,
        state: &mut State,
        frame: Option<Result<Frame<Bytes>, Error>>,
    ) -> Option<Bytes> {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                if !data.is_empty() {
                    self.keep(state, &data);
                }
                // A body of known length is not asked for its end once its last byte is out.
                if state.inner.as_ref().is_some_and(Body::is_end_stream) {
                    state.end(End::Whole(None));
                }
                return Some(data).filter(|data| !data.is_empty());
            }
            Some(Ok(Err(frame))) => state.end(End::Whole(frame.into_trailers().ok())),
            Some(Err(error)) => {
                let timed_out = matches!(error, Error::ConnectionReadTimeout);
                state.end(End::Cut { timed_out });
            }
            None => state.end(End::Whole(None)),
        }
        None
    }

    /// Keeps the bytes drawn for the store and for the other readers.
    fn keep(self: &Arc<Self>, state: &mut State, data: &[u8]) {
        if let Some(mut recording) = state.recording.take() {
            match recording.feed(data) {
                Fed::Good if state.window.push(data) => {
                    recording.store_complete(state.window.bytes());
                    state.recording = Some(recording);
                    return;
                }
                Fed::Good | Fed::NoMemory => {
                    recording.abandon();
                    state.is_long = true;
                }
                Fed::Rejected => state.is_long |= recording.reject(),
            }
        }
        if self.is_for_one(state) {
            state.window.pass(data.len());
            return;
        }
        self.trim(state);
        if !state.window.push(data) {
            state.is_long = true;
            state.window.push_beyond(data);
        }
        state.is_long |= state.window.end() > self.bytes_max as u64;
    }
}

impl State {
    /// The place of the slowest reader; the end without readers.
    fn slowest(&self) -> u64 {
        let first = self.places.keys().next();
        first.copied().unwrap_or(self.window.end())
    }

    /// A reader has read up to another place.
    fn advance(&mut self, from: u64, to: u64) {
        *self.places.entry(to).or_default() += 1;
        self.leave(from);
    }

    /// A reader leaves a place, unless it was cut there.
    fn leave(&mut self, place: u64) {
        if let Some(count) = self.places.get_mut(&place) {
            *count -= 1;
            if *count == 0 {
                self.places.remove(&place);
            }
        }
    }

    fn end(&mut self, end: End) {
        self.inner = None;
        if let Some(recording) = self.recording.take() {
            let whole = match &end {
                // No byte of a recorded answer is ever dropped.
                End::Whole(_) => self.window.whole(),
                End::Cut { .. } => None,
            };
            match whole {
                Some(body) => recording.finish(body),
                None => recording.cut(),
            }
        }
        self.end = Some(end);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // All readers are gone: the bytes so far are only a part.
        if let Some(recording) = state.recording.take() {
            recording.cut();
        }
    }
}

impl fmt::Debug for Shared {
    /// Without contents: answers do not belong in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

struct Reader {
    shared: Arc<Shared>,
    leads: bool,
    /// Its place among the wakers.
    waker: usize,
    /// How much of the body it has read.
    at: u64,
    has_ended: bool,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Self {
            shared,
            waker,
            at,
            has_ended,
            ..
        } = &mut *self;
        if *has_ended {
            return Poll::Ready(None);
        }
        let mut state = shared.lock();
        if !state.places.contains_key(at) {
            // It was cut, because it read nothing while others waited for it.
            *has_ended = true;
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        }
        let data = match state.window.piece(*at) {
            Some(piece) => Some(piece),
            None => match shared.draw(&mut state, *waker, cx) {
                Poll::Ready(drawn) => drawn,
                Poll::Pending => return Poll::Pending,
            },
        };
        if let Some(data) = data {
            let from = *at;
            *at += data.len() as u64;
            state.advance(from, *at);
            shared.trim(&mut state);
            if state.held_up.is_some() {
                shared.wakers.wake_all();
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        *has_ended = true;
        Poll::Ready(match state.end.clone() {
            Some(End::Whole(trailers)) => trailers.map(|it| Ok(Frame::trailers(it))),
            Some(End::Cut { timed_out: true }) => Some(Err(Error::ConnectionReadTimeout)),
            Some(End::Cut { timed_out: false }) | None => Some(Err(Error::ConnectionTerminated)),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        let is_last = self.at == state.window.end();
        self.has_ended || is_last && matches!(state.end, Some(End::Whole(None)))
    }

    fn size_hint(&self) -> SizeHint {
        if self.leads
            && let Some(inner) = &self.shared.lock().inner
        {
            // Asked for the mark that a body of the host's own leaves: see `HostBody`.
            let _ = inner.size_hint();
        }
        match self.shared.length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.at)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.readers -= 1;
        state.leave(self.at);
        self.shared.wakers.leave(self.waker);
        // The others may have waited for this reader.
        if state.held_up.is_some() {
            self.shared.wakers.wake_all();
        }
    }
}

#[cfg(test)]
mod tests;
