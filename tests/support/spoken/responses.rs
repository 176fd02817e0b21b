//! OpenAI's responses.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Ending, Spoken, named};
use crate::completion::{text_of, tokens};

pub(super) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let body = asked.json()?;
    let prompt = match &body["input"] {
        Value::String(text) => text.clone(),
        Value::Array(items) => text_of(&items.last()?["content"]),
        _ => return None,
    };
    let text = asked.reply(&prompt);
    let id = format!("{:x}_{}", asked.started, asked.number);
    let part = match asked.wish.ending {
        Ending::Refusal => json!({"type": "refusal", "refusal": "I'm sorry."}),
        Ending::Stop | Ending::Length | Ending::Tool => {
            json!({"type": "output_text", "text": text, "annotations": []})
        }
    };
    let item = |status: &str, content: Value| {
        json!({
            "id": format!("msg_{id}"),
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        })
    };
    let (input, output) = (tokens(&prompt).count(), tokens(&text).count());
    let response = |status: &str, output_items: Value| {
        let cut_short = status == "incomplete";
        json!({
            "id": format!("resp_{id}"),
            "object": "response",
            "created_at": asked.started + asked.number,
            "status": status,
            "error": null,
            "incomplete_details": cut_short.then(|| json!({"reason": "max_output_tokens"})),
            "instructions": null,
            "metadata": {},
            "model": body["model"],
            "output": output_items,
            "parallel_tool_calls": true,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "store": false,
            "usage": {
                "input_tokens": input,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": input + output,
            },
        })
    };
    let (status, last) = match asked.wish.ending {
        Ending::Length => ("incomplete", "response.incomplete"),
        Ending::Stop | Ending::Refusal | Ending::Tool => ("completed", "response.completed"),
    };
    let done = item(status, json!([part]));
    let whole = response(status, json!([done]));

    let mut events = vec![
        json!({"type": "response.created", "response": response("in_progress", json!([]))}),
        json!({"type": "response.output_item.added", "output_index": 0,
            "item": item("in_progress", json!([]))}),
    ];
    let place = json!({"item_id": format!("msg_{id}"), "output_index": 0, "content_index": 0});
    let at_place = |mut event: Value| {
        for (name, value) in place.as_object().into_iter().flatten() {
            event[name] = value.clone();
        }
        event
    };
    events.push(at_place(json!({"type": "response.content_part.added",
        "part": {"type": "output_text", "text": "", "annotations": []}})));
    events.extend(tokens(&text).map(|token| {
        at_place(json!({"type": "response.output_text.delta", "delta": token, "logprobs": []}))
    }));
    events.push(at_place(
        json!({"type": "response.content_part.done", "part": part}),
    ));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": done}));
    events.push(json!({"type": last, "response": whole}));
    let numbered = events.into_iter().enumerate().map(|(number, mut event)| {
        event["sequence_number"] = json!(number);
        named(&event)
    });
    Some(Spoken {
        stream: body["stream"] == true,
        frames: numbered.collect(),
        json: Bytes::from(whole.to_string()),
        tokens: output,
    })
}
