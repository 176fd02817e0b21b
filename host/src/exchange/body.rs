//! Bodies that are gathered, and bodies that go on behind what was read of them.

pub(crate) mod ahead;
pub(crate) mod budget;
pub(crate) mod buffer;
pub(crate) mod lent;

use crate::exchange::boxed::BoxBody;
use crate::exchange::error::Error;
use budget::{Budget, Reservation};
use buffer::Buffer;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The data of a body that is read ahead, in one piece, however small its frames were. It counts in
/// a [`Budget`].
pub(crate) struct Gathered {
    /// The only frame so far, or what was shared. Most requests are one frame, which is then not
    /// copied.
    only: Bytes,
    /// All frames of a body with several.
    all: Buffer,
    reserved: Reservation,
    /// What counts elsewhere, for as long as a clone of it is there.
    shared: usize,
}

impl Gathered {
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self {
            only: Bytes::new(),
            all: Buffer::default(),
            reserved: budget.reserve(),
            shared: 0,
        }
    }

    /// The bytes so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.all.is_empty() {
            true => &self.only,
            false => &self.all,
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Adds the next part, if the budget has room for it; whether it had.
    #[must_use]
    pub(crate) fn push(&mut self, data: &Bytes) -> bool {
        let has_room = self.reserved.grow(data.len() + self.shared);
        if has_room {
            self.add(data);
        }
        has_room
    }

    /// Adds a part that the budget has no room for, but that must not be lost.
    pub(crate) fn push_beyond(&mut self, data: &Bytes) {
        self.reserved.count(data.len() + self.shared);
        self.add(data);
    }

    /// Takes in all of a body at once, whose bytes count where they came from.
    pub(crate) fn adopt(&mut self, whole: &Bytes) {
        self.only = whole.clone();
        self.shared = whole.len();
    }

    fn add(&mut self, data: &Bytes) {
        self.shared = 0;
        if self.len() == 0 {
            self.only = data.clone();
            return;
        }
        self.all.push(&std::mem::take(&mut self.only));
        self.all.push(data);
    }

    /// What was gathered so far. It counts once, for as long as it is here or a clone of it elsewhere.
    pub(crate) fn share(&mut self) -> Bytes {
        let bytes = self.take().into_bytes();
        self.only = bytes.clone();
        self.shared = bytes.len();
        bytes
    }

    /// Moves the gathered bytes out.
    pub(crate) fn take(&mut self) -> Self {
        Self {
            only: std::mem::take(&mut self.only),
            all: std::mem::take(&mut self.all),
            reserved: self.reserved.take(),
            shared: std::mem::take(&mut self.shared),
        }
    }

    /// The gathered bytes. They count in the budget until all clones of them are gone.
    pub(crate) fn into_bytes(self) -> Bytes {
        let Self {
            only,
            all,
            reserved,
            shared,
        } = self;
        // What is shared has its count with it.
        if shared > 0 || (only.is_empty() && all.is_empty()) {
            return only;
        }
        match all.is_empty() {
            true => Bytes::from_owner(Counted {
                bytes: only,
                _reserved: reserved,
            }),
            false => Bytes::from_owner(Counted {
                bytes: all,
                _reserved: reserved,
            }),
        }
    }
}

/// Bytes that count in a budget until all clones of them are gone.
pub(crate) fn counted(bytes: Vec<u8>, reserved: Reservation) -> Bytes {
    Bytes::from_owner(Counted {
        bytes,
        _reserved: reserved,
    })
}

/// Bytes that count in a budget.
struct Counted<B> {
    bytes: B,
    _reserved: Reservation,
}

impl<B: Deref<Target = [u8]>> AsRef<[u8]> for Counted<B> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The part of a body that was read ahead, then the rest of it.
pub(crate) struct Prefixed<B> {
    read: Bytes,
    trailers: Option<HeaderMap>,
    rest: B,
}

impl<B> Prefixed<B>
where
    B: Body<Data = Bytes, Error = Error> + Send + Unpin + 'static,
{
    /// What was read, its trailers included, if they were read as well.
    pub(crate) fn ended(read: Bytes, trailers: Option<HeaderMap>, rest: B) -> BoxBody {
        Self {
            read,
            trailers,
            rest,
        }
        .boxed_unsync()
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for Prefixed<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        match self.trailers.take() {
            Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.trailers.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let mut hint = self.rest.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(read));
        }
        hint.set_lower(hint.lower().saturating_add(read));
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_counts_until_all_have_done_with_it() {
        let budget = Budget::new(10);
        let mut gathered = Gathered::new(&budget);
        let part = Bytes::from_static(b"abcd");
        assert!(gathered.push(&part) && gathered.push(&part));
        assert!(!gathered.push(&part));
        assert_eq!(gathered.len(), 8);
        gathered.push_beyond(&part);
        let bytes = gathered.into_bytes();
        assert_eq!(&*bytes, b"abcdabcdabcd");
        let rest = bytes.slice(8..);
        drop(bytes);
        assert_eq!(budget.held(), 12);
        drop(rest);
        assert_eq!(budget.held(), 0);
    }

    /// A queue of its frames took 190 bytes for each byte.
    #[test]
    fn a_body_in_frames_of_one_byte_is_one_buffer() {
        let budget = Budget::new(u64::MAX);
        let mut gathered = Gathered::new(&budget);
        for _ in 0..(1 << 20) {
            assert!(gathered.push(&Bytes::from_static(b"x")));
        }
        assert!(gathered.only.is_empty());
        assert_eq!(gathered.into_bytes().len(), 1 << 20);
    }

    #[test]
    fn what_is_shared_counts_once() {
        let budget = Budget::new(100);
        let mut gathered = Gathered::new(&budget);
        let part = Bytes::from_static(b"abcd");
        assert!(gathered.push(&part) && gathered.push(&part));
        let shared = gathered.share();
        assert_eq!((&*shared, budget.held()), (&b"abcdabcd"[..], 8));
        assert_eq!(gathered.share().as_ptr(), shared.as_ptr());
        assert_eq!(gathered.take().into_bytes().as_ptr(), shared.as_ptr());
        assert_eq!(budget.held(), 8);
        drop(shared);
        assert_eq!(budget.held(), 0);
        // What comes after makes it a second time, while the first is there.
        assert!(gathered.push(&part));
        let shared = gathered.share();
        assert!(gathered.push(&part));
        assert_eq!((gathered.bytes(), budget.held()), (&b"abcdabcd"[..], 12));
        drop(shared);
        assert_eq!(budget.held(), 8);
        drop(gathered);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_single_frame_is_not_copied() {
        let mut gathered = Gathered::new(&Budget::new(100));
        let frame = Bytes::from(vec![b'x'; 10]);
        assert!(gathered.push(&frame));
        assert_eq!(gathered.into_bytes().as_ptr(), frame.as_ptr());
    }
}
