//! Anthropic's messages: an answer is whole when it has a good `stop_reason`; a stream of events
//! tells it in `message_delta` and ends with `message_stop`.

use super::{Endings, Rules, index, objects};
use crate::Rejected;
use crate::json::Value;
use crate::sse::Flow;

/// `pause_turn` is not among them: that turn goes on in another answer.
const ENDINGS: Endings = Endings {
    finished: &["end_turn", "stop_sequence", "tool_use"],
    cut_short: &["max_tokens", "model_context_window_exceeded"],
    refused: &["refusal"],
};

/// What a model says and what it asks the client to do. Anything else is the trace of a tool
/// that ran at the provider, or is not known to be none.
const BLOCKS: [&[u8]; 4] = [b"redacted_thinking", b"text", b"thinking", b"tool_use"];

/// Judges an answer in one piece.
pub(super) fn whole(message: Value<'_>, rules: Rules) -> Result<(), Rejected> {
    if !is_of_type(message, b"message") {
        return Err(Rejected::Unexpected);
    }
    let mut count = 0;
    for block in objects(message, "content")? {
        judge_block(block)?;
        count += 1;
    }
    match message.get_some("stop_reason") {
        Some(reason) => rules.ending(reason, &ENDINGS)?,
        None => return Err(Rejected::Unfinished),
    }
    // It happens that a model says nothing. Asked again, it may.
    match count {
        0 => Err(Rejected::Unexpected),
        _ => Ok(()),
    }
}

/// A streamed message.
#[derive(Default)]
pub(super) struct Message {
    begun: bool,
    /// A block was there from begin to end.
    has_block: bool,
    /// The block that has begun and not ended. They come one after the other.
    open: Option<u32>,
    /// A good reason to stop was given.
    stopped: bool,
}

impl Message {
    /// Judges one event.
    pub(super) fn event(&mut self, event: Value<'_>, rules: Rules) -> Result<Flow, Rejected> {
        let kind = event.get("type").and_then(Value::string);
        let kind = kind.as_deref().ok_or(Rejected::Unexpected)?;
        match kind {
            b"message_start" if !self.begun => {
                let message = event.get("message").ok_or(Rejected::Unexpected)?;
                if !is_of_type(message, b"message") {
                    return Err(Rejected::Unexpected);
                }
                self.begun = true;
            }
            b"content_block_start" if self.begun && self.open.is_none() => {
                judge_block(event.get("content_block").ok_or(Rejected::Unexpected)?)?;
                self.open = Some(index(event)?);
            }
            b"content_block_delta" if self.open == Some(index(event)?) => {}
            b"content_block_stop" if self.open == Some(index(event)?) => {
                self.open = None;
                self.has_block = true;
            }
            b"message_delta" if self.begun && self.open.is_none() => {
                let delta = event.get("delta").ok_or(Rejected::Unexpected)?;
                if let Some(reason) = delta.get_some("stop_reason") {
                    rules.ending(reason, &ENDINGS)?;
                    self.stopped = true;
                }
            }
            b"message_stop" => return self.stop(),
            b"error" => return Err(Rejected::Error),
            // Out of order.
            b"message_start"
            | b"content_block_start"
            | b"content_block_delta"
            | b"content_block_stop"
            | b"message_delta" => return Err(Rejected::Unexpected),
            // `ping`, and what may be added: Anthropic asks clients to pass over it.
            _ => {}
        }
        Ok(Flow::More)
    }

    fn stop(&self) -> Result<Flow, Rejected> {
        if self.open.is_some() || !self.stopped {
            return Err(Rejected::Unfinished);
        }
        if !self.has_block {
            return Err(Rejected::Unexpected);
        }
        Ok(Flow::EndButForDone)
    }
}

fn judge_block(block: Value<'_>) -> Result<(), Rejected> {
    if BLOCKS.iter().any(|known| is_of_type(block, known)) {
        Ok(())
    } else {
        Err(Rejected::Unexpected)
    }
}

fn is_of_type(value: Value<'_>, kind: &[u8]) -> bool {
    let is = value.get("type").and_then(Value::string);
    is.as_deref() == Some(kind)
}
