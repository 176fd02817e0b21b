//! Gemini's answers: candidates, each with its `finishReason`. In a stream, or in an array, a
//! candidate is told in pieces, and only the last has the reason; there is no terminal event.

use super::{Endings, Ends, Rules, index, objects};
use crate::Rejected;
use crate::json::{Kind, Value};

const ENDINGS: Endings = Endings {
    finished: &["STOP"],
    cut_short: &["MAX_TOKENS"],
    refused: &[],
};

/// Where a candidate shows what Google looked up or ran on the way to it.
const TRACES: [&str; 2] = ["groundingMetadata", "urlContextMetadata"];
const TRACES_IN_PARTS: [&str; 4] = [
    "codeExecutionResult",
    "executableCode",
    "toolCall",
    "toolResponse",
];

/// Judges an answer of one document or several, none of which may be at fault.
pub(super) fn whole<'d>(
    chunks: impl IntoIterator<Item = Result<Value<'d>, Rejected>>,
    rules: Rules,
) -> Result<(), Rejected> {
    let mut candidates = Candidates::default();
    for chunk in chunks {
        candidates.chunk(chunk?, rules)?;
    }
    candidates.end()
}

/// The candidates of an answer.
#[derive(Default)]
pub(super) struct Candidates {
    ends: Ends,
    /// Something was said, or a function called.
    has_parts: bool,
}

impl Candidates {
    /// Judges one piece of the answer. One without candidates tells the usage, or why there are
    /// none.
    pub(super) fn chunk(&mut self, chunk: Value<'_>, rules: Rules) -> Result<(), Rejected> {
        if let Some(feedback) = chunk.get_some("promptFeedback")
            && feedback.get_some("blockReason").is_some()
        {
            return Err(Rejected::FinishReason);
        }
        if chunk.get_some("candidates").is_none() {
            return Ok(());
        }
        for candidate in objects(chunk, "candidates")? {
            let index = index(candidate)?;
            if TRACES.iter().any(|name| shows(candidate, name)) {
                return Err(Rejected::Unexpected);
            }
            let has_parts = match candidate.get_some("content") {
                Some(content) => judge_content(content)?,
                None => false,
            };
            self.has_parts |= has_parts;
            let ends = match candidate.get_some("finishReason") {
                Some(reason) => rules.ending(reason, &ENDINGS).map(|()| true)?,
                None => false,
            };
            // Some gateways give a reason to stop with pieces that come before the text.
            if has_parts && !ends {
                self.ends.reopen(index)?;
            }
            self.ends.note(index, ends)?;
        }
        Ok(())
    }

    /// Judges the end of the answer.
    pub(super) fn end(&self) -> Result<(), Rejected> {
        if !self.ends.are_all() {
            return Err(Rejected::Unfinished);
        }
        // It happens that a model stops before it has said anything. Asked again, it may.
        if !self.has_parts {
            return Err(Rejected::Unexpected);
        }
        Ok(())
    }
}

/// Whether a member is there and holds something.
fn shows(candidate: Value<'_>, name: &str) -> bool {
    let trace = candidate.get_some(name);
    trace.is_some_and(|trace| trace.members().next().is_some())
}

/// Judges a candidate's content, and says whether there are parts in it.
fn judge_content(content: Value<'_>) -> Result<bool, Rejected> {
    if content.kind() != Kind::Object {
        return Err(Rejected::Unexpected);
    }
    if content.get_some("parts").is_none() {
        return Ok(false);
    }
    let mut any = false;
    for part in objects(content, "parts")? {
        if TRACES_IN_PARTS
            .iter()
            .any(|name| part.get_some(name).is_some())
        {
            return Err(Rejected::Unexpected);
        }
        any = true;
    }
    Ok(any)
}
