//! Whether an answer says that it is whole and good: every part of it has an ending known to be
//! good, nothing is an error and nothing refused.
//!
//! How an API says so is the business of its module in `answer/`. What we do not know, we do not
//! keep.

mod candidates;
mod choices;
mod ends;
mod message;
mod response;
mod vectors;

use candidates::Candidates;
use choices::Choices;
use ends::Ends;
use message::Message;
use response::Response;

use crate::api::{Answer, Pieces};
use crate::json::{self, Kind, Value};
use crate::sse::{DONE, Flow, Frame};
use crate::{Api, Rejected};

/// Judges answers of one API.
#[derive(Clone, Copy)]
pub(crate) struct Judge {
    answer: Answer,
    rules: Rules,
}

/// What holds for every API.
#[derive(Clone, Copy)]
struct Rules {
    /// Whether an answer that ran into its length limit is kept.
    allow_length: bool,
}

/// The ways an API has to end an answer. Any other is not known to be good.
struct Endings {
    finished: &'static [&'static str],
    /// By a length limit.
    cut_short: &'static [&'static str],
    refused: &'static [&'static str],
}

impl Judge {
    pub(crate) fn new(api: Api, allow_length: bool) -> Self {
        Self {
            answer: api.row().answer,
            rules: Rules { allow_length },
        }
    }

    /// Judges an answer in one piece.
    pub(crate) fn json(self, text: &[u8]) -> Result<(), Rejected> {
        let document = json::read(text).map_err(|_| Rejected::NotJson)?;
        let root = document.root();
        match self.answer {
            Answer::Choices(content) => choices::whole(object(root)?, content, self.rules),
            Answer::Response => response::whole(object(root)?, self.rules),
            Answer::Vectors(at) => vectors::whole(object(root)?, at),
            Answer::Message => message::whole(object(root)?, self.rules),
            Answer::Candidates(Pieces::One) => candidates::whole([object(root)], self.rules),
            Answer::Candidates(Pieces::Many) => {
                candidates::whole(elements(root)?.map(object), self.rules)
            }
        }
    }

    /// Judges an answer frame by frame.
    pub(crate) fn stream(self) -> Stream {
        Stream {
            rules: self.rules,
            state: match self.answer {
                Answer::Choices(_) => State::Choices(Choices::default()),
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
    pub(crate) fn frame(&mut self, frame: Frame<'_>) -> Result<Flow, Rejected> {
        if frame.event == b"error" {
            return Err(Rejected::Error);
        }
        let Some(data) = frame.data else {
            return Ok(Flow::More);
        };
        if data == DONE {
            return self.done().map(|()| Flow::End);
        }
        let document = json::read(data).map_err(|_| Rejected::NotJson)?;
        let root = object(document.root())?;
        match &mut self.state {
            State::Choices(choices) => choices.chunk(root, self.rules).map(|()| Flow::More),
            State::Response(response) => response.event(root, self.rules),
            State::Message(message) => message.event(root, self.rules),
            State::Candidates(candidates) => {
                candidates.chunk(root, self.rules).map(|()| Flow::More)
            }
            State::Unknown => Err(Rejected::Unexpected),
        }
    }

    /// Judges a stream that came to its proper end, between two frames, without any event that
    /// says so.
    pub(crate) fn clean_end(&self) -> Result<(), Rejected> {
        match &self.state {
            State::Candidates(candidates) => candidates.end().map_err(|rejected| match rejected {
                // Nobody can tell a cut from an end without a reason.
                Rejected::Unfinished => Rejected::Cut,
                other => other,
            }),
            _ => Err(Rejected::Cut),
        }
    }

    /// `[DONE]` has come, before any other event that could have ended the stream.
    fn done(&self) -> Result<(), Rejected> {
        match &self.state {
            State::Choices(choices) => choices.end(),
            State::Candidates(candidates) => candidates.end(),
            State::Response(_) | State::Message(_) => Err(Rejected::Unfinished),
            State::Unknown => Err(Rejected::Unexpected),
        }
    }
}

impl Rules {
    /// Judges the reason that an answer, or a part of it, gives for its end.
    fn ending(self, reason: Value<'_>, known: &Endings) -> Result<(), Rejected> {
        let reason = reason.string().ok_or(Rejected::FinishReason)?;
        let is_one_of = |known: &[&str]| known.iter().any(|known| known.as_bytes() == &*reason);
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

/// An object that reports no error.
fn object(value: Value<'_>) -> Result<Value<'_>, Rejected> {
    if value.kind() != Kind::Object {
        return Err(Rejected::NotJson);
    }
    if value.get_some("error").is_some() || value.get("moderation").is_some_and(has_failed) {
        return Err(Rejected::Error);
    }
    Ok(value)
}

/// Whether the moderation that OpenAI was asked for beside the answer could not be had, be it of
/// the input or of the output.
fn has_failed(moderation: Value<'_>) -> bool {
    moderation.members().any(|(_, result)| {
        let kind = result.get("type").and_then(Value::string);
        kind.as_deref() == Some(b"error")
    })
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

/// Where a part of an answer belongs. Some servers leave it out when there is only one part.
fn index(part: Value<'_>) -> Result<u32, Rejected> {
    let Some(index) = part.get("index") else {
        return Ok(0);
    };
    let digits = core::str::from_utf8(index.spelling()).ok();
    let number = digits.and_then(|digits| digits.parse().ok());
    match index.kind() {
        Kind::Number => number.ok_or(Rejected::Unexpected),
        _ => Err(Rejected::Unexpected),
    }
}
