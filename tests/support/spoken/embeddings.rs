//! OpenAI's embeddings. A vector tells which text it belongs to and which call made it.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Asked, Spoken};
use crate::behaviour::Oddity;
use crate::completion::tokens;

pub(super) fn answer(asked: &Asked<'_>) -> Option<Spoken> {
    let body = asked.json()?;
    let texts: Vec<Value> = match &body["input"] {
        Value::Array(texts) if !texts.iter().all(Value::is_number) => texts.clone(),
        one => vec![one.clone()],
    };
    let is_base64 = body["encoding_format"] == "base64";
    let mut vectors: Vec<Vec<u64>> = texts
        .iter()
        .map(|text| Some([place_of(text)?, [asked.number, 3].to_vec()].concat()))
        .collect::<Option<_>>()?;
    // Numbers of ten digits, as many as are wanted.
    for (at, vector) in vectors.iter_mut().enumerate() {
        let more = asked.wish.padding.saturating_sub(vector.len());
        vector.extend((0..more).map(|place| 1_000_000_000 + (at * 1000 + place) as u64));
    }
    if let (Some(Oddity::Length), Some(last)) = (asked.wish.oddity, vectors.last_mut()) {
        last.pop();
    }
    let mut data: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let vector = match is_base64 {
                true => json!(base64(vector)),
                false => json!(vector),
            };
            json!({"object": "embedding", "index": index, "embedding": vector})
        })
        .collect();
    let last = data.len() - 1;
    match asked.wish.oddity {
        Some(Oddity::Short) => drop(data.pop()),
        Some(Oddity::Shuffled) => data.swap(last, last.saturating_sub(1)),
        Some(Oddity::Twice) => data[last]["index"] = json!(last.saturating_sub(1)),
        _ => {}
    }
    let count = |text: &Value| text.as_str().map_or(1, |text| tokens(text).count());
    let used = texts.iter().map(count).sum::<usize>();
    let mut whole = json!({
        "object": "list",
        "data": data,
        "model": body["model"],
        "usage": {"prompt_tokens": used, "total_tokens": used},
    });
    match asked.wish.oddity {
        Some(Oddity::Field) => whole["tag"] = json!(asked.number),
        Some(Oddity::Model) => whole["model"] = json!("mock-2"),
        _ => {}
    }
    Some(Spoken {
        stream: false,
        json: Bytes::from(whole.to_string()),
        frames: Vec::new(),
        tokens: used,
    })
}

/// Two numbers that a text has for itself, both exact as 32-bit floats.
fn place_of(text: &Value) -> Option<Vec<u64>> {
    let spelled = match text {
        Value::String(text) => text.clone(),
        Value::Array(tokens) if !tokens.is_empty() => text.to_string(),
        _ => return None,
    };
    let mixed = |seed: u64| {
        let step = |hash: u64, byte: u8| (hash * 31 + u64::from(byte)) % 999_983;
        spelled.bytes().fold(seed, step)
    };
    Some(vec![mixed(7), mixed(11)])
}

/// As 32-bit floats, little-endian, in base64.
fn base64(vector: &[u64]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector
        .iter()
        .flat_map(|&number| (number as f32).to_le_bytes())
        .collect();
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let at = |place: usize| u32::from(three.get(place).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(match place <= three.len() {
                true => char::from(digit),
                false => '=',
            });
        }
    }
    text
}
