//! Anthropic's messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Ending, Spoken, named};
use crate::completion::{text_of, tokens};

pub(super) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let body = asked.json()?;
    let prompt = text_of(&body["messages"].as_array()?.last()?["content"]);
    let text = asked.reply(&prompt);
    let reason = match asked.wish.ending {
        Ending::Stop => "end_turn",
        Ending::Length => "max_tokens",
        Ending::Refusal => "refusal",
        Ending::Tool => "tool_use",
    };
    let (input, output) = (tokens(&prompt).count(), tokens(&text).count());
    let message = |content: Value, reason: Option<&str>, output: usize| {
        json!({
            "id": format!("msg_{:x}_{}", asked.started, asked.number),
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": content,
            "stop_reason": reason,
            "stop_sequence": null,
            "usage": {
                "input_tokens": input,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": output,
            },
        })
    };
    let calls = asked.wish.ending == Ending::Tool;
    let block = |text: &str| match calls {
        true => json!({"type": "tool_use", "id": format!("toolu_{}", asked.number),
        "name": "look_up", "input": match text {
            "" => json!({}),
            text => json!({"what": text}),
        }}),
        false => json!({"type": "text", "text": text}),
    };
    let whole = message(json!([block(&text)]), Some(reason), output);
    let mut frames = vec![
        named(&json!({"type": "message_start", "message": message(json!([]), None, 1)})),
        named(&json!({"type": "content_block_start", "index": 0,
            "content_block": block("")})),
        named(&json!({"type": "ping"})),
    ];
    let input = json!({"what": text}).to_string();
    frames.extend(tokens(if calls { &input } else { &text }).map(|token| {
        let delta = match calls {
            true => json!({"type": "input_json_delta", "partial_json": token}),
            false => json!({"type": "text_delta", "text": token}),
        };
        named(&json!({"type": "content_block_delta", "index": 0, "delta": delta}))
    }));
    frames.push(named(&json!({"type": "content_block_stop", "index": 0})));
    frames.push(named(&json!({"type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": output}})));
    frames.push(named(&json!({"type": "message_stop"})));
    Some(Spoken {
        stream: body["stream"] == true,
        json: Bytes::from(whole.to_string()),
        frames,
        tokens: output,
    })
}
