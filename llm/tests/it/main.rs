//! The promises of the crate, seen from outside.

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
mod disguises;
mod embeddings;
mod empty;
mod endings;
mod errors;
mod flow;
mod gemini;
mod gemini_answers;
mod hasher;
mod headers;
mod identity;
mod judging;
mod keys;
mod messages;
mod order;
mod origins;
mod outside;
mod paths;
mod policy;
mod properties;
mod random;
mod recorder;
mod request;
mod respelling;
mod responses;
mod samples;
mod spelling;
mod splits;
mod stated;
mod status;
mod tenants;
mod traces;
mod usage;
mod valid;
mod vectors;
