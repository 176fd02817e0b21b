//! Whether a part of an answer holds something: text, a tool call, an image, audio.

use super::traces::holds;
use crate::json::{Kind, Value};

/// The content of a part of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    /// Nothing at all.
    #[default]
    Nothing,
    /// White space, or only the model's thinking.
    Aside,
    /// Content that the client asked for.
    Something,
}

impl Said {
    /// The content of a text; a value that is no text has none.
    pub(super) fn text(text: Option<Value<'_>>) -> Self {
        let Some(text) = text.and_then(Value::string) else {
            return Self::Nothing;
        };
        let is_blank = match core::str::from_utf8(&text) {
            Ok(text) => text.chars().all(char::is_whitespace),
            // Half an emoji counts as content.
            Err(_) => false,
        };
        match text.is_empty() {
            true => Self::Nothing,
            false if is_blank => Self::Aside,
            false => Self::Something,
        }
    }

    /// This content, if the member holds anything.
    pub(super) fn of(self, member: Option<Value<'_>>) -> Self {
        match member.is_some_and(holds) {
            true => self,
            false => Self::Nothing,
        }
    }

    /// The content of a choice's message, or of a piece of it.
    pub(super) fn message(message: Value<'_>) -> Self {
        let content = message.get_some("content");
        let said = match content.map(Value::kind) {
            Some(Kind::Array) => {
                let parts = content.into_iter().flat_map(Value::elements);
                parts.map(Self::part).max().unwrap_or_default()
            }
            _ => Self::text(content),
        };
        let calls = ["tool_calls", "function_call", "images"];
        let calls = calls.map(|name| Self::Something.of(message.get_some(name)));
        let thoughts = ["reasoning_content", "reasoning", "reasoning_details"];
        let thoughts = thoughts.map(|name| Self::Aside.of(message.get_some(name)));
        let audio = message.get_some("audio").map(Self::audio);
        let others = calls.into_iter().chain(thoughts).chain(audio);
        others.fold(said, Self::max)
    }

    /// The content of a part of a message, by its type.
    pub(super) fn part(part: Value<'_>) -> Self {
        let kind = part.get("type").and_then(Value::string);
        match kind.as_deref().unwrap_or_default() {
            b"text" | b"output_text" | b"" => Self::text(part.get("text")),
            b"output_audio" => Self::audio(part),
            b"image" | b"image_url" | b"output_image" => Self::Something,
            _ => Self::Aside,
        }
    }

    fn audio(audio: Value<'_>) -> Self {
        let spoken = ["data", "transcript"].map(|name| Self::text(audio.get_some(name)));
        spoken.into_iter().fold(Self::Aside, Self::max)
    }
}
