//! Whether an answer is whole and good. Every part of it must have content and end in a way known
//! to be good. It must have no error, no refusal, and no trace of a search or a tool that the
//! provider ran.
//!
//! Each API has its module in `judge/`; `parts.rs`, `traces.rs`, `trouble.rs` and `expiry.rs`
//! apply to all of them. An answer that is not understood is not kept.

mod candidates;
mod choices;
mod expiry;
mod message;
mod parts;
mod response;
mod said;
mod traces;
mod trouble;
mod vectors;

use candidates::Candidates;
use choices::Choices;
use expiry::Expiry;
use message::Message;
use parts::Parts;
use response::Response;
use said::Said;

use crate::answer::sse::{DONE, Frame, Frames, Next};
use crate::api::{Answer, Pieces};
use crate::json::{self, Kind, Value};
use crate::{Rejected, Representation, Shape, Stated};

/// Judges answers of one shape.
#[derive(Clone, Copy)]
pub(crate) struct Judge {
    answer: Answer,
    rules: Rules,
}

/// The rules for every API.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether an answer that ran into its length limit is kept.
    allow_length: bool,
    /// How many choices, candidates or vectors the request asks for, where it tells.
    parts: Option<u32>,
}

/// The reasons by which an API ends an answer, in any case. Any other is not known to be good.
struct Endings {
    finished: &'static [&'static str],
    /// By a length limit.
    cut_short: &'static [&'static str],
    refused: &'static [&'static str],
}

/// The endings of choices, messages and candidates. One list for all: gateways translate between
/// the APIs, and some leave the word of the model's own server.
const ENDINGS: Endings = Endings {
    finished: &[
        // OpenAI's, Anthropic's and Gemini's own.
        "stop",
        "tool_calls",
        "function_call",
        "end_turn",
        "stop_sequence",
        "tool_use",
        // Text Generation Inference, watsonx, Together.
        "eos_token",
        "eos",
        // Cohere.
        "complete",
        "tool_call",
        // AI21, SambaNova, Aleph Alpha.
        "endoftext",
        "end_of_text",
        // Baidu.
        "normal",
        // Private servers.
        "completed",
        "finished",
    ],
    cut_short: &[
        "length",
        "max_tokens",
        "model_context_window_exceeded",
        // Mistral, watsonx, Aleph Alpha.
        "model_length",
        "token_limit",
        "maximum_tokens",
        "max_length",
    ],
    refused: &["refusal"],
};

/// Values in the place of a reason before the end: SGLang has an empty text there, some servers
/// have the word `null`.
const PENDING: [&[u8]; 3] = [b"", b"null", b"not_finished"];

impl Judge {
    pub(crate) fn new(shape: Shape, allow_length: bool) -> Self {
        Self {
            answer: shape.api.row().answer,
            rules: Rules {
                allow_length,
                parts: shape.parts,
            },
        }
    }

    /// Judges an answer in one piece. Returns the expiry that it states, in seconds since 1970.
    pub(crate) fn json(self, text: &[u8]) -> Result<Option<u64>, Rejected> {
        let document = json::read_answer(without_mark(text)).map_err(|_| Rejected::NotJson)?;
        let root = document.root();
        let mut expiry = Expiry::default();
        // Vectors hold nothing to look for, and are long.
        if !matches!(self.answer, Answer::Vectors(_)) {
            for piece in root.elements().chain([root]) {
                if piece.kind() == Kind::Object {
                    traces::look(object(piece)?, &mut expiry)?;
                }
            }
        }
        match self.answer {
            Answer::Choices(content) => choices::whole(object(root)?, content, self.rules),
            Answer::Response => response::whole(object(root)?, self.rules),
            Answer::Vectors(at) => vectors::whole(object(root)?, at, self.rules),
            Answer::Message => message::whole(object(root)?, self.rules),
            Answer::Candidates(Pieces::One) => candidates::whole([object(root)], self.rules),
            Answer::Candidates(Pieces::Many) => {
                candidates::whole(elements(root)?.map(object), self.rules)
            }
        }?;
        Ok(expiry.at())
    }

    /// Judges an answer frame by frame.
    pub(crate) fn stream(self) -> Stream {
        Stream {
            rules: self.rules,
            expiry: Expiry::default(),
            state: match self.answer {
                Answer::Choices(content) => State::Choices(Choices::new(content)),
                Answer::Response => State::Response(Response::default()),
                Answer::Vectors(_) => State::Unknown,
                Answer::Message => State::Message(Message::default()),
                Answer::Candidates(_) => State::Candidates(Candidates::default()),
            },
        }
    }
}

/// Judges an answer frame by frame.
pub(crate) struct Stream {
    rules: Rules,
    expiry: Expiry,
    state: State,
}

enum State {
    Choices(Choices),
    Response(Response),
    Message(Message),
    Candidates(Candidates),
    /// The API has no streams.
    Unknown,
}

impl Stream {
    /// Judges one frame.
    pub(crate) fn frame(&mut self, frame: Frame<'_>) -> Result<Next, Rejected> {
        if trouble::is_named(frame.event) {
            return Err(Rejected::Error);
        }
        let Some(data) = frame.data else {
            return Ok(Next::More);
        };
        if data == DONE {
            return self.done().map(|()| Next::End);
        }
        let document = json::read_answer(data).map_err(|_| Rejected::NotJson)?;
        let root = object(document.root())?;
        traces::look(root, &mut self.expiry)?;
        let rules = self.rules;
        match &mut self.state {
            State::Choices(choices) => choices.chunk(root, rules).map(|()| Next::More),
            State::Response(response) => response.event(root, rules),
            State::Message(message) => message.event(root, rules),
            State::Candidates(candidates) => candidates.chunk(root, rules).map(|()| Next::More),
            State::Unknown => Err(Rejected::Unexpected),
        }
    }

