//! What the filter for Envoy decides, without Envoy: one worker's requests as state machines.
//!
//! ```text
//! events ─► worker ─► exchange ─► llm::classify ─► Bypass ─► provider, untouched
//!                        │
//!                        ├─► hot (this worker's memory) ─► hit
//!                        ├─► flights: the same request is under way here ─► follow it
//!                        ├─► daemon (over a Unix socket) ─► hit
//! effects ◄──────────────┴─► provider; llm::Recorder watches ─► hot, daemon
//! ```
//!
//! It takes events in and gives effects out, knows no clock and makes no calls. A driver brings what
//! Envoy says and carries out the effects: the proxy-wasm filter in `envoy/wasm` is one. What a
//! request means, which steps it takes and which answer may be kept is decided by `reflex-llm`.
//! Whatever goes wrong, the request goes to the provider as if the filter were absent.

pub use reflex_envoy_config as config;

pub mod answer;
pub mod counts;

pub mod exchange;
pub mod worker;

pub mod breaker;
pub mod daemon;
pub mod flights;
pub mod hashes;
pub mod hot;
pub mod memo;
pub mod module;
pub mod pairs;
pub mod refreshed;
pub mod routes;
pub mod shared;
pub mod splits;
pub mod unread;
