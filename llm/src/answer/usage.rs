//! The usage that an answer states: the tokens that a hit saves.
//!
//! This module counts no tokens itself. An answer without a usage, such as a stream whose client did
//! not ask for it, gives none.

use crate::answer::sse::{Frames, Next};
use crate::json::{self, Kind, Value};
use crate::{Representation, Shape};

/// The tokens of one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the request, including tokens that the provider had in its prompt cache.
    pub input_tokens: u64,
    /// Of the answer, including the model's thinking.
    pub output_tokens: u64,
    /// All of them, as the provider says, or else the sum.
    pub total_tokens: u64,
}

impl Shape {
    /// The usage that an answer of this shape states; none if it states none.
    ///
    /// Reads the whole body: better once, when it is stored, than on every hit.
    pub fn usage(self, body: &[u8]) -> Option<Usage> {
        let mut counts = Counts::default();
        let names = self.api.row().usage;
        match self.representation {
            Representation::Json => counts.read(body, names),
            Representation::Sse => {
                let mut frames = Frames::default();
                // Data after the end of a stream has no usage.
                let _ = frames.feed(body, |frame| {
                    counts.read(frame.data.unwrap_or_default(), names);
                    Ok(Next::More)
                });
            }
        }
        counts.usage()
    }
}

/// An API's names of token counts.
pub(crate) struct Names {
    /// Where the object that counts them may stand, one member inside the other.
    at: &'static [&'static [&'static str]],
    /// The counts of the request, which add up.
    input: [&'static str; KINDS],
    /// The counts of the answer, which add up.
    output: [&'static str; KINDS],
    total: &'static str,
}

/// How many kinds of tokens an API tells apart on either side, at most.
const KINDS: usize = 3;

/// A placeholder for an API with fewer kinds.
const NONE: &str = "";

pub(crate) const COMPLETIONS: Names = Names {
    at: &[&["usage"]],
    input: ["prompt_tokens", NONE, NONE],
    output: ["completion_tokens", NONE, NONE],
    total: "total_tokens",
};

pub(crate) const RESPONSES: Names = Names {
    at: &[&["usage"], &["response", "usage"]],
    input: ["input_tokens", NONE, NONE],
    output: ["output_tokens", NONE, NONE],
    total: "total_tokens",
};

pub(crate) const MESSAGES: Names = Names {
    at: &[&["usage"], &["message", "usage"]],
    input: [
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
    ],
    output: ["output_tokens", NONE, NONE],
    total: NONE,
};

pub(crate) const GEMINI: Names = Names {
    at: &[&["usageMetadata"]],
    input: ["promptTokenCount", "toolUsePromptTokenCount", NONE],
    output: ["candidatesTokenCount", "thoughtsTokenCount", NONE],
    total: "totalTokenCount",
};

/// The counts so far. A later number replaces an earlier one of its name: streams count up.
#[derive(Default)]
struct Counts {
    input: [Option<u64>; KINDS],
    output: [Option<u64>; KINDS],
    total: Option<u64>,
}

impl Counts {
    /// Reads a document, or the many that are one answer.
    fn read(&mut self, text: &[u8], names: &Names) {
        // Most frames of a stream have no usage, and need not be read. Answers state it at their end.
        const TOLD: &[u8] = b"usage";
        let mut windows = text.windows(TOLD.len());
        if windows.rfind(|window| *window == TOLD).is_none() {
            return;
        }
        let Ok(document) = json::read_answer(text) else {
            return;
        };
        let root = document.root();
        self.note(root, names);
        for piece in root.elements() {
            self.note(piece, names);
        }
    }

    fn note(&mut self, root: Value<'_>, names: &Names) {
        for path in names.at {
            let inside = path
                .iter()
                .try_fold(root, |value, name| value.get_some(name));
            let Some(usage) = inside else { continue };
            let told = |kept: &mut Option<u64>, name: &str| *kept = number(usage, name).or(*kept);
            for kind in 0..KINDS {
                told(&mut self.input[kind], names.input[kind]);
                told(&mut self.output[kind], names.output[kind]);
            }
            told(&mut self.total, names.total);
        }
    }

    fn usage(&self) -> Option<Usage> {
        let sum = |kinds: &[Option<u64>]| {
            let told = kinds.iter().flatten();
            told.copied().reduce(u64::saturating_add)
        };
        let (input, output) = (sum(&self.input), sum(&self.output));
        let total = self.total.or(sum(&[input, output]))?;
        Some(Usage {
            input_tokens: input.unwrap_or(0),
            output_tokens: output.unwrap_or(0),
            total_tokens: total,
        })
    }
}

/// A count of tokens; none if it is missing or no natural number.
fn number(usage: Value<'_>, name: &str) -> Option<u64> {
    let value = usage.get(name)?;
    match value.kind() {
        Kind::Number => core::str::from_utf8(value.spelling()).ok()?.parse().ok(),
        _ => None,
    }
}
