//! Traces of the provider's work on the way to an answer: it searched the web, read its own files,
//! ran code. The request need not show that: a model's name, a preset or a setting at the provider
//! is enough. The same request finds something else tomorrow.
//!
//! One list has the names of all providers and gateways. They are looked for anywhere in the
//! answer: gateways pass on fields that they do not know, and move them. The client's own tools and
//! schemas are not searched, nor texts that clients bring along to be cited.

use super::expiry::{self, Expiry, OPAQUE};
use crate::Rejected;
use crate::json::{Kind, Value};
use crate::name_set::{NameSet, PartSet};

/// Looks at a document of an answer, and at everything in it. `expiry` collects the end that it
/// states.
pub(super) fn look(value: Value<'_>, expiry: &mut Expiry) -> Result<(), Rejected> {
    for (key, inside) in value.members() {
        if let Some(key) = key {
            let name = &*key.name();
            if OPAQUE.has(name) {
                continue;
            }
            if is_trace(name, inside) {
                return Err(Rejected::ProviderWork);
            }
            if is_filter(name) && inside.get_some("error").is_some_and(holds) {
                return Err(Rejected::Error);
            }
            expiry::note(name, inside, expiry)?;
        }
        // As deep as a document may be nested.
        if matches!(inside.kind(), Kind::Array | Kind::Object) {
            look(inside, expiry)?;
        }
    }
    Ok(())
}

/// Whether a value holds anything: a count of 0 is nothing, and so is a list of nothing.
pub(super) fn holds(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Null | Kind::False => false,
        Kind::True | Kind::Numbers => true,
        Kind::Number => {
            let mantissa = value.spelling().split(|byte| matches!(byte, b'e' | b'E'));
            let mut digits = mantissa.take(1).flatten();
            digits.any(|digit| matches!(digit, b'1'..=b'9'))
        }
        Kind::String => !value.spelling().is_empty(),
        Kind::Array | Kind::Object => value.members().any(|(_, inside)| holds(inside)),
    }
}

fn is_trace(name: &[u8], value: Value<'_>) -> bool {
    match name {
        b"type" => value.string().is_some_and(|kind| is_hosted(&kind)),
        b"annotations" | b"annotation" => any_of(value, |it| {
            // OpenRouter's: a file of the request's, as it was read.
            holds(it) && !is_of(it, &[b"file"])
        }),
        // Anthropic's point into documents that the request has.
        b"citations" | b"citation" => any_of(value, |it| holds(it) && !is_of(it, &DOCUMENTS)),
        _ => (TRACES.has(name) || FRAGMENTS.is_in(name)) && holds(value),
    }
}

/// Places in documents that came with the request.
const DOCUMENTS: [&[u8]; 4] = [
    b"char_location",
    b"content_block_location",
    b"page_location",
    b"search_result_location",
];

/// Whether any element of a list, of a list of lists, or the value itself, is such a one.
fn any_of(value: Value<'_>, is_one: fn(Value<'_>) -> bool) -> bool {
    match value.kind() {
        Kind::Array => value.elements().any(|inside| any_of(inside, is_one)),
        _ => is_one(value),
    }
}

fn is_of(value: Value<'_>, kinds: &[&[u8]]) -> bool {
    let kind = value.get("type").and_then(Value::string);
    kind.is_some_and(|kind| kinds.contains(&&*kind))
}

/// Members that exist with content only if the provider did more than generate.
static TRACES: NameSet<41> = NameSet::new([
    // Perplexity.
    b"related_questions",
    b"reasoning_steps",
    b"citation_tokens",
    b"search_context_size",
    b"origin_url",
    b"thumbnail_url",
    // xAI.
    b"num_sources_used",
    // State at the provider: the answer builds on it, although the request does not.
    b"previous_response_id",
    b"conversation",
    // Anthropic.
    b"container",
    // Gemini, in its own spelling and in that of gateways.
    b"urlContextMetadata",
    b"url_context_metadata",
    b"vertex_ai_url_context_metadata",
    b"toolUsePromptTokenCount",
    b"tool_use_prompt_token_count",
    b"executableCode",
    b"executable_code",
    b"codeExecutionResult",
    b"code_execution_result",
    b"toolCall",
    b"toolResponse",
    // Groq's compound systems.
    b"executed_tools",
    b"usage_breakdown",
    // Qwen, Ernie, Hunyuan, GLM, Doubao.
    b"search_info",
    b"search_count",
    b"plugins",
    b"x_tools",
    b"tool_usage",
    b"tool_usage_details",
    b"references",
    // Azure "on your data", and servers that look things up before they ask a model.
    b"all_retrieved_documents",
    b"retrieved_documents",
    b"retrieved_context",
    b"retrieval_metadata",
    b"source_documents",
    b"sources",
    b"web_results",
    b"web_sources",
    // Tools of other servers that the provider called.
    b"mcp_calls",
    b"mcp_list_tools",
    b"mcp_tool_calls",
]);

/// Parts of such names, with any text around them.
static FRAGMENTS: PartSet<14> = PartSet::new([
    b"web_search",
    b"webSearch",
    b"web_fetch",
    b"search_quer",
    b"searchQuer",
    b"search_result",
    b"searchResult",
    b"grounding",
    b"server_tool",
    b"server_side_tool",
    b"file_search",
    b"x_search_call",
    b"document_search_call",
    b"code_interpreter",
]);

/// Whether the type of an item, a block, an annotation or an event belongs to a tool that ran at
/// the provider.
fn is_hosted(kind: &[u8]) -> bool {
    static PARTS: PartSet<14> = PartSet::new([
        b"code_execution",
        b"code_interpreter",
        b"collections_search",
        b"container_upload",
        b"executable_code",
        b"file_search",
        b"image_generation",
        b"tool.execution",
        b"tool_reference",
        b"tool_search",
        b"url_citation",
        b"web_fetch",
        b"web_search",
        b"x_search",
    ]);
    kind.starts_with(b"server_tool")
        || kind.starts_with(b"mcp_")
        || kind.starts_with(b"response.mcp_")
        || kind.ends_with(b"_tool_result")
        || PARTS.is_in(kind)
}

/// Azure's results of its content filter for a prompt or an answer.
fn is_filter(name: &[u8]) -> bool {
    matches!(
        name,
        b"content_filter_result" | b"content_filter_results" | b"content_filter_raw"
    )
}
