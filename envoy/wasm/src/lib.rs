//! The filter for an unmodified Envoy: repeated LLM requests are answered without the provider.
//!
//! ```text
//! Envoy ─► filter ─► events ─► core
//!            └── calls ◄── effects ◄┘
//! ```
//!
//! Envoy runs one of these modules in each of its worker threads. This crate translates between
//! proxy-wasm and `reflex-envoy-core`, which makes every decision.

mod abi;
pub mod filter;
