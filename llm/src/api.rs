//! Which API a path belongs to, and what shape its answers have.
//!
//! The particulars of each API are in `api/table.rs`: another API is another row there, and a judge
//! of its answers in `answer/judge/` if none fits.

mod objects;
mod table;

use alloc::borrow::Cow;
use alloc::format;

pub(crate) use objects::Known;
pub(crate) use table::{Answer, Content, ErrorShape, Field, Pieces, Query, Row, VectorsAt};

/// An LLM API whose exchanges we understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Api {
    /// OpenAI's chat completions, spoken by most providers and gateways.
    ChatCompletions,
    /// OpenAI's completions of a bare prompt.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's embeddings, spoken by most providers and gateways. Never streamed.
    Embeddings,
    /// Anthropic's messages.
    AnthropicMessages,
    /// Gemini's answers in one piece.
    GeminiGenerateContent,
    /// Gemini's answers in many pieces: a stream of events, or an array.
    GeminiStreamGenerateContent,
    /// Gemini's embeddings, one at a time.
    GeminiEmbedContent,
    /// Gemini's embeddings, several at a time.
    GeminiBatchEmbedContents,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Representation {
    /// One JSON document.
    Json,
    /// A stream of server-sent events.
    Sse,
}

/// The form that an answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    /// The API that was asked.
    pub api: Api,
    /// The representation that the client asked for.
    pub representation: Representation,
    /// How many choices, candidates or vectors the request asks for; none if it does not tell. An
    /// answer with another number of them is not kept.
    pub parts: Option<u32>,
}

/// Stands between the name of a shape and its number of parts.
const PARTS: &str = ";parts=";

impl Shape {
    /// A shape with an unknown number of parts.
    pub const fn new(api: Api, representation: Representation) -> Self {
        Self {
            api,
            representation,
            parts: None,
        }
    }

    /// A stable name, such as `chat-completions+sse`, for an API and a representation.
    pub const fn name(self) -> &'static str {
        let row = self.api.row();
        match self.representation {
            Representation::Json => row.json_name,
            Representation::Sse => row.sse_name,
        }
    }

    /// The same with the number of parts, such as `embeddings;parts=2`: this is what crosses the WIT
    /// boundary and the edge API.
    pub fn token(self) -> Cow<'static, str> {
        match self.parts {
            None => self.name().into(),
            Some(parts) => format!("{}{PARTS}{parts}", self.name()).into(),
        }
    }

    /// The shape that a token, or a name alone, stands for.
    pub fn from_token(token: &str) -> Option<Self> {
        let (name, parts) = match token.split_once(PARTS) {
            Some((name, parts)) => (name, Some(parts.parse().ok()?)),
            None => (token, None),
        };
        let shapes = Api::ALL.iter().flat_map(|&api| {
            [Representation::Json, Representation::Sse]
                .map(|representation| Self::new(api, representation))
        });
        let mut shapes = shapes.filter(|shape| shape.name() == name);
        shapes.next().map(|shape| Self { parts, ..shape })
    }
}

impl Api {
    /// Every API. Of two whose paths end alike, the one with the longer end stands first.
    pub const ALL: &'static [Self] = &[
        Self::ChatCompletions,
        Self::Completions,
        Self::Responses,
        Self::Embeddings,
        Self::AnthropicMessages,
        Self::GeminiGenerateContent,
        Self::GeminiStreamGenerateContent,
        Self::GeminiEmbedContent,
        Self::GeminiBatchEmbedContents,
    ];

    /// A stable token, such as `chat-completions`, that operators and the WIT boundary know it by.
    pub const fn name(self) -> &'static str {
        self.row().json_name
    }

    /// The API that a token stands for.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|api| api.name() == name).copied()
    }

    /// Whether the path holds the model and the method, and not only the endpoint.
    pub(crate) const fn is_in_path(self) -> bool {
        matches!(self.row().place, table::Place::Method(_))
    }

    /// The API that answers at a path in [normal form](crate::normal_path).
    ///
    /// Only the last segments are looked at, so that a provider's or gateway's prefix does not
    /// matter: it is part of the key.
    pub(crate) fn of_path(path: &str) -> Option<Self> {
        if !path.starts_with('/') {
            return None;
        }
        let answers = |api: &&Self| api.row().place.is_at(path);
        Self::ALL.iter().find(answers).copied()
    }

    /// How a top-level field of a request is treated; none if it simply counts.
    pub(crate) fn field(self, name: &[u8]) -> Option<Field> {
        for fields in self.row().fields {
            for (other, field) in *fields {
                if other.as_bytes() == name {
                    return Some(*field);
                }
            }
        }
        None
    }

    /// Whether answers are made by a model that may look things up on the way.
    pub(crate) const fn generates(self) -> bool {
        !matches!(self.row().answer, Answer::Vectors(_))
    }

    pub(crate) const fn row(self) -> &'static Row {
        match self {
            Self::ChatCompletions => &table::CHAT_COMPLETIONS,
            Self::Completions => &table::COMPLETIONS,
            Self::Responses => &table::RESPONSES,
            Self::Embeddings => &table::EMBEDDINGS,
            Self::AnthropicMessages => &table::ANTHROPIC_MESSAGES,
            Self::GeminiGenerateContent => &table::GEMINI_GENERATE_CONTENT,
            Self::GeminiStreamGenerateContent => &table::GEMINI_STREAM_GENERATE_CONTENT,
            Self::GeminiEmbedContent => &table::GEMINI_EMBED_CONTENT,
            Self::GeminiBatchEmbedContents => &table::GEMINI_BATCH_EMBED_CONTENTS,
        }
    }
}
