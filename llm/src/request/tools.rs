//! Which tools the client runs. A tool that the provider runs makes an answer depend on its results
//! at that moment.

use crate::json::{Kind, Value};

/// OpenAI's: tools of any other type, or without a type, search, fetch or execute.
pub(crate) fn openai(tool: Value<'_>) -> bool {
    let kind = tool.get("type").and_then(Value::string);
    kind.is_some_and(|kind| matches!(&*kind, b"function" | b"custom"))
}

/// Anthropic's: tools that the client defines, without a type or with the type `custom`, and tools
/// that Anthropic defines but the client runs. All others run at Anthropic: web search, web fetch,
/// code execution, tool search.
pub(crate) fn anthropic(tool: Value<'_>) -> bool {
    const BY_THE_CLIENT: [&[u8]; 5] = [
        b"bash_",
        b"browser_",
        b"computer_",
        b"memory_",
        b"text_editor_",
    ];
    if tool.kind() != Kind::Object {
        return false;
    }
    let Some(kind) = tool.get_some("type") else {
        return true;
    };
    kind.string().is_some_and(|kind| {
        let is_dated = |name: &&[u8]| kind.starts_with(name);
        &*kind == b"custom" || BY_THE_CLIENT.iter().any(is_dated)
    })
}

/// Google's: a tool is an object with a member for each kind that it has; all but declarations of
/// functions search, fetch or execute at Google.
pub(crate) fn google(tool: Value<'_>) -> bool {
    let by_the_client = |(name, value): (Option<Value<'_>>, Value<'_>)| {
        let name = name.map(Value::name).unwrap_or_default();
        value.kind() == Kind::Null
            || matches!(&*name, b"functionDeclarations" | b"function_declarations")
    };
    tool.kind() == Kind::Object && tool.members().all(by_the_client)
}
