//! Gemini's answers: candidates, each with its `finishReason`. In a stream, or in an array, a
//! candidate comes in pieces, and only the last has the reason; no terminal event follows.

use super::{Parts, Rules, Said, index, objects};
use crate::Rejected;
use crate::json::{Kind, Value};

/// Judges an answer of one document or several; each must be good.
pub(super) fn whole<'d>(
    chunks: impl IntoIterator<Item = Result<Value<'d>, Rejected>>,
    rules: Rules,
) -> Result<(), Rejected> {
    let mut candidates = Candidates::default();
    for chunk in chunks {
        candidates.chunk(chunk?, rules)?;
    }
    candidates.end(rules)
}

/// The candidates of an answer.
#[derive(Default)]
pub(super) struct Candidates(Parts);

/// Fields of a piece without candidates: the usage, or the reason why none came.
const ASIDES: [&str; 5] = [
    "usageMetadata",
    "promptFeedback",
    "modelVersion",
    "responseId",
    "createTime",
];

impl Candidates {
    /// Judges one piece of the answer.
    pub(super) fn chunk(&mut self, chunk: Value<'_>, rules: Rules) -> Result<(), Rejected> {
        if let Some(feedback) = chunk.get_some("promptFeedback")
            && feedback.get_some("blockReason").is_some()
        {
            return Err(Rejected::FinishReason);
        }
        if chunk.get_some("candidates").is_none() {
            return match ASIDES.iter().any(|name| chunk.get_some(name).is_some()) {
                true => Ok(()),
                false => Err(Rejected::Unexpected),
            };
        }
        for (place, candidate) in objects(chunk, "candidates")?.enumerate() {
            let index = index(candidate, place)?;
            let said = match candidate.get_some("content") {
                Some(content) => judge_content(content)?,
                None => Said::Nothing,
            };
            let ends = rules.ends(candidate.get_some("finishReason"))?;
            let part = self.0.streamed(index)?;
            part.said = part.said.max(said);
            // Some gateways give a reason to stop with each piece, or with pieces that come before
            // the text. The last that says something counts.
            part.has_ended = ends || (part.has_ended && said == Said::Nothing);
        }
        Ok(())
    }

    /// Judges the end of the answer.
    pub(super) fn end(&self, rules: Rules) -> Result<(), Rejected> {
        self.0.end(rules)
    }
}

/// Judges a candidate's content: what its parts say.
fn judge_content(content: Value<'_>) -> Result<Said, Rejected> {
    if content.kind() != Kind::Object {
        return Err(Rejected::Unexpected);
    }
    if content.get_some("parts").is_none() {
        return Ok(Said::Nothing);
    }
    let parts = objects(content, "parts")?.map(said);
    Ok(parts.max().unwrap_or_default())
}

fn said(part: Value<'_>) -> Said {
    let is_thought = part.get("thought").map(Value::kind) == Some(Kind::True);
    let text = Said::text(part.get_some("text"));
    let others = ["functionCall", "inlineData", "fileData"];
    let others = others.map(|name| Said::Something.of(part.get_some(name)));
    match others.into_iter().fold(text, Said::max) {
        Said::Something if is_thought => Said::Aside,
        said => said,
    }
}
