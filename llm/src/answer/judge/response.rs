//! Responses: an answer is whole when its `status` is `completed`; a stream of events ends with
//! that response once more, in `response.completed`.

use super::{Endings, Rules, Said, object, objects};
use crate::Rejected;
use crate::answer::sse::Next;
use crate::json::Value;

/// Why a response is `incomplete`. None of the reasons is a good end.
const INCOMPLETE: Endings = Endings {
    finished: &[],
    cut_short: &["max_output_tokens", "max_tokens"],
    refused: &[],
};

/// Items of the model's own words, or its calls to the client. Any other item is, or may be, the
/// trace of a tool that the provider ran.
const ITEMS: [&[u8]; 4] = [
    b"message",
    b"reasoning",
    b"function_call",
    b"custom_tool_call",
];

/// Judges an answer in one piece.
pub(super) fn whole(response: Value<'_>, rules: Rules) -> Result<(), Rejected> {
    match judge(response, rules)? {
        Said::Something => Ok(()),
        Said::Nothing | Said::Aside => Err(Rejected::Empty),
    }
}

/// A streamed response.
#[derive(Default)]
pub(super) struct Response {
    /// The content of the items that are done.
    said: Said,
}

impl Response {
    /// Judges one event.
    pub(super) fn event(&mut self, event: Value<'_>, rules: Rules) -> Result<Next, Rejected> {
        let kind = event.get("type").and_then(Value::string);
        match kind.as_deref().ok_or(Rejected::Unexpected)? {
            b"response.completed" | b"response.incomplete" => {
                let response = event.get("response").ok_or(Rejected::Unexpected)?;
                let said = judge(object(response)?, rules)?;
                // Some servers do not repeat the content in the terminal event.
                match said.max(self.said) {
                    Said::Something => Ok(Next::EndButForDone),
                    Said::Nothing | Said::Aside => Err(Rejected::Empty),
                }
            }
            b"response.output_item.done" => {
                let item = event.get("item").ok_or(Rejected::Unexpected)?;
                self.said = self.said.max(judge_item(item, rules)?);
                Ok(Next::More)
            }
            b"response.refusal.delta" | b"response.refusal.done" => Err(Rejected::Refusal),
            b"response.failed" | b"error" => Err(Rejected::Error),
            // Pieces; `response.completed` has the whole.
            _ => Ok(Next::More),
        }
    }
}

/// Judges a response: the content of the items of its output.
fn judge(response: Value<'_>, rules: Rules) -> Result<Said, Rejected> {
    let status = response.get("status").and_then(Value::string);
    let details = response.get_some("incomplete_details");
    match status.as_deref().ok_or(Rejected::Unexpected)? {
        b"completed" if details.is_none() => {}
        b"completed" | b"incomplete" => {
            let reason = details.and_then(|details| details.get("reason"));
            rules.ending(reason.ok_or(Rejected::FinishReason)?, &INCOMPLETE)?;
        }
        b"failed" => return Err(Rejected::Error),
        b"in_progress" | b"queued" => return Err(Rejected::Unfinished),
        _ => return Err(Rejected::FinishReason),
    }
    let mut said = Said::Nothing;
    for item in objects(response, "output")? {
        said = said.max(judge_item(item, rules)?);
    }
    Ok(said)
}

fn judge_item(item: Value<'_>, rules: Rules) -> Result<Said, Rejected> {
    let kind = item.get("type").and_then(Value::string);
    let kind = kind.ok_or(Rejected::Unexpected)?;
    if !ITEMS.contains(&&*kind) {
        return Err(Rejected::Unexpected);
    }
    if let Some(status) = item.get_some("status") {
        match status.string().as_deref() {
            Some(b"completed") => {}
            // The item that the limit cut short.
            Some(b"incomplete") if rules.allow_length => {}
            _ => return Err(Rejected::Unfinished),
        }
    }
    match &*kind {
        b"function_call" | b"custom_tool_call" => return Ok(Said::Something),
        b"message" => {}
        _ => return Ok(Said::Aside),
    }
    let mut said = Said::Nothing;
    for part in objects(item, "content")? {
        let kind = part.get("type").and_then(Value::string);
        if kind.as_deref() == Some(b"refusal") || part.get_some("refusal").is_some() {
            return Err(Rejected::Refusal);
        }
        said = said.max(Said::part(part));
    }
    Ok(said)
}
