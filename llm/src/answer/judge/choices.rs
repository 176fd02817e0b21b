//! Chat completions and completions: choices, each with its `finish_reason`; a stream of them
//! ends with `[DONE]`.

use super::{Parts, Rules, Said, index, objects};
use crate::Rejected;
use crate::api::Content;
use crate::json::{Kind, Value};

/// Judges an answer in one piece.
pub(super) fn whole(root: Value<'_>, content: Content, rules: Rules) -> Result<(), Rejected> {
    if !is_of(root, content) {
        return Err(Rejected::Unexpected);
    }
    let mut parts = Parts::default();
    for (place, choice) in objects(root, "choices")?.enumerate() {
        let (said, ends) = match content {
            Content::Message => {
                let message = choice.get("message").filter(is_object);
                judge(choice, message.ok_or(Rejected::Unexpected)?, content, rules)?
            }
            Content::Text
                if choice
                    .get("text")
                    .is_none_or(|text| text.string().is_none()) =>
            {
                return Err(Rejected::Unexpected);
            }
            Content::Text => judge(choice, choice, content, rules)?,
        };
        let part = parts.whole(index(choice, place)?);
        (part.said, part.has_ended) = (said, ends);
    }
    match objects(root, "choices")?.next() {
        None => Err(Rejected::Unexpected),
        Some(_) => parts.end(rules),
    }
}

/// The choices of a stream.
pub(super) struct Choices {
    content: Content,
    parts: Parts,
}

impl Choices {
    pub(super) fn new(content: Content) -> Self {
        Self {
            content,
            parts: Parts::default(),
        }
    }

    /// Judges one chunk. A chunk without choices has the usage, or the results of the prompt's
    /// filter.
    pub(super) fn chunk(&mut self, root: Value<'_>, rules: Rules) -> Result<(), Rejected> {
        if !is_of(root, self.content) {
            return Err(Rejected::Unexpected);
        }
        if root.get_some("choices").is_none() {
            return match is_aside(root) {
                true => Ok(()),
                false => Err(Rejected::Unexpected),
            };
        }
        for (place, choice) in objects(root, "choices")?.enumerate() {
            let index = index(choice, place)?;
            // The last part of a choice may come without a delta.
            let held = match (self.content, choice.get_some("delta")) {
                (Content::Message, Some(delta)) if is_object(&delta) => delta,
                (Content::Message, None) if choice.get_some("message").is_none() => choice,
                (Content::Text, None) => choice,
                _ => return Err(Rejected::Unexpected),
            };
            let (said, ends) = judge(choice, held, self.content, rules)?;
            let part = self.parts.streamed(index)?;
            // Some clients stop reading a choice at its end, others do not.
            if part.has_ended && said != Said::Nothing {
                return Err(Rejected::AfterEnd);
            }
            part.said = part.said.max(said);
            part.has_ended |= ends;
        }
        Ok(())
    }

    /// Judges the end of the stream.
    pub(super) fn end(&self, rules: Rules) -> Result<(), Rejected> {
        self.parts.end(rules)
    }
}

/// Whether a document may be one of this API's. Its label alone does not tell: Text Generation
/// Inference has called chunks of chats `text_completion`.
fn is_of(root: Value<'_>, content: Content) -> bool {
    let label = root.get("object").and_then(Value::string);
    let is_chat = label.is_some_and(|label| label.starts_with(b"chat."));
    content == Content::Message || !is_chat
}

/// Whether clients pass over a chunk without choices: the usage (Mistral at Vertex AI, vLLM's
/// forks, Bedrock), or the results of Azure's filter for the prompt.
fn is_aside(root: Value<'_>) -> bool {
    let label = root.get("object").and_then(Value::string);
    let labels: [&[u8]; 2] = [b"chat.completion", b"text_completion"];
    let is_labelled = label.is_some_and(|label| labels.iter().any(|it| label.starts_with(it)));
    let names = ["usage", "prompt_filter_results", "x_groq"];
    is_labelled || names.iter().any(|name| root.get_some(name).is_some())
}

fn is_object(value: &Value<'_>) -> bool {
    value.kind() == Kind::Object
}

/// Judges a choice, or a piece of one, with its message in `held`: its content, and whether it ends
/// there.
fn judge(
    choice: Value<'_>,
    held: Value<'_>,
    content: Content,
    rules: Rules,
) -> Result<(Said, bool), Rejected> {
    if choice.get_some("error").is_some() || held.get_some("error").is_some() {
        return Err(Rejected::Error);
    }
    if let Some(refusal) = held.get_some("refusal")
        && (refusal.kind() != Kind::String || !refusal.spelling().is_empty())
    {
        return Err(Rejected::Refusal);
    }
    let is_text = |text: Value<'_>| text.string().is_some();
    let said = match content {
        Content::Message if choice.get_some("text").is_some_and(is_text) => {
            return Err(Rejected::Unexpected);
        }
        Content::Message => Said::message(held),
        Content::Text => {
            let is_text = held.get_some("text").is_none_or(is_text);
            if !is_text || held.get_some("message").is_some() {
                return Err(Rejected::Unexpected);
            }
            Said::text(held.get_some("text"))
        }
    };
    Ok((said, rules.ends(choice.get_some("finish_reason"))?))
}
