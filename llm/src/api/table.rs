//! The table of the APIs.
//!
//! A row lists only exceptions to the general rule, which is that every field of the request
//! changes the answer.

use super::objects::{self, Known};
use crate::Bypass;
use crate::answer::usage;
use crate::json::Value;
use crate::request::{items, tools};

/// The exceptions of one API.
pub(crate) struct Row {
    pub(super) json_name: &'static str,
    pub(super) sse_name: &'static str,
    pub(super) place: Place,
    pub(crate) query: Query,
    /// The top-level fields of a request that are treated specially.
    pub(super) fields: &'static [&'static [(&'static str, Field)]],
    /// Whether the provider stores the answer unless the request says `"store": false`.
    pub(crate) stored_by_default: bool,
    /// The objects in a request.
    pub(crate) top: &'static Known,
    /// The hint to the provider's own prompt cache that a content block may carry. It is out of the
    /// key.
    pub(crate) hint: &'static str,
    /// Where a request may name its temperature, one member inside the other.
    pub(crate) temperature_at: &'static [&'static [&'static str]],
    /// How its answers show that they are whole and good.
    pub(crate) answer: Answer,
    /// The names of token counts in its answers.
    pub(crate) usage: &'static usage::Names,
    /// The shape of its errors.
    pub(crate) error: ErrorShape,
}

/// Where an API answers.
pub(super) enum Place {
    /// At paths that end in one of these, with the slash before it.
    End(&'static [&'static str]),
    /// At a model's path, as a method of it, with the colon before it.
    Method(&'static str),
}

/// The meaning of a request's query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Query {
    /// Part of the key as a whole.
    Counts,
    /// Google's: credentials and the form of the answer, which may be a stream or not. The rest
    /// counts.
    Google { streams: bool },
}

/// How the answers of an API are judged, each by its module in `answer/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Choices, each with its `finish_reason`, and the content of a choice.
    Choices(Content),
    /// A response with its `status`.
    Response,
    /// Vectors, one for each input.
    Vectors(VectorsAt),
    /// A message with its `stop_reason`.
    Message,
    /// Candidates, each with its `finishReason`, in one piece or in several.
    Candidates(Pieces),
}

/// Where the vectors of an answer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VectorsAt {
    /// In `data`, each under `embedding`.
    Data,
    /// One, in `embedding`, under `values`.
    Embedding,
    /// In `embeddings`, each under `values`.
    Embeddings,
}

/// The number of documents in an answer that is no stream of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    One,
    /// An array of them.
    Many,
}

/// The content of a choice in an answer of one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// A `message` object.
    Message,
    /// A `text`.
    Text,
}

/// The shape of an API's errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorShape {
    OpenAi,
    Anthropic,
    Google,
}

