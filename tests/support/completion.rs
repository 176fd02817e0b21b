//! Chat completions as the OpenAI API writes them: JSON documents and streams of events.
//!
//! Pure: what is answered follows from the request and the number of the call. The text is
//! derived from the prompt, so that an answer given to the wrong request shows.

use bytes::Bytes;
use serde_json::{Value, json};

/// What a completion is asked with, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The model, as sent.
    pub model: String,
    /// The text of the last message.
    pub text: String,
    /// Whether a stream is wanted.
    pub stream: bool,
    /// Whether the stream is to end with a usage chunk.
    pub include_usage: bool,
    /// How many choices are wanted.
    pub choices: u64,
}

impl Prompt {
    /// Reads a request. `None` if it is not JSON with messages, which a provider answers with 400.
    pub fn parse(body: &[u8]) -> Option<Self> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let last = body["messages"].as_array()?.last()?;
        Some(Self {
            model: body["model"].as_str().unwrap_or("mock").to_owned(),
            text: text_of(&last["content"]),
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"]
                .as_bool()
                .unwrap_or(false),
            choices: body["n"].as_u64().unwrap_or(1),
        })
    }
}

/// A message's content is a string or a list of parts, of which some have text.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

/// What the model thinks, where it is to.
const THOUGHT: &str = "They want to know. Let me see.";

/// One completion.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Another one for each call: what shows whether an answer was replayed.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// What was asked.
    pub prompt: Prompt,
    /// What each choice says.
    pub text: String,
    /// Why each choice ended.
    pub finish_reason: &'static str,
    /// What stands in the messages' `refusal`.
    pub refusal: Option<&'static str>,
    /// Whether `reasoning_content` comes first, and usage tells how much of it there was.
    pub thinks: bool,
}

impl Completion {
    /// The plain answer to a prompt.
    pub fn answer(id: String, created: u64, prompt: Prompt) -> Self {
        let text = reply(&prompt.text);
        Self {
            id,
            created,
            prompt,
            text,
            finish_reason: "stop",
            refusal: None,
            thinks: false,
        }
    }

    /// The completion as one JSON document.
    pub fn json(&self) -> Bytes {
        let says = self.refusal.is_none() && !self.calls();
        let mut message = json!({
            "role": "assistant",
            "content": says.then_some(&self.text),
            "refusal": self.refusal,
            "annotations": [],
        });
        if self.thinks {
            message["reasoning_content"] = json!(THOUGHT);
        }
        if self.calls() {
            message["tool_calls"] = json!([self.call(Some(&self.text))]);
        }
        let choices: Vec<Value> = (0..self.prompt.choices)
            .map(|index| {
                json!({
                    "index": index,
                    "message": message,
                    "logprobs": null,
                    "finish_reason": self.finish_reason,
                })
            })
            .collect();
        let mut document = self.envelope("chat.completion", choices);
        document["usage"] = self.usage();
        Bytes::from(document.to_string())
    }

    /// The completion as events: per choice a role, the tokens and a finish reason; then usage
    /// if it is wanted, and the terminal event.
    pub fn frames(&self) -> Vec<Bytes> {
        let mut frames = Vec::new();
        for index in 0..self.prompt.choices {
            let role = json!({"role": "assistant", "content": "", "refusal": null});
            frames.push(self.chunk(index, role, None));
            if self.thinks {
                frames.extend(
                    tokens(THOUGHT)
                        .map(|token| self.chunk(index, json!({"reasoning_content": token}), None)),
                );
            }
            match self.refusal {
                Some(refusal) => {
                    frames.push(self.chunk(index, json!({"refusal": refusal}), None));
                }
                None if self.calls() => {
                    let mut call = self.call(None);
                    call["index"] = json!(0);
                    frames.push(self.chunk(index, json!({"tool_calls": [call]}), None));
                    let arguments = json!({"what": self.text}).to_string();
                    frames.extend(tokens(&arguments).map(|token| {
                        let call = json!({"index": 0, "function": {"arguments": token}});
                        self.chunk(index, json!({"tool_calls": [call]}), None)
                    }));
                }
                None => frames.extend(
                    tokens(&self.text)
                        .map(|token| self.chunk(index, json!({"content": token}), None)),
                ),
            }
            frames.push(self.chunk(index, json!({}), Some(self.finish_reason)));
        }
        if self.prompt.include_usage {
            let mut chunk = self.envelope("chat.completion.chunk", Vec::new());
            chunk["usage"] = self.usage();
            frames.push(event(&chunk));
        }
        frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
        frames
    }