    /// The expiry that the answer has stated so far, in seconds since 1970.
    pub(crate) fn expires_at(&self) -> Option<u64> {
        self.expiry.at()
    }

    /// Judges a stream that ended properly, between two frames, without a terminal event.
    pub(crate) fn clean_end(&self) -> Result<(), Rejected> {
        match &self.state {
            State::Candidates(candidates) => {
                candidates
                    .end(self.rules)
                    .map_err(|rejected| match rejected {
                        // A cut looks the same as an end without a reason.
                        Rejected::Unfinished => Rejected::Cut,
                        other => other,
                    })
            }
            _ => Err(Rejected::Cut),
        }
    }

    /// `[DONE]` has come, before any other event that could have ended the stream.
    fn done(&self) -> Result<(), Rejected> {
        match &self.state {
            State::Choices(choices) => choices.end(self.rules),
            State::Candidates(candidates) => candidates.end(self.rules),
            State::Response(_) | State::Message(_) => Err(Rejected::Unfinished),
            State::Unknown => Err(Rejected::Unexpected),
        }
    }
}

impl Rules {
    /// Judges the reason for the end of an answer, or of a part of it; whether it has ended.
    fn ends(self, reason: Option<Value<'_>>) -> Result<bool, Rejected> {
        let Some(reason) = reason else {
            return Ok(false);
        };
        let is_pending = reason.string().is_some_and(|it| PENDING.contains(&&*it));
        match is_pending {
            true => Ok(false),
            false => self.ending(reason, &ENDINGS).map(|()| true),
        }
    }

    /// Judges a reason for the end.
    fn ending(self, reason: Value<'_>, known: &Endings) -> Result<(), Rejected> {
        let reason = reason.string().ok_or(Rejected::FinishReason)?;
        let is_one_of = |known: &[&str]| {
            let mut known = known.iter();
            known.any(|known| known.as_bytes().eq_ignore_ascii_case(&reason))
        };
        if is_one_of(known.finished) || (self.allow_length && is_one_of(known.cut_short)) {
            Ok(())
        } else if is_one_of(known.cut_short) {
            Err(Rejected::Length)
        } else if is_one_of(known.refused) {
            Err(Rejected::Refusal)
        } else {
            Err(Rejected::FinishReason)
        }
    }
}

impl Shape {
    /// The end that an answer of this shape states, for callers that have judged it by themselves.
    /// An answer of another shape states nothing.
    ///
    /// # Errors
    ///
    /// It states an end that is not understood: [`Rejected::Expired`].
    pub fn stated(self, body: &[u8]) -> Result<Stated, Rejected> {
        let mut expiry = Expiry::default();
        let mut read = |text: &[u8]| match json::read_answer(text) {
            Ok(document) => expiry::look(document.root(), &mut expiry),
            Err(_) => Ok(()),
        };
        match self.representation {
            // Vectors state nothing, and are long.
            _ if matches!(self.api.row().answer, Answer::Vectors(_)) => {}
            Representation::Json => read(without_mark(body))?,
            Representation::Sse => Frames::default().feed(body, |frame| {
                read(frame.data.unwrap_or_default()).map(|()| Next::More)
            })?,
        }
        Ok(Stated::default().ending_at(expiry.at()))
    }
}

/// A text without the byte order mark that some servers begin with, and that clients skip.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// An object that reports no error.
fn object(value: Value<'_>) -> Result<Value<'_>, Rejected> {
    if value.kind() != Kind::Object {
        return Err(Rejected::NotJson);
    }
    match trouble::is_reported(value) {
        true => Err(Rejected::Error),
        false => Ok(value),
    }
}

/// The elements of an array.
fn elements(value: Value<'_>) -> Result<impl Iterator<Item = Value<'_>>, Rejected> {
    match value.kind() {
        Kind::Array => Ok(value.elements()),
        // An error comes alone.
        _ => Err(object(value).err().unwrap_or(Rejected::Unexpected)),
    }
}

/// The objects that a member must be an array of.
fn objects<'d>(of: Value<'d>, name: &str) -> Result<impl Iterator<Item = Value<'d>>, Rejected> {
    let array = of.get(name).ok_or(Rejected::Unexpected)?;
    let are_objects = array.elements().all(|value| value.kind() == Kind::Object);
    if array.kind() == Kind::Array && are_objects {
        Ok(array.elements())
    } else {
        Err(Rejected::Unexpected)
    }
}

/// The index of a part of an answer. Some servers leave it out if the answer has one part, or all
/// parts in order: then it is the part's place.
fn index(part: Value<'_>, place: usize) -> Result<u32, Rejected> {
    let Some(index) = part.get_some("index") else {
        return u32::try_from(place).map_err(|_| Rejected::Unexpected);
    };
    let digits = core::str::from_utf8(index.spelling()).ok();
    let number = digits.and_then(|digits| digits.parse().ok());
    match index.kind() {
        Kind::Number => number.ok_or(Rejected::Unexpected),
        _ => Err(Rejected::Unexpected),
    }
}
