//! Anthropic's messages: an answer is whole when it has a good `stop_reason`; a stream of events
//! tells it in `message_delta` and ends with `message_stop`.
//!
//! `pause_turn` is no good reason: that turn goes on in another answer.

use super::{Rules, Said, index, objects};
use crate::Rejected;
use crate::answer::sse::Next;
use crate::json::Value;

/// Blocks of the model's own words, or its calls to the client. Any other block is, or may be, the
/// trace of a tool that ran at the provider.
const BLOCKS: [&[u8]; 4] = [b"redacted_thinking", b"text", b"thinking", b"tool_use"];

/// Judges an answer in one piece.
pub(super) fn whole(message: Value<'_>, rules: Rules) -> Result<(), Rejected> {
    if !is_of_type(message, b"message") {
        return Err(Rejected::Unexpected);
    }
    let mut said = Said::Nothing;
    for block in objects(message, "content")? {
        said = said.max(judge_block(block)?);
    }
    if !rules.ends(message.get_some("stop_reason"))? {
        return Err(Rejected::Unfinished);
    }
    is_something(said)
}

/// A streamed message.
#[derive(Default)]
pub(super) struct Message {
    begun: bool,
    /// The content of the blocks.
    said: Said,
    /// How many blocks have begun and ended.
    blocks: u32,
    /// Whether a block has begun and not ended. Blocks come one after the other.
    is_open: bool,
    /// A good reason to stop was given.
    stopped: bool,
}

impl Message {
    /// Judges one event.
    pub(super) fn event(&mut self, event: Value<'_>, rules: Rules) -> Result<Next, Rejected> {
        let kind = event.get("type").and_then(Value::string);
        let kind = kind.as_deref().ok_or(Rejected::Unexpected)?;
        let is_current = || index(event, 0).map(|index| index == self.blocks);
        match kind {
            b"message_start" if !self.begun => {
                let message = event.get("message").ok_or(Rejected::Unexpected)?;
                if !is_of_type(message, b"message") {
                    return Err(Rejected::Unexpected);
                }
                self.begun = true;
            }
            b"content_block_start" if self.stopped => return Err(Rejected::AfterEnd),
            b"content_block_start" if self.begun && !self.is_open && is_current()? => {
                let block = event.get("content_block").ok_or(Rejected::Unexpected)?;
                self.said = self.said.max(judge_block(block)?);
                self.is_open = true;
            }
            b"content_block_delta" if self.is_open && is_current()? => {
                let delta = event.get("delta").ok_or(Rejected::Unexpected)?;
                if is_of_type(delta, b"text_delta") {
                    self.said = self.said.max(Said::text(delta.get_some("text")));
                }
            }
            b"content_block_stop" if self.is_open && is_current()? => {
                self.is_open = false;
                self.blocks += 1;
            }
            b"message_delta" if self.begun && !self.is_open => {
                let delta = event.get("delta").ok_or(Rejected::Unexpected)?;
                self.stopped |= rules.ends(delta.get_some("stop_reason"))?;
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
        Ok(Next::More)
    }

    fn stop(&self) -> Result<Next, Rejected> {
        if self.is_open || !self.stopped {
            return Err(Rejected::Unfinished);
        }
        is_something(self.said).map(|()| Next::EndButForDone)
    }
}

/// A model may answer without content. Another try may have some.
fn is_something(said: Said) -> Result<(), Rejected> {
    match said {
        Said::Something => Ok(()),
        Said::Nothing | Said::Aside => Err(Rejected::Empty),
    }
}

/// The content of a block, or of the beginning of one.
fn judge_block(block: Value<'_>) -> Result<Said, Rejected> {
    let kind = block.get("type").and_then(Value::string);
    match kind.as_deref() {
        Some(b"text") => Ok(Said::text(block.get_some("text"))),
        Some(b"tool_use") => Ok(Said::Something),
        Some(kind) if BLOCKS.contains(&kind) => Ok(Said::Aside),
        _ => Err(Rejected::Unexpected),
    }
}

fn is_of_type(value: Value<'_>, kind: &[u8]) -> bool {
    let is = value.get("type").and_then(Value::string);
    is.as_deref() == Some(kind)
}
