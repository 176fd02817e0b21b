//! The state of a client's connection, for its timers and its place.
//!
//! ```text
//! (TLS) ─► connected ─► head under way ─► request ─► idle ─► head under way ─► …
//!   └─────────┴──────────────┴── may be closed for another client ──┘
//! ```

use crate::serve::config::NetLimits;
use http::Version;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// The first bytes of an HTTP/2 client.
const HTTP2_PREFACE: &[u8] = b"PRI ";

/// The state of one connection. The socket, the service and the bodies of responses report to it.
#[derive(Debug)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Requests whose responses hyper has not taken to their end. HTTP/1.x has at most one.
    requests: usize,
    /// Of the newest request.
    response: Response,
    http2: bool,
    /// Whether a request has ever come.
    served: bool,
    /// Idle since: the start, the last response's end or its last bytes. None is the moment of the next look:
    /// the connection looks whenever something has happened, so that a request costs one reading of the clock.
    idle_since: Option<Instant>,
    /// The head of the next request has begun to arrive.
    has_begun: bool,
    /// When that was; none is the moment of the next look.
    head_since: Option<Instant>,
    /// The client does not take the written bytes.
    stalled: bool,
    /// Told to close if it has no request: its place is wanted.
    evicted: bool,
    /// Of the connection's task, which is to learn of that.
    waker: Option<Waker>,
}

/// When a connection has to be closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) at: Instant,
    pub(super) why: Overdue,
    /// When this was found.
    pub(super) now: Instant,
}

/// How far an HTTP/1.x response has come, which decides what may be written beside hyper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// hyper has not written any of it.
    Awaited,
    /// hyper is about to write the first byte of a chunked response.
    Chunked,
    /// A chunked response has begun, and the next write begins a chunk.
    BetweenChunks,
    /// Of known length, or without a body.
    Plain,
}

/// Why a connection without a request has to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A part of a head came over HTTP/1.x, and the rest did not.
    Head,
    /// Nothing came.
    Silence,
    /// Another client needs its place.
    Place,
    /// It was told to close, and did not.
    Leave,
}

impl Line {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            requests: 0,
            response: Response::Plain,
            http2: false,
            served: false,
            idle_since: Some(Instant::now()),
            has_begun: false,
            head_since: None,
            stalled: false,
            evicted: false,
            waker: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain values: a panic leaves none of them half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// HTTP may begin.
    pub(super) fn opened(&self) {
        self.state().idle_since = None;
    }

