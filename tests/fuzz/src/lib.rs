//! What the fuzz targets have in common: a second reader of JSON and of event streams, written
//! after the standards and sharing nothing with the crates under test, and a way to take numbers
//! from an input.

pub mod bytes;
pub mod events;
pub mod json;
