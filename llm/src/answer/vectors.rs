//! Embeddings: one vector for each input, each at its place.

use super::objects;
use crate::Rejected;
use crate::json::{Kind, Value};

/// Judges an answer.
pub(super) fn whole(root: Value<'_>) -> Result<(), Rejected> {
    let mut count = 0;
    for item in objects(root, "data")? {
        // Whoever reads the answer pairs vectors with inputs, by place or by index.
        if super::index(item)? != count && item.get("index").is_some() {
            return Err(Rejected::Unexpected);
        }
        let vector = item.get("embedding").ok_or(Rejected::Unexpected)?;
        if !is_base64(vector) && !is_vector(vector) {
            return Err(Rejected::Unexpected);
        }
        count += 1;
    }
    match count {
        0 => Err(Rejected::Unexpected),
        _ => Ok(()),
    }
}

/// Numbers only: some servers write null for one that they could not compute.
pub(super) fn is_vector(value: Value<'_>) -> bool {
    let mut numbers = value.elements().peekable();
    numbers.peek().is_some() && numbers.all(|number| number.kind() == Kind::Number)
}

fn is_base64(value: Value<'_>) -> bool {
    value.string().is_some_and(|text| !text.is_empty())
}
