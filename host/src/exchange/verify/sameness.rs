//! Whether two answers of a provider to one request say the same.
//!
//! Two answers are never equal byte by byte: they have ids, times, counts of tokens and opaque
//! signatures of their own, and streams are cut elsewhere. These are left out, and streams are
//! put together first. Vectors of a model differ in their last digits from call to call, as numbers and
//! in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use std::collections::BTreeMap;

/// How alike two answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// Byte for byte.
    Identical,
    /// They say the same.
    Equal,
    /// They do not, or cannot be compared.
    Different,
}

/// Numbers with a point may differ by this much: vectors have components below 1.
const TOLERANCE: f64 = 1e-3;

/// The member that holds a vector: an array of numbers, or their bytes in base64.
const VECTOR: &str = "embedding";

/// No component of a vector is larger. In base64, a vector may be of another type than 32-bit floats, and
/// nothing says so: read as floats, bytes of integers have components of any size.
const COMPONENT_MAX: f32 = 1e4;

/// Members that differ from call to call and say nothing.
const VOLATILE: [&str; 17] = [
    "created",
    "createTime",
    "encrypted_content",
    "fingerprint",
    "id",
    "obfuscation",
    "responseId",
    "sequence_number",
    "service_tier",
    "signature",
    "system_fingerprint",
    "thoughtSignature",
    "time_info",
    "timings",
    "usage",
    "usageMetadata",
    "x_groq",
];

/// Texts that a stream brings in pieces.
const IN_PIECES: [&str; 10] = [
    "arguments",
    "content",
    "delta",
    "partial_json",
    "reasoning",
    "reasoning_content",
    "refusal",
    "text",
    "thinking",
    "transcript",
];

/// Members that number a part of a stream.
const NUMBERS: [&str; 3] = ["output_index", "content_index", "index"];

/// Compares a kept answer with a fresh one.
pub(super) fn compare(is_stream: bool, kept: &[u8], fresh: &[u8]) -> Sameness {
    if kept == fresh {
        return Sameness::Identical;
    }
    let is_equal = match is_stream {
        true => match (assembled(kept), assembled(fresh)) {
            (Some(kept), Some(fresh)) => kept == fresh,
            _ => false,
        },
        false => match (serde_json::from_slice(kept), serde_json::from_slice(fresh)) {
            (Ok(kept), Ok(fresh)) => are_equal(&kept, &fresh),
            _ => false,
        },
    };
    match is_equal {
        true => Sameness::Equal,
        false => Sameness::Different,
    }
}

fn is_volatile(name: &str) -> bool {
    VOLATILE.contains(&name) || name.ends_with("_id") || name.ends_with("_at")
}

/// As deep as the reader lets a value be: 128.
fn are_equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(ones), Value::Object(others)) => {
            let none = Value::Null;
            let names = ones.keys().chain(others.keys());
            let mut names = names.filter(|name| !is_volatile(name));
            names.all(|name| {
                let one = ones.get(name).unwrap_or(&none);
                let other = others.get(name).unwrap_or(&none);
                are_equal(one, other) || name == VECTOR && are_near(one, other)
            })
        }
        (Value::Array(ones), Value::Array(others)) => {
            let mut pairs = ones.iter().zip(others);
            ones.len() == others.len() && pairs.all(|(one, other)| are_equal(one, other))
        }
        (Value::Number(one), Value::Number(other)) => {
            one == other
                || (one.is_f64() || other.is_f64())
                    && match (one.as_f64(), other.as_f64()) {
                        (Some(one), Some(other)) => (one - other).abs() <= TOLERANCE,
                        _ => false,
                    }
        }
        _ => one == other,
    }
}

