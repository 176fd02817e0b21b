//! What the crate promises, seen from outside.

#![expect(
    clippy::unwrap_used,
    reason = "a test that is wrong about its input should stop"
)]

mod answer_heads;
mod answers;
mod batches;
mod bodies;
mod cases;
mod completions;
mod control;
mod embeddings;
mod errors;
mod gemini;
mod gemini_answers;
mod hasher;
mod judging;
mod keys;
mod messages;
mod paths;
mod policy;
mod properties;
mod random;
mod recorder;
mod request;
mod respelling;
mod responses;
mod samples;
mod splits;
mod status;
mod tenants;
mod usage;
mod valid;
mod vectors;
