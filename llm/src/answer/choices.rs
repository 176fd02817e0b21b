//! Chat completions and completions: choices, each with its `finish_reason`; a stream of them
//! ends with `[DONE]`.

use super::{Endings, Ends, Rules, index, objects};
use crate::Rejected;
use crate::api::Content;
use crate::json::{Kind, Value};

const ENDINGS: Endings = Endings {
    finished: &["stop", "tool_calls", "function_call"],
    cut_short: &["length"],
    refused: &["refusal"],
};

/// Judges an answer in one piece.
pub(super) fn whole(root: Value<'_>, content: Content, rules: Rules) -> Result<(), Rejected> {
    let mut choices = objects(root, "choices")?.peekable();
    if choices.peek().is_none() {
        return Err(Rejected::Unexpected);
    }
    for choice in choices {
        let content = match content {
            Content::Message => choice
                .get("message")
                .filter(|message| message.kind() == Kind::Object),
            Content::Text => choice.get("text").filter(|text| text.string().is_some()),
        };
        if !judge(choice, content.ok_or(Rejected::Unexpected)?, rules)? {
            return Err(Rejected::Unfinished);
        }
    }
    Ok(())
}

/// The choices of a stream.
#[derive(Default)]
pub(super) struct Choices(Ends);

impl Choices {
    /// Judges one chunk. One without any choice tells the usage or what the prompt's filter says.
    pub(super) fn chunk(&mut self, root: Value<'_>, rules: Rules) -> Result<(), Rejected> {
        for choice in objects(root, "choices")? {
            let index = index(choice)?;
            // The last part of a choice may come without a delta.
            let ends = judge(choice, choice.get("delta").unwrap_or(choice), rules)?;
            self.0.note(index, ends)?;
        }
        Ok(())
    }

    /// Judges the end of the stream.
    pub(super) fn end(&self) -> Result<(), Rejected> {
        if self.0.are_all() {
            Ok(())
        } else {
            Err(Rejected::Unfinished)
        }
    }
}

/// Judges a choice, or a part of one, and says whether it ends there.
fn judge(choice: Value<'_>, content: Value<'_>, rules: Rules) -> Result<bool, Rejected> {
    if choice.get_some("error").is_some() {
        return Err(Rejected::Error);
    }
    if let Some(refusal) = content.get_some("refusal")
        && (refusal.kind() != Kind::Spelled || !refusal.spelling().is_empty())
    {
        return Err(Rejected::Refusal);
    }
    if content.get("annotations").is_some_and(cites_the_web) {
        return Err(Rejected::Unexpected);
    }
    match choice.get_some("finish_reason") {
        Some(reason) => rules.ending(reason, &ENDINGS).map(|()| true),
        None => Ok(false),
    }
}

/// Whether a message shows that it was searched for, though the request and the model's name said
/// nothing of the kind.
fn cites_the_web(annotations: Value<'_>) -> bool {
    annotations.elements().any(|annotation| {
        let kind = annotation.get("type").and_then(Value::string);
        kind.as_deref() == Some(b"url_citation")
    })
}
