//! Embeddings: one vector for each input, each at its place.

use super::{index, objects};
use crate::Rejected;
use crate::api::VectorsAt;
use crate::json::{Kind, Value};

/// Judges an answer.
pub(super) fn whole(root: Value<'_>, at: VectorsAt) -> Result<(), Rejected> {
    match at {
        VectorsAt::Data => data(root),
        VectorsAt::Embedding => values(root.get("embedding").ok_or(Rejected::Unexpected)?),
        VectorsAt::Embeddings => {
            let mut embeddings = objects(root, "embeddings")?.peekable();
            embeddings.peek().ok_or(Rejected::Unexpected)?;
            embeddings.try_for_each(values)
        }
    }
}

fn data(root: Value<'_>) -> Result<(), Rejected> {
    let mut count = 0;
    for item in objects(root, "data")? {
        // Whoever reads the answer pairs vectors with inputs, by place or by index.
        if item.get("index").is_some() && index(item)? != count {
            return Err(Rejected::Unexpected);
        }
        let vector = item.get("embedding").ok_or(Rejected::Unexpected)?;
        let is_base64 = vector.string().is_some_and(|text| !text.is_empty());
        if !is_base64 && !is_vector(vector) {
            return Err(Rejected::Unexpected);
        }
        count += 1;
    }
    match count {
        0 => Err(Rejected::Unexpected),
        _ => Ok(()),
    }
}

fn values(embedding: Value<'_>) -> Result<(), Rejected> {
    match embedding.get("values") {
        Some(vector) if is_vector(vector) => Ok(()),
        _ => Err(Rejected::Unexpected),
    }
}

/// Numbers only: some servers write null for one that they could not compute.
fn is_vector(value: Value<'_>) -> bool {
    let mut numbers = value.elements().peekable();
    numbers.peek().is_some() && numbers.all(|number| number.kind() == Kind::Number)
}