/// Whether two texts are vectors of 32-bit floats in base64 that differ in their last digits only.
fn are_near(one: &Value, other: &Value) -> bool {
    let vector = |value: &Value| {
        let bytes = STANDARD.decode(value.as_str()?).ok()?;
        let (floats, rest) = bytes.as_chunks::<4>();
        let floats: Vec<f32> = floats.iter().map(|it| f32::from_le_bytes(*it)).collect();
        // Neither has NaN a size within it.
        let is_vector = rest.is_empty() && floats.iter().all(|it| it.abs() <= COMPONENT_MAX);
        is_vector.then_some(floats)
    };
    let (Some(ones), Some(others)) = (vector(one), vector(other)) else {
        return false;
    };
    let mut pairs = ones.iter().zip(&others);
    ones.len() == others.len()
        && pairs.all(|(one, other)| f64::from(one - other).abs() <= TOLERANCE)
}

/// What a stream says at one place.
#[derive(Default, PartialEq)]
struct Said {
    /// Pieces of text, joined.
    text: String,
    /// Other values, each once while it stays the same.
    values: Vec<Value>,
}

/// What a stream says, by place; none if it is no stream of JSON.
fn assembled(stream: &[u8]) -> Option<BTreeMap<String, Said>> {
    let stream = str::from_utf8(stream).ok()?;
    let mut said = BTreeMap::new();
    for event in stream.replace("\r\n", "\n").split("\n\n") {
        let lines = event.lines().filter_map(|line| line.strip_prefix("data:"));
        let data = lines.map(str::trim).collect::<Vec<_>>().join("\n");
        if data.is_empty() || data == "[DONE]" {
            continue;
        }
        let data: Value = serde_json::from_str(&data).ok()?;
        let kind = data.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind == "ping" {
            continue;
        }
        let mut place = kind.to_owned();
        for name in NUMBERS {
            if let Some(number) = data.get(name).and_then(Value::as_u64) {
                place = format!("{place}#{number}");
            }
        }
        // A piece says nothing by itself about how many there are.
        add(&place, "", &data, &mut said);
    }
    Some(said)
}

