//! Whether an answer says that it is whole and good, as chat completions say it: every choice
//! has a `finish_reason` known to be good, nothing is an error and nothing refused.

use alloc::vec::Vec;

use crate::api::Row;
use crate::json::{self, Kind, Value};
use crate::sse::{Flow, Frame};
use crate::{Api, Rejected};

/// The greatest `n` that OpenAI takes. A stream that names more choices is not what we know.
const CHOICES_MAX: usize = 128;

/// Judges answers of one API.
#[derive(Clone, Copy)]
pub(crate) struct Judge {
    row: &'static Row,
    allow_length: bool,
}

impl Judge {
    pub(crate) fn new(api: Api, allow_length: bool) -> Self {
        Self {
            row: api.row(),
            allow_length,
        }
    }

    /// Judges an answer in one piece.
    pub(crate) fn json(self, text: &[u8]) -> Result<(), Rejected> {
        let document = json::read(text).map_err(|_| Rejected::NotJson)?;
        let choices = choices(document.root())?;
        if choices.elements().next().is_none() {
            return Err(Rejected::Unexpected);
        }
        for choice in choices.elements() {
            let message = choice.get("message").ok_or(Rejected::Unexpected)?;
            if message.kind() != Kind::Object {
                return Err(Rejected::Unexpected);
            }
            if !self.choice(choice, message)? {
                return Err(Rejected::Unfinished);
            }
        }
        Ok(())
    }

    /// Judges a choice, or a part of one, and says whether it ends there.
    fn choice(self, choice: Value<'_>, message: Value<'_>) -> Result<bool, Rejected> {
        if choice.get_some("error").is_some() {
            return Err(Rejected::Error);
        }
        if let Some(refusal) = message.get_some("refusal")
            && (refusal.kind() != Kind::Spelled || !refusal.spelling().is_empty())
        {
            return Err(Rejected::Refusal);
        }
        let Some(reason) = choice.get_some("finish_reason") else {
            return Ok(false);
        };
        let reason = reason.string().ok_or(Rejected::FinishReason)?;
        let is_one_of = |known: &[&str]| known.iter().any(|known| known.as_bytes() == &*reason);
        if is_one_of(self.row.finished) || (self.allow_length && is_one_of(self.row.cut_short)) {
            Ok(true)
        } else if is_one_of(self.row.cut_short) {
            Err(Rejected::Length)
        } else {
            Err(Rejected::FinishReason)
        }
    }
}

/// Judges an answer frame by frame.
pub(crate) struct Stream {
    judge: Judge,
    /// The choices seen, by index, and whether each has ended.
    choices: Vec<(u32, bool)>,
}

impl Stream {
    pub(crate) fn new(judge: Judge) -> Self {
        Self {
            judge,
            choices: Vec::new(),
        }
    }

    /// Judges one frame.
    pub(crate) fn frame(&mut self, frame: Frame<'_>) -> Result<Flow, Rejected> {
        if frame.event == b"error" {
            return Err(Rejected::Error);
        }
        let Some(data) = frame.data else {
            return Ok(Flow::More);
        };
        if data == self.judge.row.terminal.as_bytes() {
            return self.end();
        }
        let document = json::read(data).map_err(|_| Rejected::NotJson)?;
        // Chunks without any choice tell the usage or what the prompt's filter says.
        for choice in choices(document.root())?.elements() {
            let index = index(choice)?;
            // The last part of a choice may come without a delta.
            let ends = self
                .judge
                .choice(choice, choice.get("delta").unwrap_or(choice))?;
            let known = self.choices.iter().position(|&(seen, _)| seen == index);
            match known {
                Some(at) => self.choices[at].1 |= ends,
                None if self.choices.len() == CHOICES_MAX => return Err(Rejected::Unexpected),
                None => self.choices.push((index, ends)),
            }
        }
        Ok(Flow::More)
    }

    fn end(&self) -> Result<Flow, Rejected> {
        let whole = !self.choices.is_empty() && self.choices.iter().all(|&(_, ended)| ended);
        if whole {
            Ok(Flow::End)
        } else {
            Err(Rejected::Unfinished)
        }
    }
}

/// The choices of an answer or of one chunk of it.
fn choices(root: Value<'_>) -> Result<Value<'_>, Rejected> {
    if root.kind() != Kind::Object {
        return Err(Rejected::NotJson);
    }
    if root.get_some("error").is_some() {
        return Err(Rejected::Error);
    }
    let choices = root.get("choices").ok_or(Rejected::Unexpected)?;
    let objects = |choice: Value<'_>| choice.kind() == Kind::Object;
    if choices.kind() == Kind::Array && choices.elements().all(objects) {
        Ok(choices)
    } else {
        Err(Rejected::Unexpected)
    }
}

/// A choice's index. Some servers leave it out when there is only one.
fn index(choice: Value<'_>) -> Result<u32, Rejected> {
    let Some(index) = choice.get("index") else {
        return Ok(0);
    };
    let digits = core::str::from_utf8(index.spelling()).ok();
    let number = digits.and_then(|digits| digits.parse().ok());
    match index.kind() {
        Kind::Number => number.ok_or(Rejected::Unexpected),
        _ => Err(Rejected::Unexpected),
    }
}
