//! Protobuf messages as YAML or JSON has them: fields in either spelling, and what stands behind
//! an `Any`.

use serde_json::Value;

const NOTHING: &Value = &Value::Null;

/// A field by its name in `snake_case`; Envoy reads `camelCase` as well, and dumps either.
pub(crate) fn field<'v>(message: &'v Value, name: &str) -> &'v Value {
    if let Some(value) = message.get(name).filter(|value| !value.is_null()) {
        return value;
    }
    let mut camel = String::with_capacity(name.len());
    let mut upper = false;
    for character in name.chars() {
        match character {
            '_' => upper = true,
            _ if upper => {
                camel.push(character.to_ascii_uppercase());
                upper = false;
            }
            _ => camel.push(character),
        }
    }
    message.get(&camel).unwrap_or(NOTHING)
}

/// A field of fields.
pub(crate) fn at<'v>(message: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(message, |value, name| field(value, name))
}

/// The elements of a repeated field.
pub(crate) fn list<'v>(message: &'v Value, name: &str) -> &'v [Value] {
    field(message, name).as_array().map_or(&[], Vec::as_slice)
}

/// A text; none is empty.
pub(crate) fn text<'v>(message: &'v Value, name: &str) -> &'v str {
    field(message, name).as_str().unwrap_or_default()
}

/// Whether a flag is set.
pub(crate) fn flag(message: &Value, name: &str) -> bool {
    field(message, name).as_bool().unwrap_or(false)
}

/// A number of 64 bits, which JSON may have as text.
pub(crate) fn number(message: &Value, name: &str) -> Option<u64> {
    let value = field(message, name);
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// What an `Any` holds: the name of its type, and the message.
pub(crate) fn typed(any: &Value) -> (&str, &Value) {
    let kind = after_slash(any.get("@type").and_then(Value::as_str).unwrap_or_default());
    match kind.ends_with(".TypedStruct") {
        true => (after_slash(text(any, "type_url")), field(any, "value")),
        false => (kind, any),
    }
}

fn after_slash(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

/// Calls `see` for each object in a text, outer ones first. It says whether to look inside.
pub(crate) fn objects<'v>(value: &'v Value, see: &mut impl FnMut(&'v Value) -> bool) {
    match value {
        Value::Object(fields) if see(value) => {
            fields.values().for_each(|field| objects(field, see));
        }
        Value::Array(elements) => elements.iter().for_each(|element| objects(element, see)),
        _ => {}
    }
}
