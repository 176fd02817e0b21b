//! `reflex:cache/cache` over `wasi:keyvalue/store`: composed with it, a component that imports the
//! cache runs on hosts that do not offer `reflex:cache`.
//!
//! Names become keys by the same rules as everywhere (`reflex-llm`). Without an operator's policy,
//! requests without a credential are refused, and entries live for an hour unless they say
//! otherwise. The store decides itself how to make room.

pub mod record;

/// Native linkers take no symbol of the names that components export.
#[cfg(target_arch = "wasm32")]
mod component;
