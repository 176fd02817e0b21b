//! Which API a path belongs to, and the table of what is particular to each.
//!
//! Another API is another row. A row says only what differs from the general rule, which is
//! that every field of the request changes the answer.

use crate::Bypass;

/// An LLM API whose exchanges we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Api {
    /// OpenAI's chat completions, spoken by most providers and gateways.
    ChatCompletions,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Representation {
    /// One JSON document.
    Json,
    /// A stream of server-sent events.
    Sse,
}

/// What an answer must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The API that was asked.
    pub api: Api,
    /// The representation that the client asked for.
    pub representation: Representation,
}

impl Shape {
    /// A stable token, such as `chat-completions+sse`, that crosses the WIT boundary.
    pub const fn name(self) -> &'static str {
        let row = self.api.row();
        match self.representation {
            Representation::Json => row.json_name,
            Representation::Sse => row.sse_name,
        }
    }

    /// The shape that a token stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        let shapes = Api::ALL.iter().flat_map(|&api| {
            [Representation::Json, Representation::Sse].map(|representation| Self {
                api,
                representation,
            })
        });
        shapes.into_iter().find(|shape| shape.name() == name)
    }
}

impl Api {
    /// Every API.
    pub const ALL: &'static [Self] = &[Self::ChatCompletions];

    /// The API that answers at a path (with or without query).
    ///
    /// Only the last segments are looked at, so that a provider's or gateway's prefix does not
    /// matter: it is part of the key. Nothing is decoded or tidied; a path in an unusual
    /// spelling passes by.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        let ends = |api: &&Self| path.ends_with(api.row().path_end);
        Self::ALL.iter().find(ends).copied()
    }

    /// How a top-level field of a request is treated; none if it simply counts.
    pub(crate) fn field(self, name: &[u8]) -> Option<Field> {
        let mut fields = self.row().fields.iter();
        let row = fields.find(|(other, _)| other.as_bytes() == name);
        row.map(|&(_, field)| field)
    }

    pub(crate) const fn row(self) -> &'static Row {
        match self {
            Self::ChatCompletions => &CHAT_COMPLETIONS,
        }
    }
}

/// What is particular to one API.
pub(crate) struct Row {
    json_name: &'static str,
    sse_name: &'static str,
    /// The last segments of the path, with the slash before them.
    path_end: &'static str,
    /// The top-level fields of a request that are treated specially.
    fields: &'static [(&'static str, Field)],
    /// `finish_reason`s of an answer that is whole.
    pub(crate) finished: &'static [&'static str],
    /// `finish_reason`s of an answer that ran into a length limit.
    pub(crate) cut_short: &'static [&'static str],
    /// The data of the event that ends a stream.
    pub(crate) terminal: &'static str,
}

/// How a top-level field of a request is treated. Null is as good as absent for all of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// Cannot change the answer: out of the key.
    Ignored,
    /// A boolean that chooses the representation, and is in the key as that.
    Stream,
    /// Out of the key when false; anything else bypasses.
    MustBeFalse(Bypass),
    /// In the key, and bypasses unless false.
    MayBeFalse(Bypass),
    /// In the key, and bypasses when it names a model that searches.
    Model,
    /// In the key, and bypasses unless every tool is run by the client.
    Tools,
}

impl Field {
    /// Whether the field is written to the key as part of the body.
    pub(crate) const fn is_in_key(self) -> bool {
        match self {
            Self::Ignored | Self::Stream | Self::MustBeFalse(_) => false,
            Self::MayBeFalse(_) | Self::Model | Self::Tools => true,
        }
    }
}

/// `stream_options` stays in the body, where it has the same effect on the key as in the
/// representation: only streams have it, and each spelling of it is another stream.
const CHAT_COMPLETIONS: Row = Row {
    json_name: "chat-completions",
    sse_name: "chat-completions+sse",
    path_end: "/chat/completions",
    fields: &[
        ("stream", Field::Stream),
        // Who asks, and hints to the provider's own prompt cache and bookkeeping.
        ("user", Field::Ignored),
        ("safety_identifier", Field::Ignored),
        ("prompt_cache_key", Field::Ignored),
        ("prompt_cache_retention", Field::Ignored),
        ("metadata", Field::Ignored),
        ("store", Field::MustBeFalse(Bypass::Store)),
        ("model", Field::Model),
        ("tools", Field::Tools),
        ("web_search_options", Field::MayBeFalse(Bypass::WebSearch)),
        // The same by other names: xAI, Qwen, OpenRouter, Azure "on your data".
        ("search_parameters", Field::MayBeFalse(Bypass::WebSearch)),
        ("enable_search", Field::MayBeFalse(Bypass::WebSearch)),
        ("plugins", Field::MayBeFalse(Bypass::HostedTool)),
        ("data_sources", Field::MayBeFalse(Bypass::HostedTool)),
        ("dataSources", Field::MayBeFalse(Bypass::HostedTool)),
    ],
    finished: &["stop", "tool_calls", "function_call"],
    cut_short: &["length"],
    terminal: "[DONE]",
};
