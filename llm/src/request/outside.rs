//! The parts of a request that make its answer depend on more than the request: a search, a tool
//! that the provider runs, or something that the provider keeps.
//!
//! Gateways and providers add such fields, models and paths all the time. So names are judged by
//! their words, and lists hold only names without such a word. A wrong judgement makes requests
//! bypass without need, which costs a call and not an answer. An operator can correct it
//! (`keyed_fields`, `[[path]]`), and can add names that it misses (`bypass_fields`,
//! `bypass_models`).

use crate::Bypass;
use crate::json::{Kind, Value};
use crate::name_set::NameSet;

/// Words of fields that ask for a search.
static SEARCHES: NameSet<18> = NameSet::new([
    b"browse",
    b"browser",
    b"browsing",
    b"citation",
    b"citations",
    b"crawl",
    b"deepsearch",
    b"enhancement",
    b"grounding",
    b"internet",
    b"online",
    b"research",
    b"search",
    b"searches",
    b"searching",
    b"searx",
    b"web",
    b"websearch",
]);

/// Words of fields that have the provider run something.
static RUNS: NameSet<9> = NameSet::new([
    b"compound",
    b"connector",
    b"connectors",
    b"extensions",
    b"mcp",
    b"plugin",
    b"plugins",
    b"skill",
    b"skills",
]);

/// Words of fields that name state at the provider, which may change.
static KEPT: NameSet<32> = NameSet::new([
    b"agent",
    b"agents",
    b"app",
    b"assistant",
    b"assistants",
    b"bot",
    b"cached",
    b"character",
    b"chatbot",
    b"collection",
    b"collections",
    b"conversation",
    b"conversations",
    b"dataset",
    b"datasets",
    b"flow",
    b"kb",
    b"knowledge",
    b"knowledgebase",
    b"memories",
    b"memory",
    b"persona",
    b"preset",
    b"presets",
    b"rag",
    b"retrieval",
    b"retriever",
    b"session",
    b"thread",
    b"vector",
    b"workflow",
    b"workspace",
]);

/// Fields of that kind without such a word.
const NAMES: &[(&str, Bypass)] = &[
    ("cache_id", Bypass::ProviderState),
    ("chatId", Bypass::ProviderState),
    ("chat_id", Bypass::ProviderState),
    ("container", Bypass::ProviderState),
    ("context_cache", Bypass::ProviderState),
    ("context_id", Bypass::ProviderState),
    ("file_ids", Bypass::ProviderState),
    ("files", Bypass::ProviderState),
    ("promptId", Bypass::ProviderState),
    ("prompt_id", Bypass::ProviderState),
    ("prompt_template_id", Bypass::ProviderState),
    ("prompt_variables", Bypass::ProviderState),
    ("prompt_version", Bypass::ProviderState),
    ("template_id", Bypass::ProviderState),
    ("tool_ids", Bypass::HostedTool),
    ("tool_servers", Bypass::HostedTool),
];

/// Fields that have one of the words and mean something else.
const INSIDE: &[&str] = &["use_beam_search"];

/// Fields that hold a client library's additions for the provider: their members are fields, too.
const HOLD_FIELDS: &[&str] = &[
    "extra",
    "extra_body",
    "extra_params",
    "features",
    "google",
    "options",
    "parameters",
    "providerOptions",
    "provider_options",
    "venice_parameters",
    "vertex",
];

/// How deep such fields are looked into: `extra_body.google.cached_content` is the third.
const FIELDS_DEPTH_MAX: usize = 4;

/// The reason for a bypass by an otherwise unknown field with this value.
pub(crate) fn field(name: &[u8], value: Value<'_>) -> Option<Bypass> {
    field_at(name, value, 1)
}

fn field_at(name: &[u8], value: Value<'_>, depth: usize) -> Option<Bypass> {
    let is = |other: &&str| other.as_bytes() == name;
    if depth < FIELDS_DEPTH_MAX
        && value.kind() == Kind::Object
        && (depth > 1 || HOLD_FIELDS.iter().any(&is))
    {
        let mut members = value.members();
        let found = members.find_map(|(key, value)| {
            let name = key.map(Value::name).unwrap_or_default();
            field_at(&name, value, depth + 1)
        });
        if found.is_some() {
            return found;
        }
    }
    if is_off(value) || INSIDE.iter().any(&is) {
        return None;
    }
    if let Some((_, bypass)) = NAMES.iter().find(|(other, _)| is(other)) {
        return Some(*bypass);
    }
    let mut told = words(name).filter_map(|word| match () {
        () if SEARCHES.has_in_any_case(word) => Some(Bypass::WebSearch),
        () if RUNS.has_in_any_case(word) => Some(Bypass::HostedTool),
        () if KEPT.has_in_any_case(word) => Some(Bypass::ProviderState),
        () => None,
    });
    told.next()
}

