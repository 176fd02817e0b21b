//! The native host of reflex-edge.
//!
//! A repeated LLM request is answered from local memory and disk, without the provider being
//! called. The modules stand in the order in which a request meets them:
//!
//! ```text
//! client ─► serve ─► runtime (guest: classify) ─► cache ─► store
//!                        └─► miss: serve::upstream ─► runtime (recording) ─► cache
//! ```
//!
//! Start with [`cache`]: it is what everything else is for. Without default features this crate
//! is the cache alone; `component` adds the WIT host for any wasmtime store, `http` the bridge to
//! `wasi:http` 0.3, and `serve` (the default) the daemon.

#[cfg(feature = "serve")]
pub mod config;
#[cfg(feature = "serve")]
pub mod metrics;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "serve")]
pub mod tenants;

#[cfg(feature = "http")]
mod answer;
pub mod clock;
#[cfg(feature = "component")]
#[cfg(feature = "component")]
pub mod runtime;

mod library;

pub mod cache;
mod store;

pub use cache::{Durability, Entry, InsertError, OpenError, Stats};
pub use library::{Answer, Builder, Cache, EntryWriter, Fetched, InsertOptions, Origin};
pub use reflex_llm::{Key, Tenant};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use store::fuzzing;

pub use cache::{
    L1Bound, L1Cache, L1CacheHandle, L1LookupResult, ReflexStatus, hash_prompt, hash_tenant_prompt,
};
