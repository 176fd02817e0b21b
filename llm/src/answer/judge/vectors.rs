//! Embeddings: one vector for each input, each at its place.

use super::{Rules, index, objects};
use crate::Rejected;
use crate::api::VectorsAt;
use crate::json::{Kind, Value};

/// Judges an answer.
pub(super) fn whole(root: Value<'_>, at: VectorsAt, rules: Rules) -> Result<(), Rejected> {
    let count = match at {
        VectorsAt::Data => data(root)?,
        VectorsAt::Embedding => {
            values(root.get("embedding").ok_or(Rejected::Unexpected)?)?;
            1
        }
        VectorsAt::Embeddings => {
            let mut count = 0;
            for embedding in objects(root, "embeddings")? {
                values(embedding)?;
                count += 1;
            }
            count
        }
    };
    match rules.parts {
        _ if count == 0 => Err(Rejected::Unexpected),
        Some(asked) if asked != count => Err(Rejected::Unexpected),
        _ => Ok(()),
    }
}

/// The number of vectors.
fn data(root: Value<'_>) -> Result<u32, Rejected> {
    let mut count = 0;
    for item in objects(root, "data")? {
        // Clients pair vectors with inputs, by place or by index.
        if index(item, count as usize)? != count {
            return Err(Rejected::Unexpected);
        }
        let vector = item.get("embedding").ok_or(Rejected::Unexpected)?;
        let is_base64 = vector.string().is_some_and(|text| !text.is_empty());
        if !is_base64 && vector.kind() != Kind::Numbers {
            return Err(Rejected::Unexpected);
        }
        count += 1;
    }
    Ok(count)
}

fn values(embedding: Value<'_>) -> Result<(), Rejected> {
    match embedding.get("values") {
        // Some servers write null for a number that they could not compute: this is then no vector.
        Some(vector) if vector.kind() == Kind::Numbers => Ok(()),
        _ => Err(Rejected::Unexpected),
    }
}
