//! The filter for an unmodified Envoy: repeated LLM requests are answered without the provider.
//!
//! ```text
//! Envoy ─► filter ─► worker ─► exchange ─► llm::classify ─► Bypass ─► provider, untouched
//!            ▲                    │
//!            │                    ├─► hot (this worker's memory) ─► hit
//!            │                    ├─► flights: the same request is under way here ─► follow it
//!            │                    ├─► daemon (over a Unix socket) ─► hit
//!            └── effects ◄────────┴─► provider; llm::Recorder watches ─► hot, daemon
//! ```
//!
//! Envoy runs one of these modules in each of its worker threads. Only `filter` talks to Envoy;
//! everything else takes events in and gives effects out, knows no clock and makes no calls, and
//! is tested natively. What a request means and which answer may be kept is `reflex-llm`'s
//! business. Whatever goes wrong, the request goes to the provider as if we were not there.

pub use reflex_envoy_config as config;

pub mod answer;
pub mod counts;

pub mod exchange;
pub mod worker;

pub mod breaker;
pub mod daemon;
pub mod flights;
pub mod hot;
pub mod module;
pub mod refreshed;
pub mod routes;
pub mod shared;
pub mod splits;
pub mod unread;

// Its calls into Envoy cannot be linked into a native test.
#[cfg(not(test))]
pub mod filter;
