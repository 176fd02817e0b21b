//! A body that is lent out: what is read of it is kept, so that it can be given again from its first
//! byte.
//!
//! A client's request is lent to a guest, and to a connection that the provider may be closing; the
//! provider's answer is lent to a guest. Whatever goes wrong with the reader, the body is still
//! there. What is kept has a bound for each body, and counts in the [`Budget`] of all requests.

use crate::exchange::body::budget::Budget;
use crate::exchange::body::{Gathered, Prefixed};
use crate::exchange::boxed::BoxBody;
#[cfg(feature = "middleware")]
use crate::exchange::boxed::full;
use crate::exchange::error::Error;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

/// The owner's side of a body that is lent out.
#[derive(Clone)]
pub(crate) struct Lender(Arc<Mutex<Shared>>);

struct Shared {
    /// Gone once it has been taken back.
    body: Option<BoxBody>,
    /// What was read, if all of it is kept.
    kept: Result<Kept, NotHeld>,
    /// Whether the reader gets the kept bytes once the body is too long to keep.
    spills: bool,
    /// That, until it is taken.
    spilled: Option<Gathered>,
    /// All that was read before, in one piece, until it is seen again.
    prefix: Bytes,
    bytes_max: u64,
    /// Bytes that were read.
    given: u64,
    /// The last of them, while more may follow. Held here, no other bytes have its address.
    last: Bytes,
    /// Whether that is known to be all.
    ended: bool,
    /// Whether its bytes count in the budget where they came from.
    is_counted: bool,
}

struct Kept {
    data: Gathered,
    trailers: Option<HeaderMap>,
}

/// Why a body cannot be given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotHeld {
    /// More of it was read than is kept of one body.
    TooLong,
    /// All requests together hold as much as they may.
    NoMemory,
    /// It broke off.
    Broken,
    /// It was released, or taken back before.
    Gone,
}

/// What became of a frame that the reader has got.
pub(crate) enum Given {
    /// It is the last that was lent, and kept with all before it.
    Kept,
    /// It is the last that was lent, and with it there was too much to keep: what was kept before.
    Spilled(NotHeld, Gathered),
    /// It is another's.
    Other,
}

/// Lends a body out. At most `bytes_max` of it are kept, and no more than the budget has room for.
pub(crate) fn lend(body: BoxBody, bytes_max: u64, budget: &Arc<Budget>) -> (Lender, BoxBody) {
    let shared = Shared {
        ended: body.is_end_stream(),
        body: Some(body),
        kept: Ok(Kept {
            data: Gathered::new(budget),
            trailers: None,
        }),
        spills: false,
        spilled: None,
        prefix: Bytes::new(),
        bytes_max,
        given: 0,
        last: Bytes::new(),
        is_counted: false,
    };
    let lender = Lender(Arc::new(Mutex::new(shared)));
    let lent = Lent(lender.clone()).boxed_unsync();
    (lender, lent)
}

/// Lends out a body that is in memory, and counts in a budget already.
#[cfg(feature = "middleware")]
pub(crate) fn lend_whole(whole: &Bytes, budget: &Arc<Budget>) -> (Lender, BoxBody) {
    let (lender, lent) = lend(full(whole.clone()), u64::MAX, budget);
    lender.lock().is_counted = true;
    (lender, lent)
}

impl Lender {
    /// The body from its first byte. The reader gets an error from now on.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] says why it cannot be given again.
    pub(crate) fn take_back(&self) -> Result<BoxBody, NotHeld> {
        let mut shared = self.lock();
        let kept = std::mem::replace(&mut shared.kept, Err(NotHeld::Gone))?;
        let rest = shared.body.take().ok_or(NotHeld::Gone)?;
        drop(shared);
        Ok(match kept.data.len() == 0 && kept.trailers.is_none() {
            true => rest,
            false => Prefixed::ended(kept.data.into_bytes(), kept.trailers, rest),
        })
    }

    /// What is read from now on is not kept, nor what was.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for guests"))]
    pub(crate) fn let_go(&self) {
        self.lock().give_up(NotHeld::Gone);
    }

    /// What was read, unless that is more than `bytes_max` or was too much to keep.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for guests"))]
    pub(crate) fn seen(&self, bytes_max: usize) -> Option<Vec<u8>> {
        let shared = self.lock();
        let data = shared.kept.as_ref().ok()?.data.bytes();
        (data.len() <= bytes_max).then(|| data.to_vec())
    }

    /// What was read so far, shared with what is kept.
    pub(crate) fn share(&self) -> Bytes {
        let mut shared = self.lock();
        let kept = shared.kept.as_mut();
        kept.map_or_else(|_| Bytes::new(), |kept| kept.data.share())
    }

    /// Whether the reader gets the kept bytes once the body is too long to keep.
    pub(crate) fn spills(&self, spills: bool) {
        self.lock().spills = spills;
    }