    /// Tells the connection to close if it has no request.
    fn evict(&self) {
        let mut state = self.state();
        state.evicted = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Resolves when the connection is told to close for another client, once each time. Costs no more than a
    /// look while it is not.
    pub(super) fn poll_evicted(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.state();
        let waker = cx.waker();
        if !state.waker.as_ref().is_some_and(|it| it.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        match std::mem::take(&mut state.evicted) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    /// A request's head is there.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Request {
        let mut state = self.state();
        state.requests += 1;
        state.response = Response::Awaited;
        state.http2 = version == Version::HTTP_2;
        state.served = true;
        state.forget_head();
        drop(state);
        Request(Arc::clone(self))
    }

    /// The client has sent something.
    pub(super) fn heard(&self, bytes: &[u8]) {
        let mut state = self.state();
        if state.requests > 0 || state.has_begun {
            return;
        }
        state.http2 |= !state.served && bytes.starts_with(HTTP2_PREFACE);
        // Empty lines between requests are no beginning of one.
        if bytes.iter().any(|byte| !matches!(byte, b'\r' | b'\n')) {
            state.has_begun = true;
        }
    }

    /// The client has taken some of what hyper wrote.
    pub(super) fn wrote(&self) {
        let mut state = self.state();
        state.stalled = false;
        if state.requests == 0 {
            state.idle_since = None;
        } else if state.response == Response::Chunked {
            state.response = Response::BetweenChunks;
        }
    }

    /// The client has taken what was written earlier and waited below, in TLS.
    pub(super) fn took(&self) {
        let mut state = self.state();
        state.stalled = false;
        if state.requests == 0 {
            state.idle_since = None;
        }
    }

    /// The client takes nothing.
    pub(super) fn stalled(&self) {
        self.state().stalled = true;
    }

    /// The response of an HTTP/1.x request that runs, unless something waits to be taken before.
    /// `None` for HTTP/2, which notices a client that is gone by itself.
    pub(super) fn awaits(&self) -> Option<Option<Response>> {
        let state = self.state();
        let running = state.requests > 0 && !state.http2;
        running.then(|| (!state.stalled).then_some(state.response))
    }

    /// Whether a request has come over HTTP/2. Before that, hyper may not have read the version yet.
    pub(super) fn speaks_http2(&self) -> bool {
        let state = self.state();
        state.http2 && state.served
    }

    /// Since when it has nothing to do, if so.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let mut state = self.state();
        state.is_idle().then(|| state.since(Instant::now()))
    }

    /// When it has to be closed, if nothing happens before. `None` while a request runs or a client
    /// still takes a response, which have bounds of their own.
    pub(super) fn due(&self, net: &NetLimits) -> Option<Due> {
        let mut state = self.state();
        if !state.is_idle() {
            return None;
        }
        let now = Instant::now();
        let since = state.since(now);
        // HTTP/2 sends other things than requests.
        let (at, why) = match (state.has_begun && !state.http2, state.served) {
            (true, _) => (since + net.header_read_max, Overdue::Head),
            (false, false) => (since + net.header_read_max, Overdue::Silence),
            (false, true) => (since + net.keep_alive_max, Overdue::Silence),
        };
        Some(Due { at, why, now })
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.requests == 0 && !self.stalled
    }

    /// Since when it has nothing to do, or waits for the rest of a head over HTTP/1.x.
    fn since(&mut self, now: Instant) -> Instant {
        let idle_since = *self.idle_since.get_or_insert(now);
        match self.has_begun && !self.http2 {
            true => *self.head_since.get_or_insert(now),
            false => idle_since,
        }
    }

    fn forget_head(&mut self) {
        self.has_begun = false;
        self.head_since = None;
    }
}

/// A request that runs. It ends when this is dropped.
#[derive(Debug)]
pub(super) struct Request(Arc<Line>);

impl Request {
    /// The response is there, and hyper begins to write it.
    pub(super) fn answered(&self, chunked: bool) {
        self.0.state().response = match chunked {
            true => Response::Chunked,
            false => Response::Plain,
        };
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.requests -= 1;
        state.idle_since = None;
        // Whatever HTTP/2 has sent meanwhile was no beginning of a head.
        state.forget_head();
    }
}

/// The connections of one listener. When all places are taken, the connection idle for longest
/// makes room.
#[derive(Debug, Default)]
pub(super) struct Lines {
    open: Mutex<Open>,
    /// A client waits for a place, and none could be had.
    wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// At most `connections_max`.
    lines: HashMap<u64, Arc<Line>>,
}

impl Lines {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection until the returned value is dropped.
    pub(super) fn add(self: &Arc<Self>, line: &Arc<Line>) -> Listed {
        let mut open = self.open();
        let number = open.next;
        open.next += 1;
        open.lines.insert(number, Arc::clone(line));
        Listed {
            number,
            lines: Arc::clone(self),
        }
    }

    /// Closes the connection that has been idle for longest; if none is idle, the next one that
    /// ends its request.
    pub(super) fn make_room(&self) {
        // In this order: a connection that ends its request after the look sees the wish.
        self.wanted.store(true, Ordering::SeqCst);
        let open = self.open();
        let idle = open.lines.values().filter_map(|line| {
            let since = line.idle_since()?;
            Some((since, line))
        });
        if let Some((_, line)) = idle.min_by_key(|(since, _)| *since) {
            self.wanted.store(false, Ordering::SeqCst);
            line.evict();
        }
    }

    /// A place came free: no connection has to close.
    pub(super) fn has_room(&self) {
        self.wanted.store(false, Ordering::SeqCst);
    }

