//! How many parts a request asks for: choices, candidates or vectors.

use crate::api::Answer;
use crate::json::{Kind, Value};
use crate::{Api, api::VectorsAt};

/// How many parts the answer to a body must have; none if the body does not tell.
///
/// A chat that names no `n` does not tell: some gateways give a text and its tool calls as two
/// choices.
pub(crate) fn parts(api: Api, body: Value<'_>) -> Option<u32> {
    match api.row().answer {
        Answer::Choices(_) => {
            let n = body.get_some("n");
            match (n, body.get_some("prompt").and_then(texts)) {
                (None, None | Some(1)) => None,
                (None, Some(prompts)) => Some(prompts),
                (Some(n), prompts) => count(n)?.checked_mul(prompts.unwrap_or(1)),
            }
        }
        Answer::Candidates(_) => {
            let config = ["generationConfig", "generation_config"];
            let names = ["candidateCount", "candidate_count"];
            let config = config.iter().find_map(|name| body.get_some(name))?;
            count(names.iter().find_map(|name| config.get_some(name))?)
        }
        Answer::Vectors(VectorsAt::Data) => texts(body.get_some("input")?),
        Answer::Vectors(VectorsAt::Embedding) => Some(1),
        Answer::Vectors(VectorsAt::Embeddings) => {
            u32::try_from(body.get_some("requests")?.elements().count()).ok()
        }
        Answer::Response | Answer::Message => None,
    }
}

/// The number of texts: one, as a string or as an array of its tokens; or those of an array.
fn texts(texts: Value<'_>) -> Option<u32> {
    let is_text = |value: &Value<'_>| {
        let mut elements = value.elements();
        match value.kind() {
            Kind::String => true,
            Kind::Array => elements.all(|token| token.kind() == Kind::Number),
            _ => false,
        }
    };
    let is_empty = texts.elements().next().is_none();
    match texts.kind() {
        Kind::Array if is_empty => None,
        Kind::Array if !is_text(&texts) => {
            let are_texts = texts.elements().all(|text| is_text(&text));
            let count = u32::try_from(texts.elements().count()).ok();
            count.filter(|_| are_texts)
        }
        _ => is_text(&texts).then_some(1),
    }
}

/// A number that is at least 1.
fn count(value: Value<'_>) -> Option<u32> {
    let digits = match value.kind() {
        Kind::Number => core::str::from_utf8(value.spelling()).ok()?,
        _ => return None,
    };
    digits.parse().ok().filter(|&count| count > 0)
}