fn add(place: &str, name: &str, value: &Value, said: &mut BTreeMap<String, Said>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (name, value) in members.iter().filter(|(name, _)| !is_volatile(name)) {
                add(&format!("{place}.{name}"), name, value, said);
            }
        }
        Value::Array(elements) => {
            for (at, element) in elements.iter().enumerate() {
                let number = element.get("index").and_then(Value::as_u64);
                let number = number.unwrap_or(at as u64);
                add(&format!("{place}[{number}]"), name, element, said);
            }
        }
        Value::String(text) if IN_PIECES.contains(&name) => {
            if !text.is_empty() {
                said.entry(place.to_owned())
                    .or_default()
                    .text
                    .push_str(text);
            }
        }
        value => {
            let values = &mut said.entry(place.to_owned()).or_default().values;
            if values.last() != Some(value) {
                values.push(value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is_stream: bool, kept: &str, fresh: &str, expected: Sameness) {
        let found = compare(is_stream, kept.as_bytes(), fresh.as_bytes());
        assert_eq!(found, expected, "{kept} {fresh}");
    }

    #[test]
    fn ids_times_and_counts_do_not_count_and_all_else_does() {
        let answer = |id: &str, text: &str| {
            format!(
                r#"{{"id":"{id}","created":{0},"choices":[{{"message":{{"content":"{text}","tool_calls":[{{"id":"{id}"}}]}}}}],"usage":{{"total_tokens":{0}}}}}"#,
                id.len()
            )
        };
        check(
            false,
            &answer("a", "x"),
            &answer("a", "x"),
            Sameness::Identical,
        );
        check(
            false,
            &answer("a", "x"),
            &answer("bb", "x"),
            Sameness::Equal,
        );
        check(
            false,
            &answer("a", "ü"),
            &answer("a", "\\u00fc"),
            Sameness::Equal,
        );
        check(
            false,
            &answer("a", "x"),
            &answer("bb", "y"),
            Sameness::Different,
        );
        check(false, r#"{"a":[1]}"#, r#"{"a":[1,1]}"#, Sameness::Different);
        check(false, r#"{"a":1,"b":null}"#, r#"{"a":1}"#, Sameness::Equal);
        check(false, "{}", "no JSON", Sameness::Different);
    }

    #[test]
    fn vectors_may_differ_in_their_last_digits() {
        let answer = |number: &str| format!(r#"{{"data":[{{"index":0,"embedding":[{number}]}}]}}"#);
        check(
            false,
            &answer("0.1234567"),
            &answer("0.1234569"),
            Sameness::Equal,
        );
        check(false, &answer("0.12"), &answer("0.13"), Sameness::Different);
        check(false, &answer("1"), &answer("2"), Sameness::Different);
    }

    #[test]
    fn vectors_in_base64_are_compared_as_numbers() {
        let answer = |bytes: &[u8]| {
            let text = STANDARD.encode(bytes);
            format!(r#"{{"data":[{{"index":0,"embedding":"{text}"}}]}}"#)
        };
        let floats =
            |vector: &[f32]| -> Vec<u8> { vector.iter().flat_map(|it| it.to_le_bytes()).collect() };
        let vector = |vector: &[f32]| answer(&floats(vector));
        let kept = vector(&[0.123_456_7, -0.5]);
        check(false, &kept, &kept, Sameness::Identical);
        check(false, &kept, &vector(&[0.123_456_9, -0.5]), Sameness::Equal);
        check(false, &kept, &vector(&[0.13, -0.5]), Sameness::Different);
        check(false, &kept, &vector(&[0.123_456_7]), Sameness::Different);
        check(
            false,
            &kept,
            &vector(&[0.123_456_7, f32::NAN]),
            Sameness::Different,
        );
        // Integers of 8 bits: as floats, only the first component differs, and hardly.
        let integers = |last: u8| answer(&[0, 0, last, 0, 200, 100, 120, 127]);
        check(false, &integers(1), &integers(2), Sameness::Different);
        // Not base64, and not a vector.
        let text = |text: &str| format!(r#"{{"embedding":"{text}"}}"#);
        check(false, &text("AA=A"), &text("AAA="), Sameness::Different);
        let other = |bytes: &[u8]| format!(r#"{{"text":"{}"}}"#, STANDARD.encode(bytes));
        let (one, near) = (floats(&[0.123_456_7]), floats(&[0.123_456_9]));
        check(false, &other(&one), &other(&near), Sameness::Different);
    }

    #[test]
    fn streams_are_compared_by_what_they_say_however_they_are_cut() {
        let chat = |id: &str, pieces: &[&str], end: &str| {
            let event = |delta: String| {
                format!(
                    "data: {{\"id\":\"{id}\",\"model\":\"m\",\"choices\":[{{\"index\":0,{delta}}}]}}\n\n"
                )
            };
            let mut stream = event("\"delta\":{\"role\":\"assistant\",\"content\":\"\"}".into());
            for piece in pieces {
                let delta = format!("\"delta\":{{\"content\":\"{piece}\"}},\"finish_reason\":null");
                stream += &event(delta);
            }
            stream += &event(format!("\"delta\":{{}},\"finish_reason\":\"{end}\""));
            stream + "data: [DONE]\n\n"
        };
        let one = chat("a", &["Hel", "lo"], "stop");
        check(
            true,
            &one,
            &chat("b", &["H", "ello"], "stop"),
            Sameness::Equal,
        );
        check(
            true,
            &one,
            &chat("b", &["H", "ello"], "length"),
            Sameness::Different,
        );
        check(
            true,
            &one,
            &chat("b", &["Hello", "lo"], "stop"),
            Sameness::Different,
        );
        check(
            true,
            &chat("a", &["a", "a"], "stop"),
            &chat("a", &["a"], "stop"),
            Sameness::Different,
        );

        let message = |index: u32, pieces: &[&str]| {
            let mut stream = "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned();
            for piece in pieces {
                stream += &format!(
                    "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":{index},\"delta\":{{\"type\":\"text_delta\",\"text\":\"{piece}\"}}}}\n\n"
                );
            }
            stream
        };
        check(
            true,
            &message(0, &["ab"]),
            &message(0, &["a", "b"]),
            Sameness::Equal,
        );
        check(
            true,
            &message(0, &["ab"]),
            &message(1, &["ab"]),
            Sameness::Different,
        );
    }
}