    /// Whether a connection that has nothing more to do is to close. Only one of them is.
    pub(super) fn wants_room(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::SeqCst)
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Listed {
    number: u64,
    lines: Arc<Lines>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.lines.open().lines.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn net() -> NetLimits {
        NetLimits {
            header_read_max: Duration::from_secs(60),
            keep_alive_max: Duration::from_secs(600),
            ..NetLimits::default()
        }
    }

    /// How long it may go on, in whole seconds, and why it is overdue then.
    fn left(line: &Line) -> Option<(u64, Overdue)> {
        let Due { at, why, now } = line.due(&net())?;
        let left = at.duration_since(now).as_secs_f64();
        Some((left.round() as u64, why))
    }

    #[tokio::test]
    async fn every_state_without_a_request_has_a_timer() {
        let line = Line::new();
        assert_eq!(left(&line), Some((60, Overdue::Silence)), "connected");
        line.heard(b"\r\n");
        assert_eq!(left(&line), Some((60, Overdue::Silence)), "an empty line");
        line.heard(b"G");
        assert_eq!(left(&line), Some((60, Overdue::Head)), "a head");
        let request = line.begin(Version::HTTP_11);
        assert_eq!(left(&line), None, "a request");
        line.heard(b"the next one, early");
        drop(request);
        assert_eq!(left(&line), Some((600, Overdue::Silence)), "idle");
        line.stalled();
        assert_eq!(left(&line), None, "the client takes nothing");
        line.wrote();
        assert_eq!(left(&line), Some((600, Overdue::Silence)), "idle again");
        line.stalled();
        line.took();
        assert_eq!(left(&line), Some((600, Overdue::Silence)), "taken");
        line.heard(b"GET");
        assert_eq!(left(&line), Some((60, Overdue::Head)), "the next head");
    }

    /// The clock is read when the connection looks, and not again: more bytes of a head, or another look, move
    /// nothing.
    #[tokio::test]
    async fn a_state_is_timed_from_the_first_look_at_it() {
        let line = Line::new();
        let at = || line.due(&net()).map(|due| due.at);
        line.heard(b"P");
        let first = at();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            line.heard(b"O");
            assert_eq!(at(), first, "a head");
        }
        drop(line.begin(Version::HTTP_11));
        let idle = at();
        assert!(idle > first);
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(at(), idle, "idle");
        assert_eq!(
            line.idle_since().map(|since| since + net().keep_alive_max),
            idle
        );
    }

    #[tokio::test]
    async fn a_connection_learns_that_its_place_is_wanted_once_and_whenever_it_asks() {
        let line = Line::new();
        line.evict();
        std::future::poll_fn(|cx| line.poll_evicted(cx)).await;
        let (waits, other) = (Arc::clone(&line), Arc::clone(&line));
        let waits = tokio::spawn(std::future::poll_fn(move |cx| waits.poll_evicted(cx)));
        tokio::task::yield_now().await;
        assert!(!waits.is_finished(), "it was told once");
        other.evict();
        waits.await.expect("no panic");
    }

    #[tokio::test]
    async fn http2_has_one_timer_until_its_first_request_and_one_between() {
        let line = Line::new();
        line.heard(b"PRI * HTTP/2.0\r\n");
        line.heard(b"\0\0\0\x04");
        assert_eq!(left(&line), Some((60, Overdue::Silence)));
        let requests = [Version::HTTP_2; 2].map(|version| line.begin(version));
        assert_eq!(left(&line), None);
        drop(requests);
        line.heard(b"a ping");
        assert_eq!(left(&line), Some((600, Overdue::Silence)));
    }

    #[tokio::test]
    async fn the_one_that_was_idle_for_longest_makes_room() {
        let lines = Arc::new(Lines::default());
        let [busy, first, second] = [(); 3].map(|()| Line::new());
        let _listed = [&busy, &first, &second].map(|line| lines.add(line));
        let request = busy.begin(Version::HTTP_11);
        let later = first.begin(Version::HTTP_11);
        tokio::time::sleep(Duration::from_millis(1)).await;
        drop(later);
        lines.make_room();
        assert!(!lines.wants_room(), "one was found");
        std::future::poll_fn(|cx| second.poll_evicted(cx)).await;

        let also = [&first, &second].map(|line| line.begin(Version::HTTP_11));
        lines.make_room();
        drop((request, also));
        assert!(lines.wants_room(), "none was idle: the next one goes");
        assert!(!lines.wants_room(), "and only one");
    }
}
