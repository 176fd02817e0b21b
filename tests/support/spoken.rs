//! What the provider says, in the words of whichever API it is asked by. Pure: the answer follows
//! from the request and the number of the call.

mod embeddings;
mod gemini;
mod messages;
mod responses;
mod text;

use bytes::Bytes;
use reflex_llm::normal_path;

use crate::behaviour::Oddity;
use crate::completion::{self, Completion, Prompt};

/// A request for an answer.
pub(crate) struct Asked<'a> {
    /// Path and query.
    pub(crate) path: &'a str,
    pub(crate) body: &'a [u8],
    /// When the provider was started, in seconds since 1970.
    pub(crate) started: u64,
    /// The number of the call, from 1: what makes each answer another one.
    pub(crate) number: u64,
    pub(crate) wish: Wish,
}

/// How the answer is to be.
#[derive(Clone, Copy, Default)]
pub(crate) struct Wish {
    pub(crate) ending: Ending,
    /// So many bytes more than usual.
    pub(crate) padding: usize,
    /// What is odd about vectors.
    pub(crate) oddity: Option<Oddity>,
    /// Whether thoughts come first, where the API shows them.
    pub(crate) thinks: bool,
}

/// How the answer is to end.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Ending {
    #[default]
    Stop,
    /// In the token limit.
    Length,
    /// With a refusal.
    Refusal,
    /// With the call of a tool; as `Stop` where the provider of the tests has none.
    Tool,
}

/// An answer, both ways.
pub(crate) struct Spoken {
    /// Whether a stream was asked for.
    pub(crate) stream: bool,
    /// The answer in one piece.
    pub(crate) json: Bytes,
    /// The answer as a stream of events.
    pub(crate) frames: Vec<Bytes>,
    /// How many tokens it has.
    pub(crate) tokens: usize,
}

/// Whether an API answers here.
pub(crate) fn speaks(route: &str) -> bool {
    speaker(route).is_some()
}

/// The answer; none if the body is not a request of the API.
pub(crate) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let route = asked.path.split('?').next().unwrap_or_default();
    speaker(route)?(asked)
}

type Speaker = fn(&Asked<'_>) -> Option<Spoken>;

fn speaker(route: &str) -> Option<Speaker> {
    // As most servers do, it takes a path in any spelling.
    Some(match &*normal_path(route) {
        // The last one as a gateway may have it, which shows no API.
        "/v1/chat/completions"
        | "/fleeting/v1/chat/completions"
        | "/private/v1/chat/completions"
        | "/llm/v2/talk" => chat,
        "/v1/completions" => text::answer,
        "/v1/responses" => responses::answer,
        "/v1/embeddings" => embeddings::answer,
        "/v1/messages" => messages::answer,
        _ => {
            return route
                .contains("/models/")
                .then_some(gemini::answer as Speaker);
        }
    })
}

fn chat(asked: &Asked<'_>) -> Option<Spoken> {
    let prompt = Prompt::parse(asked.body)?;
    let id = format!("chatcmpl-{:x}-{}", asked.started, asked.number);
    let mut completion = Completion::answer(id, asked.started + asked.number, prompt);
    match asked.wish.ending {
        Ending::Stop => {}
        Ending::Length => completion.finish_reason = "length",
        Ending::Tool => completion.finish_reason = "tool_calls",
        Ending::Refusal => completion.refusal = Some("I'm sorry, I cannot help with that."),
    }
    completion.thinks = asked.wish.thinks;
    asked.pad(&mut completion.text);
    Some(Spoken {
        stream: completion.prompt.stream,
        json: completion.json(),
        frames: completion.frames(),
        tokens: completion::tokens(&completion.text).count(),
    })
}

impl Asked<'_> {
    /// What is said to a prompt by this call.
    fn reply(&self, prompt: &str) -> String {
        let mut text = completion::reply(prompt);
        self.pad(&mut text);
        text
    }

    fn pad(&self, text: &mut String) {
        text.extend(std::iter::repeat_n('x', self.wish.padding));
    }

    /// The body as JSON.
    fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(self.body).ok()
    }
}

/// An event that is named twice, in its own line and in its data.
fn named(data: &serde_json::Value) -> Bytes {
    let name = data["type"].as_str().unwrap_or_default();
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}
