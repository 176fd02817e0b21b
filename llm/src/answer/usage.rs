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
        if !tells_usage(text) {
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

/// Whether a text has the word `usage`, looked for from its end.
///
/// Compilers make a loop over many places at once of the two comparisons. One place after the other
/// takes longer than reading the answer does.
fn tells_usage(text: &[u8]) -> bool {
    const WORD: &[u8; 5] = b"usage";
    const BLOCK: usize = 64;
    let [first, .., last] = *WORD;
    let behind = WORD.len() - 1;
    let Some(lasts) = text.get(behind..) else {
        return false;
    };
    let firsts = &text[..lasts.len()];
    let blocks = firsts.chunks(BLOCK).zip(lasts.chunks(BLOCK));
    blocks.enumerate().rev().any(|(block, (firsts, lasts))| {
        let pairs = firsts.iter().zip(lasts);
        let is_there = |there, (one, other): (&u8, &u8)| there | (*one == first) & (*other == last);
        pairs.fold(false, is_there) && {
            let words = &text[block * BLOCK..][..firsts.len() + behind];
            words.windows(WORD.len()).any(|word| word == WORD)
        }
    })
}

/// A count of tokens; none if it is missing or no natural number.
fn number(usage: Value<'_>, name: &str) -> Option<u64> {
    let value = usage.get(name)?;
    match value.kind() {
        Kind::Number => core::str::from_utf8(value.spelling()).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_found_wherever_it_stands_and_nowhere_else() {
        for length in [0, 1, 4, 5, 6, 63, 64, 65, 68, 69, 200] {
            let plain = alloc::vec![b'u'; length];
            assert!(!tells_usage(&plain), "{length}");
            for at in 0..(length + 1).saturating_sub(5) {
                let mut text = plain.clone();
                text[at..at + 5].copy_from_slice(b"usage");
                assert!(tells_usage(&text), "{length} {at}");
                for letter in 0..5 {
                    let mut text = text.clone();
                    text[at + letter] = b'-';
                    assert!(!tells_usage(&text), "{length} {at} {letter}");
                }
            }
        }
    }
}
