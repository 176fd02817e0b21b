//! Reads a provider's answer as it passes by, and says at the end whether it may be kept.
//!
//! The exact bytes are kept, so that a replayed stream equals the original. The recorder never
//! alters or delays an answer.
//!
//! A [`Recorder`] keeps the body. A [`Validator`] judges the same way and leaves the body to its
//! caller, which has it anyway.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::answer::head::{KEPT_BYTES_MAX, is_kept};
use crate::answer::judge::{Judge, Stream};
use crate::answer::sse::Frames;
use crate::{ProviderControl, Rejected, Representation, Shape, Stated};

/// The operator's rules for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest body that is kept. A longer one is given up, never cut.
    pub body_bytes_max: usize,
    /// Whether an answer that ran into its length limit is kept.
    pub allow_length: bool,
    /// Whether the provider's headers for caches are obeyed.
    pub provider_control: ProviderControl,
}

/// An answer that may be served again.
#[derive(Clone, PartialEq, Eq)]
pub struct Storable<B = Vec<u8>> {
    /// Always 200.
    pub status: u16,
    /// The headers kept with it ([`is_kept`]), names in lower case; at most [`KEPT_BYTES_MAX`]
    /// bytes.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, byte for byte.
    pub body: B,
    /// How old it is already, and until when it may be served.
    pub stated: Stated,
}

/// Records one answer: [`head`](Self::head), then [`feed`](Self::feed) for each chunk, then
/// [`finish`](Self::finish) if the body came to its proper end. If it did not, or if the client
/// went away, drop the recorder.
#[derive(Debug)]
pub struct Recorder {
    validator: Validator,
    body: Vec<u8>,
}

/// Judges one answer as a [`Recorder`] does, and holds none of its body: the caller keeps the bytes
/// and hands them over at the end.
#[derive(Debug)]
pub struct Validator {
    shape: Shape,
    limits: Limits,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Recording(Box<Recording>),
    Rejected(Rejected),
}

struct Recording {
    headers: Vec<(String, Vec<u8>)>,
    /// The length that `content-length` promised.
    length: Option<usize>,
    /// How much of the body has come.
    bytes: usize,
    /// The life that the head states.
    stated: Stated,
    judging: Judging,
}

enum Judging {
    /// At the end, in one piece.
    Whole(Judge),
    /// Frame by frame.
    Frames(Frames, Stream),
}

/// Memory reserved because of `content-length`, before any of the body has come.
const RESERVED_BYTES_MAX: usize = 64 << 10;

impl Recorder {
    /// A recorder for one answer.
    pub fn new(shape: Shape, limits: Limits) -> Self {
        Self {
            validator: Validator::new(shape, limits),
            body: Vec::new(),
        }
    }

    /// Takes in the final status (not a 1xx) and the headers, names in lower case.
    ///
    /// # Errors
    ///
    /// Why the answer won't be kept, whatever its body. It need not be fed.
    pub fn head(&mut self, status: u16, headers: &[(&str, &[u8])]) -> Result<(), Rejected> {
        self.validator.head(status, headers)?;
        let length = self.validator.length().unwrap_or(0);
        self.body.reserve(length.min(RESERVED_BYTES_MAX));
        Ok(())
    }

    /// Takes in a part of the body, cut anywhere. Once the answer is rejected, this does
    /// nothing and holds nothing.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.validator.feed(chunk);
        match self.validator.state {
            State::Recording(_) => self.body.extend_from_slice(chunk),
            State::Waiting | State::Rejected(_) => self.body = Vec::new(),
        }
    }

    /// Why the answer won't be kept, if that is known already.
    pub fn rejected(&self) -> Option<Rejected> {
        self.validator.rejected()
    }

    /// As [`Validator::held_bytes`]; the body comes on top.
    pub fn held_bytes(&self) -> usize {
        self.validator.held_bytes()
    }

    /// As [`Validator::complete`].
    pub fn complete(&self) -> Option<usize> {
        self.validator.complete()
    }

    /// A copy of the answer as it would be kept if nothing followed: see [`Validator::so_far`].
    pub fn so_far(&self) -> Option<Storable> {
        self.validator.so_far(self.body.clone())
    }

    /// The answer, once its body has ended.
    ///
    /// # Errors
    ///
    /// Why it is not kept.
    pub fn finish(self) -> Result<Storable, Rejected> {
        self.validator.finish(self.body)
    }
}

