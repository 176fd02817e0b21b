//! Batches of embeddings, text by text: each text has the key of the request that asks for it
//! alone, and an answer is joined from cached parts and the provider's.
//!
//! ```text
//! request ─► Batch ─► a key for each text        answer ─► Vectors ─► the answer to each text alone
//!              └► asking(the rest)                known + rest ─► Frame + items ─► answer
//! ```
//!
//! Answers are cut and joined as text, so vectors are neither parsed nor spelled anew. Where that
//! is not certain to be right, no [`Batch`] or no [`Vectors`] is made, and the whole batch is one
//! entry, like any other request.

mod batch;
mod found;
mod vectors;

pub use batch::{Batch, ELEMENTS_MAX, Element, are_taken_apart};
pub use found::Found;
pub use vectors::{Frame, Tokens, Vectors, shares};