    fn calls(&self) -> bool {
        self.finish_reason == "tool_calls"
    }

    /// The call of a tool; in a stream its arguments follow.
    fn call(&self, what: Option<&str>) -> Value {
        let arguments = what.map(|what| json!({"what": what}).to_string());
        json!({
            "id": format!("call_{}", self.id),
            "type": "function",
            "function": {"name": "look_up", "arguments": arguments.unwrap_or_default()},
        })
    }

    fn chunk(&self, index: u64, delta: Value, finish_reason: Option<&str>) -> Bytes {
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": null,
            "finish_reason": finish_reason,
        });
        let mut chunk = self.envelope("chat.completion.chunk", vec![choice]);
        if self.prompt.include_usage {
            chunk["usage"] = Value::Null;
        }
        event(&chunk)
    }

    fn envelope(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.prompt.model,
            "choices": choices,
            "service_tier": "default",
            "system_fingerprint": "fp_mock",
        })
    }

    fn usage(&self) -> Value {
        let prompt = tokens(&self.prompt.text).count() as u64;
        let thought = match self.thinks {
            true => tokens(THOUGHT).count() as u64,
            false => 0,
        };
        let completion = (thought + tokens(&self.text).count() as u64) * self.prompt.choices;
        json!({
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": thought},
        })
    }
}

/// An error in the shape of the API.
pub fn error(status: u16, message: &str) -> Bytes {
    let kind = if status == 429 {
        "rate_limit_error"
    } else {
        "server_error"
    };
    let error = json!({"message": message, "type": kind, "param": null, "code": null});
    Bytes::from(json!({"error": error}).to_string())
}

/// One event of a stream.
pub fn event(data: &Value) -> Bytes {
    Bytes::from(format!("data: {data}\n\n"))
}

/// Words with the space before them: near enough to a provider's tokens.
pub fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = std::iter::once(0)
        .chain(
            text.match_indices(' ')
                .map(|(at, _)| at)
                .filter(|&at| at > 0),
        )
        .chain([text.len()])
        .collect();
    let cuts: Vec<(usize, usize)> = starts.windows(2).map(|pair| (pair[0], pair[1])).collect();
    cuts.into_iter()
        .map(move |(from, to)| &text[from..to])
        .filter(|token| !token.is_empty())
}

/// What is said to a prompt. It ends in a double quote, which a replay must not stumble over.
pub(crate) fn reply(prompt: &str) -> String {
    const OPENINGS: [&str; 4] = [
        "That is a good question, and the short answer is that it depends.",
        "There are two parts to this; the first explains most of it.",
        "People have wondered about this for a long time.",
        "Let us take it step by step, beginning with what is known.",
    ];
    const MIDDLES: [&str; 4] = [
        "Seen from afar it looks simple – from nearby, less so.",
        "What matters most is how often it happens, and how long.",
        "Most of it follows from a few facts that are easy to check.",
        "The naïve view is nearly right, which makes it hard to shake.",
    ];
    let sum = prompt.bytes().fold(7_usize, |sum, byte| {
        sum.wrapping_mul(31) + usize::from(byte)
    });
    let opening = OPENINGS[sum % OPENINGS.len()];
    let middle = MIDDLES[sum / OPENINGS.len() % MIDDLES.len()];
    format!("{opening} {middle} You asked: \"{prompt}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_make_up_the_text() {
        for text in ["", "one", "one two", "  two  spaces ", "naïve – \"quoted\""] {
            assert_eq!(tokens(text).collect::<String>(), text);
        }
    }
}
