//! Gemini's `generateContent`, `streamGenerateContent` (as events or as an array) and
//! `embedContent`.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Ending, Spoken};
use crate::completion::{event, text_of, tokens};

pub(super) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let (route, query) = asked.path.split_once('?').unwrap_or((asked.path, ""));
    let (model, method) = route.rsplit_once('/')?.1.split_once(':')?;
    let body = asked.json()?;
    match method {
        "generateContent" | "streamGenerateContent" => {}
        "embedContent" => return Some(embedding(asked, &body)),
        _ => return None,
    }
    let prompt = text_of(&body["contents"].as_array()?.last()?["parts"]);
    let text = asked.reply(&prompt);
    let reason = match asked.wish.ending {
        Ending::Stop | Ending::Tool => "STOP",
        Ending::Length => "MAX_TOKENS",
        Ending::Refusal => "SAFETY",
    };
    let (input, output) = (tokens(&prompt).count(), tokens(&text).count());
    let piece = |text: &str, reason: Option<&str>| {
        let mut candidate = json!({"index": 0,
            "content": {"role": "model", "parts": [{"text": text}]}});
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        json!({
            "candidates": [candidate],
            "usageMetadata": {
                "promptTokenCount": input,
                "candidatesTokenCount": output,
                "totalTokenCount": input + output,
            },
            "modelVersion": model,
            "responseId": format!("{:x}-{}", asked.started, asked.number),
        })
    };
    let mut pieces: Vec<Value> = tokens(&text).map(|token| piece(token, None)).collect();
    pieces.push(piece("", Some(reason)));
    let frames = pieces.iter().map(event).collect();
    let streams = method == "streamGenerateContent";
    let whole = match streams {
        true => json!(pieces),
        false => piece(&text, Some(reason)),
    };
    Some(Spoken {
        stream: streams && query.split('&').any(|it| it == "alt=sse"),
        json: Bytes::from(whole.to_string()),
        frames,
        tokens: output,
    })
}

fn embedding(asked: &Asked<'_>, body: &Value) -> Spoken {
    let text = text_of(&body["content"]["parts"]);
    let vector = [asked.number, text.len() as u64];
    Spoken {
        stream: false,
        json: Bytes::from(json!({"embedding": {"values": vector}}).to_string()),
        frames: Vec::new(),
        tokens: 0,
    }
}
