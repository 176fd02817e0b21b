//! The objects that each API defines, by where they stand in a request.
//!
//! Where the API defines each member of an object, the order of the members has no meaning, and
//! they are sorted before they are hashed. Everywhere else the order is the user's, and models see
//! it: a provider writes the fields of an answer in the order of its schema, and puts tools and
//! arguments into the prompt as they are spelled. So only objects listed here are sorted, and the
//! values of their unlisted members keep their order.

/// The definition of the objects at one place.
#[derive(Debug)]
pub(crate) struct Known {
    /// Whether the order of members says nothing.
    pub(crate) is_sorted: bool,
    /// Whether they may carry a hint to the provider's own prompt cache, which is out of the key.
    pub(crate) has_hints: bool,
    /// Members that hold, directly or in arrays, objects with definitions of their own.
    inside: &'static [(&'static str, &'static Known)],
}

impl Known {
    /// Whether this and all further in is the user's own.
    pub(crate) fn is_free(&self) -> bool {
        !self.is_sorted && !self.has_hints && self.inside.is_empty()
    }

    /// The definition of the objects in a member.
    pub(crate) fn inside(&self, name: &[u8]) -> &'static Self {
        let found = self.inside.iter();
        let found = found.filter(|(other, _)| other.as_bytes() == name);
        found.map(|&(_, known)| known).next().unwrap_or(&FREE)
    }
}

/// The user's own, at all depths: schemas, arguments, metadata, and anything unknown.
pub(crate) static FREE: Known = Known {
    is_sorted: false,
    has_hints: false,
    inside: &[],
};

const fn sorted(inside: &'static [(&'static str, &'static Known)]) -> Known {
    Known {
        is_sorted: true,
        has_hints: false,
        inside,
    }
}

/// A content block.
const fn block(inside: &'static [(&'static str, &'static Known)]) -> Known {
    Known {
        is_sorted: true,
        has_hints: true,
        inside,
    }
}

/// Options, each with a meaning of its own.
static OPTIONS: Known = sorted(&[]);

/// A tool as the model sees it, without the hint beside its definition.
static TOOL: Known = Known {
    is_sorted: false,
    has_hints: true,
    inside: &[],
};

/// A schema under `schema`, beside its name and the like.
static FORMAT: Known = sorted(&[("json_schema", &NAMED_SCHEMA)]);
static NAMED_SCHEMA: Known = sorted(&[]);

/// A name, and `arguments` in any order of theirs.
static FUNCTION: Known = sorted(&[]);
static CALL: Known = sorted(&[("custom", &FUNCTION), ("function", &FUNCTION)]);

/// A part of a message of OpenAI's, in chats and responses.
static PART: Known = block(&[
    ("file", &OPTIONS),
    ("image_url", &OPTIONS),
    ("input_audio", &OPTIONS),
    ("video_url", &OPTIONS),
]);

static CHAT_MESSAGE: Known = block(&[
    ("audio", &OPTIONS),
    ("content", &PART),
    ("function_call", &FUNCTION),
    ("tool_calls", &CALL),
]);

/// Chat completions, completions and embeddings. The latter two have few objects.
pub(super) static OPENAI: Known = sorted(&[
    ("audio", &OPTIONS),
    ("function_call", &OPTIONS),
    ("logit_bias", &OPTIONS),
    ("messages", &CHAT_MESSAGE),
    ("reasoning", &OPTIONS),
    ("response_format", &FORMAT),
    ("stream_options", &OPTIONS),
    ("thinking", &OPTIONS),
    ("tool_choice", &CALL),
]);

/// An item of a response's input: a message, a call, the output of a call. Objects in a call, such
/// as an action, are the user's.
static ITEM: Known = block(&[("content", &PART), ("output", &PART), ("summary", &OPTIONS)]);

pub(super) static RESPONSES: Known = sorted(&[
    ("input", &ITEM),
    ("reasoning", &OPTIONS),
    ("stream_options", &OPTIONS),
    ("text", &TEXT),
    ("tool_choice", &CALL),
]);
static TEXT: Known = sorted(&[("format", &NAMED_SCHEMA)]);

/// A content block of Anthropic's. Its `input` is the user's.
static BLOCK: Known = block(&[
    ("citations", &OPTIONS),
    ("content", &BLOCK),
    ("source", &BLOCK),
]);

pub(super) static MESSAGES: Known = sorted(&[
    ("messages", &BLOCK),
    ("output_config", &OUTPUT),
    ("output_format", &NAMED_SCHEMA),
    ("system", &BLOCK),
    ("thinking", &OPTIONS),
    ("tool_choice", &OPTIONS),
    ("tools", &TOOL),
]);
static OUTPUT: Known = sorted(&[("format", &NAMED_SCHEMA)]);

/// Google takes names in either case. A call's `args` and a response are the user's.
static PARTS: Known = sorted(&[
    ("codeExecutionResult", &OPTIONS),
    ("code_execution_result", &OPTIONS),
    ("executableCode", &OPTIONS),
    ("executable_code", &OPTIONS),
    ("fileData", &OPTIONS),
    ("file_data", &OPTIONS),
    ("functionCall", &OPTIONS),
    ("functionResponse", &OPTIONS),
    ("function_call", &OPTIONS),
    ("function_response", &OPTIONS),
    ("inlineData", &OPTIONS),
    ("inline_data", &OPTIONS),
    ("videoMetadata", &OPTIONS),
    ("video_metadata", &OPTIONS),
]);
static CONTENT: Known = sorted(&[("parts", &PARTS)]);

/// Its schemas are the user's.
static GENERATION: Known = sorted(&[
    ("imageConfig", &OPTIONS),
    ("image_config", &OPTIONS),
    ("thinkingConfig", &OPTIONS),
    ("thinking_config", &OPTIONS),
]);
static CALLING: Known = sorted(&[
    ("functionCallingConfig", &OPTIONS),
    ("function_calling_config", &OPTIONS),
]);

pub(super) static GEMINI: Known = sorted(&[
    ("content", &CONTENT),
    ("contents", &CONTENT),
    ("generationConfig", &GENERATION),
    ("generation_config", &GENERATION),
    ("requests", &GEMINI),
    ("safetySettings", &OPTIONS),
    ("safety_settings", &OPTIONS),
    ("systemInstruction", &CONTENT),
    ("system_instruction", &CONTENT),
    ("toolConfig", &CALLING),
    ("tool_config", &CALLING),
]);