/// How a top-level field of a request is treated. Null counts as absent for all of them.
#[derive(Clone, Copy)]
pub(crate) enum Field {
    /// Cannot change the answer: out of the key.
    Ignored,
    /// Names the user or the purpose. Out of the key if the provider is known to ignore it: a
    /// gateway may route by it, and an agent remember by it.
    Names,
    /// Options of the provider's prompt cache: out of the key as far as they are known, and bypasses
    /// if they ask for no answer.
    CacheOptions,
    /// A boolean that chooses the representation, and is in the key as that.
    Stream,
    /// Out of the key when false; anything else bypasses.
    MustBeFalse(Bypass),
    /// In the key, and bypasses unless false.
    MayBeFalse(Bypass),
    /// Bypasses, whatever its value.
    Refused(Bypass),
    /// In the key, and bypasses when it names a model, or several, that searches or is kept by the
    /// provider.
    Model,
    /// In the key, and bypasses unless the client runs every tool.
    Tools(fn(Value<'_>) -> bool),
    /// In the key, and bypasses for a reason that its items give.
    Items(fn(Value<'_>) -> Option<Bypass>),
}

impl Field {
    /// Whether an operator can say that the field is ordinary.
    pub(crate) fn yields(self) -> bool {
        matches!(
            self,
            Self::Ignored | Self::Names | Self::MayBeFalse(_) | Self::Refused(_)
        )
    }
}

impl Place {
    /// Whether the API answers at a path, given without query.
    pub(super) fn is_at(&self, path: &str) -> bool {
        match self {
            Self::End(ends) => ends.iter().any(|end| path.ends_with(end)),
            Self::Method(method) => path.strip_suffix(method).is_some_and(is_model),
        }
    }
}

/// The versions under which Gemini answers, `v1beta1` at Vertex AI.
const VERSIONS: [&str; 4] = ["v1", "v1alpha", "v1beta", "v1beta1"];

/// Whether a path names one of Google's models, such as `/v1beta/models/gemini-2.5-flash`.
fn is_model(path: &str) -> bool {
    let mut segments = path.rsplit('/');
    let name = segments.next().unwrap_or_default();
    let collection = segments.next().unwrap_or_default();
    !name.is_empty()
        && !name.contains([':', '%'])
        && matches!(collection, "models" | "tunedModels")
        && segments.any(|segment| VERSIONS.contains(&segment))
}

/// Mistral fills in the middle at `/fim/completions`: the request is a completion's, with a prompt and
/// a suffix, and the answer a chat's.
pub(super) const CHAT_COMPLETIONS: Row = Row {
    json_name: "chat-completions",
    sse_name: "chat-completions+sse",
    place: Place::End(&["/chat/completions", "/fim/completions"]),
    query: Query::Counts,
    fields: &[OPENAI, SEARCHES],
    stored_by_default: false,
    top: &objects::OPENAI,
    hint: OPENAI_HINT,
    temperature_at: &[&["temperature"]],
    answer: Answer::Choices(Content::Message),
    usage: &usage::COMPLETIONS,
    error: ErrorShape::OpenAi,
};

pub(super) const COMPLETIONS: Row = Row {
    json_name: "completions",
    sse_name: "completions+sse",
    place: Place::End(&["/completions"]),
    query: Query::Counts,
    fields: &[OPENAI, SEARCHES],
    stored_by_default: false,
    top: &objects::OPENAI,
    hint: OPENAI_HINT,
    temperature_at: &[&["temperature"]],
    answer: Answer::Choices(Content::Text),
    usage: &usage::COMPLETIONS,
    error: ErrorShape::OpenAi,
};

/// Azure has it at `/openai/responses` and `/openai/v1/responses`.
pub(super) const RESPONSES: Row = Row {
    json_name: "responses",
    sse_name: "responses+sse",
    place: Place::End(&["/responses"]),
    query: Query::Counts,
    fields: &[OPENAI, SEARCHES, RESPONSES_FIELDS],
    stored_by_default: true,
    top: &objects::RESPONSES,
    hint: OPENAI_HINT,
    temperature_at: &[&["temperature"]],
    answer: Answer::Response,
    usage: &usage::RESPONSES,
    error: ErrorShape::OpenAi,
};

/// `embeddings`, for a batch and for the requests of its texts.
pub(super) const EMBEDDINGS: Row = Row {
    json_name: "embeddings",
    sse_name: "embeddings+sse",
    place: Place::End(&["/embeddings"]),
    query: Query::Counts,
    fields: &[&[("user", Field::Names)]],
    stored_by_default: false,
    top: &objects::OPENAI,
    hint: OPENAI_HINT,
    temperature_at: &[],
    answer: Answer::Vectors(VectorsAt::Data),
    usage: &usage::COMPLETIONS,
    error: ErrorShape::OpenAi,
};

/// With the version in front, because threads of OpenAI's assistants have `/messages` of their own.
pub(super) const ANTHROPIC_MESSAGES: Row = Row {
    json_name: "anthropic-messages",
    sse_name: "anthropic-messages+sse",
    place: Place::End(&["/v1/messages"]),
    query: Query::Counts,
    fields: &[
        &[
            ("stream", Field::Stream),
            ("metadata", Field::Names),
            // A marker for the whole request.
            ("cache_control", Field::Ignored),
            ("model", Field::Model),
            ("tools", Field::Tools(tools::anthropic)),
            ("messages", Field::Items(items::anthropic)),
            ("container", Field::Refused(Bypass::ProviderState)),
            // A conversation that the provider holds.
            ("thread", Field::Refused(Bypass::ProviderState)),
            ("mcp_servers", Field::Refused(Bypass::HostedTool)),
        ],
        SEARCHES,
    ],
    stored_by_default: false,
    top: &objects::MESSAGES,
    hint: "cache_control",
    temperature_at: &[&["temperature"]],
    answer: Answer::Message,
    usage: &usage::MESSAGES,
    error: ErrorShape::Anthropic,
};

pub(super) const GEMINI_GENERATE_CONTENT: Row = Row {
    json_name: "gemini-generate-content",
    sse_name: "gemini-generate-content+sse",
    place: Place::Method(":generateContent"),
    query: Query::Google { streams: false },
    fields: &[GEMINI],
    stored_by_default: false,
    top: &objects::GEMINI,
    hint: NO_HINT,
    temperature_at: GEMINI_TEMPERATURE,
    answer: Answer::Candidates(Pieces::One),
    usage: &usage::GEMINI,
    error: ErrorShape::Google,
};

pub(super) const GEMINI_STREAM_GENERATE_CONTENT: Row = Row {
    json_name: "gemini-stream-generate-content",
    sse_name: "gemini-stream-generate-content+sse",
    place: Place::Method(":streamGenerateContent"),
    query: Query::Google { streams: true },
    fields: &[GEMINI],
    stored_by_default: false,
    top: &objects::GEMINI,
    hint: NO_HINT,
    temperature_at: GEMINI_TEMPERATURE,
    answer: Answer::Candidates(Pieces::Many),
    usage: &usage::GEMINI,
    error: ErrorShape::Google,
};

pub(super) const GEMINI_EMBED_CONTENT: Row = Row {
    json_name: "gemini-embed-content",
    sse_name: "gemini-embed-content+sse",
    place: Place::Method(":embedContent"),
    query: Query::Google { streams: false },
    fields: &[GEMINI],
    stored_by_default: false,
    top: &objects::GEMINI,
    hint: NO_HINT,
    temperature_at: &[],
    answer: Answer::Vectors(VectorsAt::Embedding),
    usage: &usage::GEMINI,
    error: ErrorShape::Google,
};

/// Google's SDKs call this for `embed_content`.
pub(super) const GEMINI_BATCH_EMBED_CONTENTS: Row = Row {
    json_name: "gemini-batch-embed-contents",
    sse_name: "gemini-batch-embed-contents+sse",
    place: Place::Method(":batchEmbedContents"),
    query: Query::Google { streams: false },
    fields: &[GEMINI],
    stored_by_default: false,
    top: &objects::GEMINI,
    hint: NO_HINT,
    temperature_at: &[],
    answer: Answer::Vectors(VectorsAt::Embeddings),
    usage: &usage::GEMINI,
    error: ErrorShape::Google,
};

const GEMINI_TEMPERATURE: &[&[&str]] = &[
    &["generationConfig", "temperature"],
    &["generation_config", "temperature"],
];

/// Google takes names in either case.
const GEMINI: &[(&str, Field)] = &[
    ("labels", Field::Names),
    // Whether the exchange is logged for the project.
    ("store", Field::MayBeFalse(Bypass::Store)),
    ("cachedContent", Field::Refused(Bypass::ProviderState)),
    ("cached_content", Field::Refused(Bypass::ProviderState)),
    ("tools", Field::Tools(tools::google)),
];

const RESPONSES_FIELDS: &[(&str, Field)] = &[
    (
        "previous_response_id",
        Field::Refused(Bypass::ProviderState),
    ),
    ("conversation", Field::Refused(Bypass::ProviderState)),
    // A template that is kept by the provider, and may be edited and bring tools of its own.
    ("prompt", Field::Refused(Bypass::ProviderState)),
    ("background", Field::MayBeFalse(Bypass::Background)),
    ("input", Field::Items(items::response)),
];

/// The common fields of OpenAI's generating APIs.
///
/// `stream_options` stays in the body, where it has the same effect on the key as in the
/// representation: only streams have it, and each spelling of it is another stream.
const OPENAI: &[(&str, Field)] = &[
    ("stream", Field::Stream),
    // The user, and hints to the provider's own prompt cache and bookkeeping.
    ("user", Field::Names),
    ("safety_identifier", Field::Names),
    ("prompt_cache_key", Field::Names),
    ("prompt_cache_options", Field::CacheOptions),
    ("prompt_cache_retention", Field::Ignored),
    ("metadata", Field::Names),
    ("store", Field::MustBeFalse(Bypass::Store)),
    ("model", Field::Model),
    // OpenRouter's: the models to try next.
    ("models", Field::Model),
    // xAI's: the answer is fetched later.
    ("deferred", Field::MayBeFalse(Bypass::Background)),
    ("tools", Field::Tools(tools::openai)),
];

/// Fields that make a provider search or run something, whatever API they are added to. Others are
/// known by their words: `request/outside.rs`.
const SEARCHES: &[(&str, Field)] = &[
    // Empty options are on.
    ("web_search_options", Field::MayBeFalse(Bypass::WebSearch)),
    // Azure's "on your data".
    ("data_sources", Field::MayBeFalse(Bypass::HostedTool)),
    ("dataSources", Field::MayBeFalse(Bypass::HostedTool)),
];

const OPENAI_HINT: &str = "prompt_cache_breakpoint";
/// No member has this name.
const NO_HINT: &str = "\0";
