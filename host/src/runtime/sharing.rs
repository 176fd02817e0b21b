//! One body of the provider's, read by all who asked the same, each at its own pace, and watched
//! by the recorder.
//!
//! Nobody is in charge: whichever reader wants more than there is draws it from the provider, and
//! everybody finds it here. So the one who asked first may leave, a slow reader holds up nobody,
//! and when the last one leaves, the provider is let go.

use super::recording::Recording;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use wasmtime_wasi_http::{Error, WasiBody};

/// A body that several may read.
pub(super) struct Shared {
    /// What those see who join: the status, and the headers that the body cannot be read without.
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Of the whole body, where it is known.
    length: Option<u64>,
    /// What is kept for those behind. A body that is recorded is never longer.
    bytes_max: usize,
    wakers: Arc<Wakers>,
    state: Mutex<State>,
}

struct State {
    /// Gone at its end.
    inner: Option<WasiBody>,
    chunks: VecDeque<Bytes>,
    /// The length of `chunks`.
    bytes: usize,
    /// How many chunks went before the first of `chunks`.
    dropped: usize,
    end: Option<End>,
    /// Until the body's end, or until it is known to be no good.
    recording: Option<Box<Recording>>,
    /// How many chunks the one who asked first has read, while it is there.
    leader_at: Option<usize>,
}

#[derive(Clone)]
enum End {
    Whole(Option<HeaderMap>),
    /// The provider has cut it, or was silent for too long.
    Cut {
        timed_out: bool,
    },
}

impl Shared {
    /// The body of a response, and the reader of the one who asked for it.
    pub(super) fn new(
        (status, headers): (StatusCode, HeaderMap),
        inner: WasiBody,
        recording: Option<Recording>,
        bytes_max: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            status,
            headers,
            length: inner.size_hint().exact(),
            bytes_max,
            wakers: Arc::default(),
            state: Mutex::new(State {
                inner: Some(inner),
                chunks: VecDeque::new(),
                bytes: 0,
                dropped: 0,
                end: None,
                recording: recording.map(Box::new),
                leader_at: Some(0),
            }),
        })
    }

    /// The reader of the one who asked first.
    pub(super) fn leader(self: &Arc<Self>) -> WasiBody {
        self.reader(true)
    }

    /// A reader of those who joined.
    pub(super) fn follower(self: &Arc<Self>) -> WasiBody {
        self.reader(false)
    }

    /// Whether others may join. What is recorded is open to them until its end, or until it proves
    /// no good; who holds this then can read all of it.
    pub(super) fn is_open(&self) -> bool {
        self.lock().recording.is_some()
    }

    fn reader(self: &Arc<Self>, leads: bool) -> WasiBody {
        Reader {
            shared: Arc::clone(self),
            leads,
            next: 0,
            bytes: 0,
            has_ended: false,
        }
        .boxed_unsync()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A body that panicked while it was polled leaves nothing half-changed here.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws from the provider until there is a chunk `next`, or an end.
    fn draw(&self, state: &mut State, next: usize, cx: &Context<'_>) -> Poll<()> {
        while next >= state.dropped + state.chunks.len() && state.end.is_none() {
            if !state.make_room(next, self.bytes_max) {
                // The one who asked first is far behind. It is not cut short for others.
                self.wakers.add(cx.waker());
                return Poll::Pending;
            }
            // Whoever draws, all who wait are woken. This one before it is known whether it will
            // wait: the provider's next frame may come at any moment.
            self.wakers.add(cx.waker());
            let waker = Waker::from(Arc::clone(&self.wakers));
            let Some(inner) = &mut state.inner else {
                state.end = Some(End::Cut { timed_out: false });
                break;
            };
            let Poll::Ready(frame) = Pin::new(inner).poll_frame(&mut Context::from_waker(&waker))
            else {
                return Poll::Pending;
            };
            state.take(frame);
            self.wakers.wake_others(cx.waker());
        }
        Poll::Ready(())
    }
}

impl State {
    /// Makes room for another chunk. Those who are further behind than what is kept are cut off;
    /// the one who asked first never is, and then there may be no room.
    fn make_room(&mut self, next: usize, bytes_max: usize) -> bool {
        let needed = self.leader_at.map_or(next, |leader| leader.min(next));
        while self.bytes > bytes_max && self.dropped < needed {
            self.drop_first();
        }
        self.bytes <= bytes_max || self.chunks.is_empty()
    }

    fn drop_first(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.len();
            self.dropped += 1;
        }
    }

    fn take(&mut self, frame: Option<Result<Frame<Bytes>, Error>>) {
        match frame.map(|frame| frame.map(Frame::into_data)) {
            Some(Ok(Ok(data))) => {
                if let Some(recording) = &mut self.recording
                    && !recording.feed(&data)
                {
                    self.record(Recording::finish);
                }
                self.bytes += data.len();
                self.chunks.push_back(data);
                // A body of known length is not asked for its end once its last byte is out.
                if self.inner.as_ref().is_some_and(Body::is_end_stream) {
                    self.end(End::Whole(None), Recording::finish);
                }
            }
            Some(Ok(Err(frame))) => {
                let trailers = frame.into_trailers().ok();
                self.end(End::Whole(trailers), Recording::finish);
            }
            Some(Err(error)) => {
                let timed_out = matches!(error, Error::ConnectionReadTimeout);
                self.end(End::Cut { timed_out }, Recording::cut);
            }
            None => self.end(End::Whole(None), Recording::finish),
        }
    }

    fn end(&mut self, end: End, how: impl FnOnce(Recording)) {
        self.end = Some(end);
        self.inner = None;
        self.record(how);
    }

    fn record(&mut self, how: impl FnOnce(Recording)) {
        if let Some(recording) = self.recording.take() {
            how(*recording);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // All who read have gone away: what came so far is a part.
        state.record(Recording::cut);
    }
}

