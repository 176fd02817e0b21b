//! Batches of embeddings, text by text: each has the key of the request that asks for it alone, and
//! an answer is put together of those that are known and those that the provider was asked for.
//!
//! ```text
//! request ─► Batch ─► a key for each text        answer ─► Vectors ─► the answer to each text alone
//!              └► asking(the rest)                known + rest ─► Frame + items ─► answer
//! ```
//!
//! Nothing is computed of a vector, nor is it spelled anew: answers are cut and joined as text.
//! Where that is not certain to be right there is no [`Batch`] or no [`Vectors`], and the whole
//! batch is one entry, like any other request.

mod batch;
mod found;
pub(crate) mod spans;
mod vectors;

pub use batch::{Batch, ELEMENTS_MAX, Element};
pub use found::Found;
pub use vectors::{Frame, Tokens, Vectors, shares};