    /// What became of a frame that the reader has got, after `at` other bytes.
    pub(crate) fn gave(&self, at: u64, data: &Bytes) -> Given {
        let mut shared = self.lock();
        if !shared.has_just_given(at, data) {
            return Given::Other;
        }
        match shared.kept {
            Ok(_) => Given::Kept,
            Err(why) => match shared.spilled.take() {
                Some(spilled) => Given::Spilled(why, spilled),
                None => Given::Other,
            },
        }
    }

    /// Whether these bytes are those of the body that begin at this one: by their address, if they
    /// are the very bytes that were lent or are kept, or else by a comparison with those kept.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for guests"))]
    pub(crate) fn has(&self, at: u64, data: &Bytes) -> bool {
        let mut shared = self.lock();
        if data.is_empty() || shared.has_just_given(at, data) {
            return true;
        }
        if at == 0 && is_same(&shared.prefix, data) {
            shared.prefix = Bytes::new();
            return true;
        }
        let Ok(kept) = &shared.kept else { return false };
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let same = kept
            .data
            .bytes()
            .get(at..)
            .and_then(|it| it.get(..data.len()));
        same.is_some_and(|same| same.as_ptr() == data.as_ptr() || same == data)
    }

    /// What was too much to keep goes on in one piece, by which it is known once more.
    pub(crate) fn passes(&self, prefix: Bytes) {
        self.lock().prefix = prefix;
    }

    /// How many bytes were read, and whether that is known to be all.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "for guests"))]
    pub(crate) fn given(&self) -> (u64, bool) {
        let shared = self.lock();
        (shared.given, shared.ended)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // A body that panicked while it was polled leaves nothing half-changed here.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lender").finish_non_exhaustive()
    }
}

impl Shared {
    fn has_just_given(&self, at: u64, data: &Bytes) -> bool {
        is_same(&self.last, data) && at + data.len() as u64 == self.given
    }

    fn give_up(&mut self, why: NotHeld) {
        self.spilled = None;
        if let Ok(kept) = std::mem::replace(&mut self.kept, Err(why)) {
            self.spilled = Some(kept.data).filter(|_| self.spills && why != NotHeld::Gone);
        }
    }

    fn note(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else {
            if let Ok(kept) = &mut self.kept {
                kept.trailers = frame.trailers_ref().cloned();
            }
            return;
        };
        self.given += data.len() as u64;
        self.last = data.clone();
        self.spilled = None;
        let Ok(kept) = &mut self.kept else { return };
        if self.is_counted {
            kept.data.adopt(data);
        } else if self.given > self.bytes_max {
            self.give_up(NotHeld::TooLong);
        } else if !kept.data.push(data) {
            self.give_up(NotHeld::NoMemory);
        }
    }
}

/// Whether both are the same place in memory.
fn is_same(one: &Bytes, other: &Bytes) -> bool {
    one.as_ptr() == other.as_ptr() && one.len() == other.len()
}

/// The reader's side of the body.
struct Lent(Lender);