impl fmt::Debug for Shared {
    /// Without contents: an answer is nothing for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// One who reads.
struct Reader {
    shared: Arc<Shared>,
    leads: bool,
    /// How many chunks it has read.
    next: usize,
    /// Their length.
    bytes: u64,
    has_ended: bool,
}

impl Body for Reader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if this.has_ended {
            return Poll::Ready(None);
        }
        let mut state = this.shared.lock();
        if this.shared.draw(&mut state, this.next, cx).is_pending() {
            return Poll::Pending;
        }
        let Some(at) = this.next.checked_sub(state.dropped) else {
            // It was too slow for a body too long to be kept.
            this.has_ended = true;
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        if let Some(chunk) = state.chunks.get(at).cloned() {
            this.next += 1;
            this.bytes += chunk.len() as u64;
            if this.leads {
                state.leader_at = Some(this.next);
                if state.bytes > this.shared.bytes_max {
                    this.shared.wakers.wake_all();
                }
            }
            // Nobody else reads, and nobody can join: nothing need be kept.
            if state.recording.is_none() && Arc::strong_count(&this.shared) == 1 {
                while state.dropped < this.next {
                    state.drop_first();
                }
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        this.has_ended = true;
        Poll::Ready(match state.end.clone() {
            Some(End::Whole(trailers)) => trailers.map(|it| Ok(Frame::trailers(it))),
            Some(End::Cut { timed_out: true }) => Some(Err(Error::ConnectionReadTimeout)),
            Some(End::Cut { timed_out: false }) | None => Some(Err(Error::ConnectionTerminated)),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        let is_last = self.next == state.dropped + state.chunks.len();
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
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.bytes)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.leads {
            self.shared.lock().leader_at = None;
        }
        // It may have been the one that the provider's next frame would have woken.
        self.shared.wakers.wake_all();
    }
}

/// Everybody who waits for the next frame.
#[derive(Default)]
struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    fn add(&self, waker: &Waker) {
        let mut wakers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    /// The one who draws goes on by itself.
    fn wake_others(&self, own: &Waker) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let others = wakers.into_iter().filter(|waker| !waker.will_wake(own));
        others.for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let wakers = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::body::Prefixed;
    use super::*;
    use http_body_util::Empty;

    /// A body of these parts, of which so many bytes are kept for those behind.
    fn shared(parts: &[&'static str], bytes_max: usize) -> Arc<Shared> {
        let frame = |part: &&'static str| Frame::data(Bytes::from_static(part.as_bytes()));
        let end = Empty::new().map_err(Error::from).boxed_unsync();
        let body = Prefixed::boxed(parts.iter().map(frame).collect(), end);
        let head = (StatusCode::OK, HeaderMap::new());
        Shared::new(head, body, None, bytes_max)
    }

    /// What the reader gets now: `-` if it has to wait, `!` if it is cut, nothing at the end.
    fn read(body: &mut WasiBody) -> String {
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Pending => "-".into(),
            Poll::Ready(None) => String::new(),
            Poll::Ready(Some(Err(_))) => "!".into(),
            Poll::Ready(Some(Ok(frame))) => {
                let data = frame.into_data().expect("data");
                String::from_utf8(data.to_vec()).expect("text")
            }
        }
    }

    #[test]
    fn each_reads_everything_whoever_draws() {
        let shared = shared(&["one", "two", "six"], 100);
        let (mut leader, mut follower) = (shared.leader(), shared.follower());
        assert_eq!(leader.size_hint().exact(), Some(9));
        assert_eq!([read(&mut leader), read(&mut leader)], ["one", "two"]);
        assert_eq!(leader.size_hint().exact(), Some(3));
        for part in ["one", "two", "six", ""] {
            assert_eq!(read(&mut follower), part);
        }
        assert!(!leader.is_end_stream());
        assert_eq!(read(&mut leader), "six");
        assert!(leader.is_end_stream());
        assert_eq!(read(&mut leader), "");
        let mut late = shared.follower();
        assert_eq!(read(&mut late), "one");
    }

    #[test]
    fn who_joined_and_is_too_slow_for_a_long_body_is_cut() {
        let shared = shared(&["aaaa", "bbbb", "cccc", "dddd"], 4);
        let (mut leader, mut follower) = (shared.leader(), shared.follower());
        for part in ["aaaa", "bbbb", "cccc", "dddd", ""] {
            assert_eq!(read(&mut leader), part);
        }
        assert_eq!([read(&mut follower), read(&mut follower)], ["!", ""]);
    }

    #[test]
    fn the_one_who_asked_first_is_never_cut() {
        let shared = shared(&["aaaa", "bbbb", "cccc", "dddd"], 4);
        let (mut leader, mut follower) = (shared.leader(), shared.follower());
        for part in ["aaaa", "bbbb", "-", "-"] {
            assert_eq!(read(&mut follower), part);
        }
        assert_eq!(read(&mut leader), "aaaa");
        assert_eq!([read(&mut follower), read(&mut follower)], ["cccc", "-"]);
        drop(leader);
        assert_eq!([read(&mut follower), read(&mut follower)], ["dddd", ""]);
    }

    #[test]
    fn what_nobody_else_can_read_is_not_kept() {
        let shared = shared(&["aaaa", "bbbb"], 100);
        let kept = Arc::downgrade(&shared);
        let mut leader = shared.leader();
        drop(shared);
        assert_eq!(read(&mut leader), "aaaa");
        let bytes = kept.upgrade().expect("it is read").lock().bytes;
        assert_eq!(bytes, 0);
        drop(leader);
        assert!(kept.upgrade().is_none());
    }
}
