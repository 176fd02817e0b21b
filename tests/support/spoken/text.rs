//! OpenAI's completions of a bare prompt.

use bytes::Bytes;
use serde_json::json;

use super::{Asked, Ending, Spoken};
use crate::completion::{event, tokens};

pub(super) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let body = asked.json()?;
    let prompt = body["prompt"].as_str()?;
    let text = asked.reply(prompt);
    let reason = match asked.wish.ending {
        Ending::Length => "length",
        Ending::Stop | Ending::Refusal | Ending::Tool => "stop",
    };
    let document = |text: &str, reason: Option<&str>| {
        json!({
            "id": format!("cmpl-{:x}-{}", asked.started, asked.number),
            "object": "text_completion",
            "created": asked.started + asked.number,
            "model": body["model"],
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": reason}],
        })
    };
    let (input, output) = (tokens(prompt).count(), tokens(&text).count());
    let mut whole = document(&text, Some(reason));
    whole["usage"] = json!({
        "prompt_tokens": input,
        "completion_tokens": output,
        "total_tokens": input + output,
    });
    let mut frames: Vec<Bytes> = tokens(&text)
        .map(|token| event(&document(token, None)))
        .collect();
    frames.push(event(&document("", Some(reason))));
    frames.push(Bytes::from_static(b"data: [DONE]\n\n"));
    Some(Spoken {
        stream: body["stream"] == true,
        json: whole.to_string().into(),
        frames,
        tokens: output,
    })
}