impl Validator {
    /// A validator for one answer.
    pub fn new(shape: Shape, limits: Limits) -> Self {
        Self {
            shape,
            limits,
            state: State::Waiting,
        }
    }

    /// Takes in the final status (not a 1xx) and the headers, names in lower case.
    ///
    /// # Errors
    ///
    /// Why the answer won't be kept, whatever its body. It need not be fed.
    pub fn head(&mut self, status: u16, headers: &[(&str, &[u8])]) -> Result<(), Rejected> {
        let state = match self.state {
            State::Waiting => self.begin(status, headers),
            State::Recording(_) => Err(Rejected::Unexpected),
            State::Rejected(rejected) => Err(rejected),
        };
        let result = state.as_ref().map(|_| ()).map_err(|&rejected| rejected);
        self.state = state.map_or_else(State::Rejected, |recording| {
            State::Recording(Box::new(recording))
        });
        result
    }

    /// The length that the head promises, if it does.
    pub fn length(&self) -> Option<usize> {
        match &self.state {
            State::Recording(recording) => recording.length,
            State::Waiting | State::Rejected(_) => None,
        }
    }

    /// Memory that is held until more of the body comes, in bytes: the event of a stream that is not
    /// complete. At most four times what has come of the event, plus 48 KiB. An answer that is not a
    /// stream is judged at its end, and nothing is held.
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            State::Recording(recording) => match &recording.judging {
                Judging::Whole(_) => 0,
                Judging::Frames(frames, _) => frames.held_bytes(),
            },
            State::Waiting | State::Rejected(_) => 0,
        }
    }

    /// Takes in a part of the body, cut anywhere. Once the answer is rejected, this does nothing.
    pub fn feed(&mut self, chunk: &[u8]) {
        let fed = match &mut self.state {
            State::Waiting => Err(Rejected::Unexpected),
            State::Recording(recording) => recording.feed(chunk, self.limits.body_bytes_max),
            State::Rejected(_) => return,
        };
        if let Err(rejected) = fed {
            self.state = State::Rejected(rejected);
        }
    }

    /// Why the answer won't be kept, if that is known already.
    pub fn rejected(&self) -> Option<Rejected> {
        match self.state {
            State::Rejected(rejected) => Some(rejected),
            State::Waiting | State::Recording(_) => None,
        }
    }

    /// The length of the body so far, if it is a stream whose terminal event has arrived: should
    /// nothing follow, [`finish`](Self::finish) will find it good. A client may hang up there,
    /// before the provider closes the stream. A JSON answer is never complete before its end, and
    /// neither is a stream of Gemini's, which has no terminal event.
    pub fn complete(&self) -> Option<usize> {
        match &self.state {
            State::Recording(recording) => match &recording.judging {
                Judging::Frames(frames, _) if frames.is_complete() => Some(recording.bytes),
                Judging::Frames(..) | Judging::Whole(_) => None,
            },
            State::Waiting | State::Rejected(_) => None,
        }
    }

    /// The answer with this body, all bytes fed so far, as it would be kept if nothing followed. A
    /// caller may store it once it is [`complete`](Self::complete) and go on feeding: later data
    /// may belong to the answer (a comment, or the `[DONE]` that some gateways put behind any
    /// stream) or undo it. Only [`finish`](Self::finish) decides.
    pub fn so_far<B>(&self, body: B) -> Option<Storable<B>> {
        match &self.state {
            State::Recording(recording) if self.complete().is_some() => {
                let expires_at = match &recording.judging {
                    Judging::Frames(_, stream) => stream.expires_at(),
                    Judging::Whole(_) => None,
                };
                Some(Storable {
                    status: 200,
                    headers: recording.headers.clone(),
                    body,
                    stated: recording.stated.ending_at(expires_at),
                })
            }
            _ => None,
        }
    }

    /// The answer with this body, all bytes fed, once it has ended.
    ///
    /// # Errors
    ///
    /// Why it is not kept.
    pub fn finish<B: AsRef<[u8]>>(self, body: B) -> Result<Storable<B>, Rejected> {
        match self.state {
            State::Waiting => Err(Rejected::Cut),
            State::Recording(recording) => recording.finish(body),
            State::Rejected(rejected) => Err(rejected),
        }
    }

    fn begin(&self, status: u16, headers: &[(&str, &[u8])]) -> Result<Recording, Rejected> {
        if status != 200 {
            return Err(Rejected::Status);
        }
        let mut content_type = None;
        let mut length = None;
        for &(name, value) in headers {
            match name {
                "content-type" if content_type.is_some() => return Err(Rejected::ContentType),
                "content-type" => content_type = Some(value),
                "content-encoding" if !value.trim_ascii().eq_ignore_ascii_case(b"identity") => {
                    return Err(Rejected::ContentEncoding);
                }
                "content-length" => {
                    let digits = core::str::from_utf8(value).unwrap_or_default();
                    let bytes = digits.parse().map_err(|_| Rejected::Unexpected)?;
                    if bytes > self.limits.body_bytes_max {
                        return Err(Rejected::TooLarge);
                    }
                    length = Some(bytes);
                }
                _ => {}
            }
        }
        if !content_type.is_some_and(|value| fits(value, self.shape.representation)) {
            return Err(Rejected::ContentType);
        }
        let kept = || headers.iter().filter(|(name, _)| is_kept(name));
        let bytes = |(name, value): &(&str, &[u8])| name.len() + value.len();
        if kept().map(bytes).sum::<usize>() > KEPT_BYTES_MAX {
            return Err(Rejected::HeadTooLarge);
        }
        let stated = Stated::of(headers, self.limits.provider_control)?;
        let judge = Judge::new(self.shape, self.limits.allow_length);
        Ok(Recording {
            headers: kept()
                .map(|&(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            length,
            bytes: 0,
            stated,
            judging: match self.shape.representation {
                Representation::Json => Judging::Whole(judge),
                Representation::Sse => Judging::Frames(Frames::default(), judge.stream()),
            },
        })
    }
}

impl Recording {
    fn feed(&mut self, chunk: &[u8], body_bytes_max: usize) -> Result<(), Rejected> {
        if chunk.len() > body_bytes_max - self.bytes {
            return Err(Rejected::TooLarge);
        }
        self.bytes += chunk.len();
        match &mut self.judging {
            Judging::Whole(_) => Ok(()),
            Judging::Frames(frames, stream) => frames.feed(chunk, |frame| stream.frame(frame)),
        }
    }

    fn finish<B: AsRef<[u8]>>(self, body: B) -> Result<Storable<B>, Rejected> {
        let bytes = body.as_ref();
        // Only the judged bytes may be kept.
        if bytes.len() != self.bytes || self.length.is_some_and(|length| length != bytes.len()) {
            return Err(Rejected::Cut);
        }
        let expires_at = match self.judging {
            Judging::Whole(judge) => judge.json(bytes)?,
            Judging::Frames(frames, stream) => {
                if !frames.is_complete() {
                    if !frames.is_between_frames() {
                        return Err(Rejected::Cut);
                    }
                    stream.clean_end()?;
                }
                stream.expires_at()
            }
        };
        Ok(Storable {
            status: 200,
            headers: self.headers,
            body,
            stated: self.stated.ending_at(expires_at),
        })
    }
}

/// Shows the length only. Answers do not belong in logs.
impl fmt::Debug for Recording {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recording({} bytes)", self.bytes)
    }
}

/// As for the recording.
impl<B: AsRef<[u8]>> fmt::Debug for Storable<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Storable({} bytes)", self.body.as_ref().len())
    }
}

/// Whether the value of a `content-type` header names a stream of events.
pub fn is_event_stream(content_type: &[u8]) -> bool {
    fits(content_type, Representation::Sse)
}

fn fits(content_type: &[u8], representation: Representation) -> bool {
    let media_type = content_type.split(|&byte| byte == b';').next();
    let wanted: &[u8] = match representation {
        Representation::Json => b"application/json",
        Representation::Sse => b"text/event-stream",
    };
    media_type.is_some_and(|value| value.trim_ascii().eq_ignore_ascii_case(wanted))
}
