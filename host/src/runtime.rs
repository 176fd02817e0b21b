//! Guest components and what they may use: the engine, the WIT host, the limits.
//!
//! Any wasmtime host adds the interfaces that its guests use to its own linker: [`add_to_linker`]
//! (plain functions, no WASI), [`add_keyvalue_to_linker`] (`wasi:keyvalue`) and, with feature
//! `http`, [`add_http_to_linker`] (the bridge to `wasi:http` 0.3). A [`Grant`] says what each guest
//! may do. Four types go further, the last three with feature `http`:
//!
//! - [`PolicyGuest`] asks a component how to handle a request, by a plain function call;
//! - [`Transparent`] is a host's outgoing HTTP, and answers LLM calls of guests that know of no cache;
//! - [`Handler`] runs a `wasi:http` handler component for each request, within limits.
//!   `reflex-edge serve` is built on it;
//! - [`Service02`] may stand behind it: a service that was written for `wasi:http` 0.2.
#![cfg_attr(
    not(feature = "http"),
    doc = "

[`add_http_to_linker`]: crate#features
[`Transparent`]: crate#features
[`Handler`]: crate#features
[`Service02`]: crate#features"
)]

#[cfg(feature = "http")]
mod ahead;
mod allowance;
#[cfg(feature = "http")]
mod batch;
#[cfg(feature = "http")]
mod batch_host;
mod bindings;
#[cfg(feature = "http")]
mod body;
#[cfg(feature = "http")]
mod budget;
#[cfg(feature = "http")]
mod buffer;
mod cache_host;
mod engine;
#[cfg(feature = "http")]
mod exchange;
#[cfg(feature = "http")]
mod fills;
mod grant;
#[cfg(feature = "http")]
mod guest_time;
#[cfg(feature = "http")]
mod handler;
#[cfg(feature = "http")]
mod heads;
#[cfg(feature = "http")]
mod http_host;
mod keyvalue_host;
#[cfg(feature = "http")]
mod lent;
mod limits;
mod lookups;
#[cfg(feature = "http")]
mod misses;
#[cfg(feature = "http")]
mod pace;
mod policy;
#[cfg(feature = "http")]
mod pool;
#[cfg(feature = "http")]
mod recording;
#[cfg(feature = "http")]
mod rest;
#[cfg(feature = "http")]
mod samples;
#[cfg(feature = "http")]
mod service02;
#[cfg(feature = "http")]
mod sharing;
#[cfg(feature = "http")]
mod state;
#[cfg(feature = "http")]
mod transparent;
#[cfg(feature = "http")]
mod wakers;
#[cfg(feature = "http")]
mod watched;
#[cfg(feature = "http")]
mod window;

pub use allowance::Allowance;
/// `reflex:cache/cache` as `bindgen!` generates it from the WIT, with the WIT's docs.
pub use bindings::cache as cache_bindings;
/// `reflex:cache/embeddings`, likewise.
#[cfg(feature = "http")]
pub use bindings::embeddings as embeddings_bindings;
/// `reflex:cache/http`, likewise.
#[cfg(feature = "http")]
pub use bindings::http as http_bindings;
#[cfg(feature = "serve")]
pub(crate) use body::Gathered;
#[cfg(feature = "http")]
pub use budget::Budget;
pub use cache_host::{Reflex, ReflexCtx, ReflexCtxView, add_to_linker, add_to_linker_async};
pub use engine::LoadError;
#[cfg(feature = "http")]
pub use exchange::{Lost, Rest};
#[cfg(feature = "http")]
pub use fills::Fills;
#[cfg(feature = "serve")]
pub(crate) use fills::{Claim, Waited};
pub use grant::{Access, Grant, Refusal, Tenants};
#[cfg(feature = "http")]
pub use handler::{Failure, Handler};
#[cfg(feature = "serve")]
pub(crate) use heads::mark;
#[cfg(feature = "serve")]
pub(crate) use http_host::INFLIGHT_BYTES_MAX;
#[cfg(feature = "http")]
pub use http_host::{
    HttpPolicy, ReflexHttp, ReflexHttpCtxView, ReflexHttpView, add_http_to_linker,
};
pub use keyvalue_host::{Bucket, add_keyvalue_to_linker, add_keyvalue_to_linker_async};
#[cfg(feature = "serve")]
pub(crate) use lent::{Lender, NotHeld, lend};
pub use limits::GuestLimits;
pub use lookups::Lookups;
#[cfg(feature = "http")]
pub(crate) use pace::Mark;
#[cfg(feature = "http")]
pub use pace::Replay;
pub use policy::{Asking, Decision, PolicyGuest, Question};
#[cfg(feature = "http")]
pub use recording::{NoObserver, Outcome, RecordingObserver};
pub use reflex_llm::{
    Api, ClientControl, Life, LifeRule, Lifetimes, PathRule, ProviderControl, Rules,
};
#[cfg(feature = "http")]
pub use samples::Samples;
#[cfg(feature = "http")]
pub use service02::Service02;
#[cfg(feature = "http")]
pub use state::{Progress, ResponseFuture, SendRequest};
#[cfg(feature = "http")]
pub use transparent::Transparent;

/// The body type of requests and responses here.
#[cfg(feature = "http")]
pub use wasmtime_wasi_http::WasiBody;