impl Body for Lent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let mut shared = self.0.lock();
        let Some(body) = &mut shared.body else {
            return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
        };
        let frame = ready!(Pin::new(&mut *body).poll_frame(cx));
        let ended = body.is_end_stream();
        match &frame {
            Some(Ok(frame)) => {
                shared.note(frame);
                shared.ended = ended;
            }
            // Its beginning must not pass for the whole.
            Some(Err(_)) => shared.give_up(NotHeld::Broken),
            None => {
                shared.ended = true;
                shared.last = Bytes::new();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.lock();
        shared.body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.0.lock();
        let body = shared.body.as_ref();
        body.map_or_else(SizeHint::default, Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;

    type Frames = Vec<Result<Frame<Bytes>, Error>>;

    fn data(parts: &[&'static str]) -> Frames {
        let frame = |part: &&'static str| Ok(Frame::data(Bytes::from_static(part.as_bytes())));
        parts.iter().map(frame).collect()
    }

    fn body(frames: Frames) -> BoxBody {
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    fn roomy() -> Arc<Budget> {
        Budget::new(1000)
    }

    async fn next(body: &mut BoxBody) -> Bytes {
        let frame = body.frame().await.expect("a frame").expect("no error");
        frame.into_data().expect("data")
    }

    async fn text(body: BoxBody) -> String {
        let bytes = body.collect().await.expect("a body").to_bytes();
        String::from_utf8(bytes.to_vec()).expect("text")
    }

    #[cfg(feature = "middleware")]
    #[tokio::test]
    async fn a_whole_body_that_is_lent_counts_once() {
        let budget = roomy();
        let mut read = Gathered::new(&budget);
        assert!(read.push(&Bytes::from_static(b"one two")));
        let whole = read.into_bytes();
        let (lender, mut lent) = lend_whole(&whole, &budget);
        assert!(lender.has(0, &next(&mut lent).await));
        assert!(lent.is_end_stream());
        assert_eq!(lender.given(), (7, true));
        assert_eq!(budget.held(), 7);
        drop((lent, whole));
        let again = lender.take_back().expect("kept");
        assert_eq!(text(again).await, "one two");
        // The lender knows the last frame by its place in memory, which it holds for that.
        drop(lender);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn what_was_read_comes_back() {
        for frames in 0..=3 {
            let whole = body(data(&["one ", "two ", "three"]));
            let (lender, mut lent) = lend(whole, 100, &roomy());
            for _ in 0..frames {
                next(&mut lent).await;
            }
            drop(lent);
            let again = lender.take_back().expect("kept");
            assert_eq!(text(again).await, "one two three", "after {frames} frames");
            assert_eq!(lender.take_back().err(), Some(NotHeld::Gone));
        }
    }

    #[tokio::test]
    async fn trailers_come_back_too() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "7".parse().expect("a value"));
        let mut frames = data(&["one"]);
        frames.push(Ok(Frame::trailers(trailers.clone())));
        let (lender, lent) = lend(body(frames), 100, &roomy());
        let read = lent.collect().await.expect("a body");
        assert_eq!(read.trailers(), Some(&trailers));
        let again = lender.take_back().expect("kept").collect().await;
        let again = again.expect("a body");
        assert_eq!(again.trailers(), Some(&trailers));
        assert_eq!(again.to_bytes(), "one");
    }

    #[tokio::test]
    async fn more_than_the_bound_is_not_kept() {
        let (lender, lent) = lend(body(data(&["12345", "67890"])), 9, &roomy());
        assert_eq!(text(lent).await, "1234567890");
        assert_eq!(lender.take_back().err(), Some(NotHeld::TooLong));
    }

    /// It goes to the reader in any case.
    #[tokio::test]
    async fn what_finds_no_room_in_memory_is_not_kept() {
        let budget = Budget::new(7);
        let (lender, mut lent) = lend(body(data(&["12345", "67890"])), 100, &budget);
        assert_eq!((next(&mut lent).await.len(), budget.held()), (5, 5));
        assert_eq!(text(lent).await, "67890");
        assert_eq!(budget.held(), 0);
        assert_eq!(lender.take_back().err(), Some(NotHeld::NoMemory));
    }

    /// A body that broke off was taken for a whole one.
    #[tokio::test]
    async fn a_body_that_broke_off_is_not_given_again_as_if_it_were_whole() {
        let mut frames = data(&["12345"]);
        frames.push(Err(Error::ConnectionReadTimeout));
        let (lender, lent) = lend(body(frames), 100, &roomy());
        assert!(lent.collect().await.is_err());
        assert_eq!(lender.take_back().err(), Some(NotHeld::Broken));
    }

    #[tokio::test]
    async fn a_body_that_is_over_holds_nothing() {
        let budget = roomy();
        let (lender, lent) = lend(body(data(&["12345", "67890"])), 100, &budget);
        assert_eq!(text(lent).await, "1234567890");
        assert_eq!(budget.held(), 10);
        let again = lender.take_back().expect("kept");
        drop(lender);
        assert_eq!(budget.held(), 10);
        drop(again);
        assert_eq!(budget.held(), 0);
        let (lender, lent) = lend(body(data(&["12345", "67890"])), 100, &budget);
        assert_eq!(text(lent).await, "1234567890");
        lender.let_go();
        assert_eq!(budget.held(), 0);
        assert_eq!(lender.take_back().err(), Some(NotHeld::Gone));
    }

    #[tokio::test]
    async fn a_reader_that_reads_on_after_the_take_back_gets_an_error() {
        let (lender, mut lent) = lend(body(data(&["12345"])), 9, &roomy());
        assert!(lender.take_back().is_ok());
        assert!(!lent.is_end_stream());
        assert!(lent.frame().await.expect("a frame").is_err());
    }

    #[tokio::test]
    async fn its_own_bytes_are_known_again() {
        let budget = roomy();
        let (lender, mut lent) = lend(body(data(&["12345", "67890", "abc"])), 10, &budget);
        lender.spills(true);
        let one = next(&mut lent).await;
        assert!(matches!(lender.gave(0, &one), Given::Kept));
        assert!(lender.has(0, &one) && !lender.has(1, &one));
        let two = next(&mut lent).await;
        // No longer the last, but the same.
        assert!(matches!(lender.gave(0, &one), Given::Other));
        assert!(lender.has(0, &one) && lender.has(5, &two));
        assert!(lender.has(2, &Bytes::from(b"3456".to_vec())));
        assert!(!lender.has(2, &Bytes::from(b"3457".to_vec())));
        assert!(!lender.has(9, &Bytes::from_static(b"0a")));
        assert_eq!(lender.given(), (10, false));
        let shared = lender.share();
        assert_eq!((&*shared, budget.held()), (&b"1234567890"[..], 10));
        let three = next(&mut lent).await;
        let Given::Spilled(NotHeld::TooLong, spilled) = lender.gave(10, &three) else {
            panic!("it fits");
        };
        assert_eq!(spilled.bytes(), b"1234567890");
        // The last is known for as long as it is the last.
        assert!(lender.has(10, &three) && !lender.has(0, &one));
        assert!(lent.frame().await.is_none());
        assert!(!lender.has(10, &three));
        assert_eq!(lender.given(), (13, true));
    }
}