/// Whether a value switches its field off: null, false, an empty list, a word for off, or an object
/// with its own switch set to off.
pub(crate) fn is_off(value: Value<'_>) -> bool {
    const OFF: [&[u8]; 8] = [
        b"",
        b"disable",
        b"disabled",
        b"false",
        b"never",
        b"no",
        b"none",
        b"off",
    ];
    match value.kind() {
        Kind::Null | Kind::False => true,
        Kind::Number => value.spelling() == b"0",
        Kind::Array => value.elements().next().is_none(),
        Kind::String => OFF.contains(&&*value.name()),
        Kind::Object => ["enable", "enabled", "type"]
            .iter()
            .find_map(|name| value.get(name))
            .is_some_and(|switch| switch.kind() != Kind::Object && is_off(switch)),
        Kind::True | Kind::Numbers => false,
    }
}

/// Words in the names of models that look things up while they answer: OpenAI's `search-preview`
/// and `deep-research`, Perplexity's `sonar`, OpenRouter's `:online`, Groq's `compound`, Jina's
/// `deepsearch`, Exa's and Brave's.
static SEARCHING: NameSet<17> = NameSet::new([
    b"brave",
    b"browse",
    b"browsing",
    b"compound",
    b"deepresearch",
    b"deepsearch",
    b"exa",
    b"fastgpt",
    b"grounded",
    b"grounding",
    b"internet",
    b"metaso",
    b"online",
    b"research",
    b"search",
    b"sonar",
    b"websearch",
]);

/// Words in the names of models that are kept by the provider, with a prompt, tools or memory of
/// their own: agents, OpenRouter's `@preset/…`, ChatGPT's GPTs.
static KEPT_MODELS: NameSet<9> = NameSet::new([
    b"agent",
    b"agents",
    b"asst",
    b"bot",
    b"gizmo",
    b"openclaw",
    b"preset",
    b"presets",
    b"workflow",
]);

/// Why a request for a model of this name bypasses.
pub(crate) fn model(name: &[u8]) -> Option<Bypass> {
    // The rest of the name of a fine-tuned model is the user's own.
    let name = match name.strip_prefix(b"ft:") {
        Some(rest) => rest.split(|&byte| byte == b':').next().unwrap_or(rest),
        None => name,
    };
    let mut words = name.split(|byte| !byte.is_ascii_alphanumeric());
    words.find_map(|word| {
        if SEARCHING.has_in_any_case(word) {
            return Some(Bypass::WebSearch);
        }
        KEPT_MODELS
            .has_in_any_case(word)
            .then_some(Bypass::ProviderState)
    })
}

/// Segments of paths beneath which an application answers that the provider keeps: a prompt, an
/// agent, a conversation, a store of knowledge.
static KEPT_PATHS: NameSet<25> = NameSet::new([
    b"agent",
    b"agents",
    b"agents_openai",
    b"ai-search",
    b"application",
    b"applications",
    b"apps",
    b"assistant",
    b"assistants",
    b"autorag",
    b"bot",
    b"bots",
    b"chatbots",
    b"chatflows",
    b"chats_openai",
    b"conversations",
    b"knowledge-bases",
    b"presets",
    b"prompt",
    b"prompts",
    b"rag",
    b"rags",
    b"threads",
    b"workflow",
    b"workflows",
]);

/// Whether an application answers at a path, given in normal form, rather than a model alone.
pub(crate) fn is_kept_at(path: &str) -> bool {
    let mut segments = path.as_bytes().split(|&byte| byte == b'/');
    segments.any(|segment| KEPT_PATHS.has_in_any_case(segment))
}

/// The words of a name: `enable_web_search` and `enableWebSearch` have three each.
fn words(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = name.split(|byte| !byte.is_ascii_alphanumeric());
    parts.flat_map(|part| {
        part.chunk_by(|before, after| !(before.is_ascii_lowercase() && after.is_ascii_uppercase()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_into_words() {
        let check = |name: &str, expected: &[&str]| {
            let words: alloc::vec::Vec<&[u8]> = words(name.as_bytes()).collect();
            let expected: alloc::vec::Vec<&[u8]> =
                expected.iter().map(|it| it.as_bytes()).collect();
            assert_eq!(words, expected, "{name}");
        };
        check("enable_web-search", &["enable", "web", "search"]);
        check("enableWebSearch", &["enable", "Web", "Search"]);
        check("sessionID", &["session", "ID"]);
        check("temperature", &["temperature"]);
    }
}
