//! Items of a request's input that make the request bypass: they can name state at the provider,
//! and bring tools.

use crate::Bypass;
use crate::json::{Kind, Value};
use crate::request::tools;

/// An item of a response's input.
pub(crate) fn response(item: Value<'_>) -> Option<Bypass> {
    if item.kind() != Kind::Object {
        return None;
    }
    // The type may be left out: of a message, which has a role, and of a reference to an item
    // that the provider holds, which has none.
    let refers = match item.get_some("type") {
        Some(kind) => kind.string().as_deref() == Some(b"item_reference"),
        None => item.get_some("role").is_none(),
    };
    if refers {
        return Some(Bypass::ProviderState);
    }
    let added = item.get_some("tools")?;
    let by_the_client = added.kind() == Kind::Array && added.elements().all(tools::openai);
    (!by_the_client).then_some(Bypass::HostedTool)
}

/// A message of Anthropic's.
pub(crate) fn anthropic(message: Value<'_>) -> Option<Bypass> {
    let mut blocks = message.get("content")?.elements();
    let hosted = blocks.any(|block| is(block, b"tool_addition") && !adds_for_the_client(block));
    hosted.then_some(Bypass::HostedTool)
}

/// Whether the client runs the tool that a block adds. A reference names a tool that is checked
/// where it is defined.
fn adds_for_the_client(block: Value<'_>) -> bool {
    block.get("tool").is_some_and(|tool| {
        is(tool, b"tool_reference")
            || is(tool, b"tool_definition") && tool.get("definition").is_some_and(tools::anthropic)
    })
}

fn is(value: Value<'_>, kind: &[u8]) -> bool {
    let named = value.get("type").and_then(Value::string);
    named.as_deref() == Some(kind)
}
