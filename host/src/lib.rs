//! A cache for LLM answers: as a library, as a host of WebAssembly components, and as a daemon.
//!
//! A repeated LLM request is answered from local memory and disk, without calling the provider. Two
//! requests share an answer only if they come from the same tenant and agree in everything that can
//! change it.
//!
//! # As a library
//!
//! [`Cache`] is for programs that bring their own prompts and answers. It needs neither wasm nor an
//! async runtime; answers outlive the process.
//!
//! ```
//! use reflex_host::{Cache, Key, Origin, Tenant};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path();
//! let cache = Cache::builder(dir)
//!     .disk_bytes_max(1 << 30)
//!     .ttl(Duration::from_secs(24 * 3600))
//!     .open()?;
//!
//! // The tenant and the prompt. Tenants share nothing.
//! let key = Key::for_prompt(&Tenant::of_group("research"), "Why is the sky blue?");
//!
//! // Concurrent calls for one key call the model once.
//! let ask_the_model = || Ok::<_, std::io::Error>("Rayleigh scattering.");
//! let answer = cache.get_or_fetch_blocking(&key, ask_the_model)?;
//! assert_eq!(answer.origin(), Origin::Fetched);
//! let answer = cache.get_or_fetch_blocking(&key, ask_the_model)?;
//! assert_eq!(answer.origin(), Origin::Hit);
//! assert_eq!(answer.payload(), "Rayleigh scattering.");
//! # Ok(())
//! # }
//! ```
//!
//! Go on with [`Cache::get_or_fetch`] for async programs, [`Cache::writer`] for answers that come
//! piece by piece, [`Cache::purge_tenant`] and [`Cache::stats`]. [`L1Cache`] is for memory alone and
//! payloads of any type, as they are.
//!
//! # In a wasmtime host
//!
//! The module [`component`] offers the cache to components. A [`grant::Grant`] says what each may
//! do: a namespace, one tenant or any, read-only, a quota, a rate. A call beyond the grant is an
//! error that the guest can handle.
//!
//! | a guest that | is given |
//! |---|---|
//! | calls `reflex:cache` | [`component::add_to_linker`] |
//! | was written for `wasi:keyvalue` | [`component::add_keyvalue_to_linker`] |
//! | makes LLM calls over HTTP, and knows of no cache | [`component::Transparent`], the hooks of its outgoing HTTP |
//! | decides how requests are handled | [`component::PolicyGuest`], a plain function call |
//! | is a `wasi:http` handler in front of another | [`component::Handler`], a pool of instances |
//!
//! `host/examples/` has a program for each; the smallest has less than 60 lines.
//!
//! # Features
//!
//! Without any, the crate is the cache alone and pulls in neither wasmtime nor hyper nor tokio.
//!
//! | feature | what it adds | with |
//! |---|---|---|
//! | – | [`Cache`], [`cache`] | |
//! | `encryption` | encryption at rest: [`cache::EncryptionKeys`] | ring |
//! | `component` | [`component`]: `reflex:cache/cache` and `wasi:keyvalue` for any wasmtime store, policy components | wasmtime |
//! | `http` | the bridge to `wasi:http` 0.3: [`component::Handler`], [`component::Transparent`] | `component`, tokio |
//! | `serve` | the daemon: [`serve`]; exchanges recorded for tests: [`cassette`] | `encryption`, tokio, hyper; no wasmtime |
//! | `middleware` | the daemon runs a component: the built-in one, or `--component` | `http` |
//! | `otlp` | the daemon sends spans of requests to a receiver | `serve`, opentelemetry |
//! | `fleet` | several daemons share their answers on a Redis or Valkey | `serve`, redis |
//!
//! `serve`, `middleware`, `otlp` and `fleet` are the default.
//!
//! # The path of a request
//!
//! The modules stand in the order in which a request of the daemon reaches them:
//!
//! ```text
//! client ─► serve ─► exchange (classify) ─► cache ─► store ─► hit
//!                        └─► miss: component (guest) ─► serve::upstream ─► exchange (recording) ─► cache
//! ```
//!
//! Underneath everything is [`cache`], whose callers give the time and make the keys.

// Links to items of features that are off lead to the table of features.
#![cfg_attr(
    not(feature = "component"),
    doc = "

[`component`]: #features
[`grant::Grant`]: #features
[`component::add_to_linker`]: #features
[`component::add_keyvalue_to_linker`]: #features
[`component::PolicyGuest`]: #features"
)]
#![cfg_attr(
    not(feature = "http"),
    doc = "

[`component::Handler`]: #features
[`component::Transparent`]: #features"
)]
#![cfg_attr(
    not(feature = "serve"),
    doc = "

[`serve`]: #features
[`cassette`]: #features
 "
)]

#[cfg(feature = "serve")]
pub mod cassette;
#[cfg(feature = "serve")]
pub mod serve;

#[cfg(feature = "fleet")]
mod fleet;

#[cfg(feature = "component")]
pub mod component;
#[cfg(feature = "exchange")]
pub mod exchange;
#[cfg(any(feature = "component", feature = "exchange"))]
pub mod grant;

mod embed;

pub mod cache;
mod store;

pub mod clock;
mod sync;

#[doc(inline)]
pub use cache::{Durability, Entry, InsertError, OpenError, Stats};
pub use embed::{Answer, Builder, Cache, EntryWriter, Fetched, InsertOptions, Origin};
#[doc(inline)]
pub use embed::{flights, kept_head};
pub use reflex_llm::{Key, Tenant};

#[cfg(fuzzing)]
#[doc(hidden)]
pub use store::fuzzing;

#[doc(inline)]
pub use embed::{
    L1Bound, L1Cache, L1CacheHandle, L1LookupResult, ReflexStatus, hash_prompt, hash_tenant_prompt,
};
