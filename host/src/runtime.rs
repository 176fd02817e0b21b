//! Guest components and what they may use: the engine, the WIT host, the limits.
//!
//! Two levels. Any wasmtime host adds the cache to its own linker with [`add_to_linker`] (plain
//! functions, no WASI) and [`add_http_to_linker`] (the bridge to `wasi:http` 0.3). [`Handler`]
//! goes further and runs a `wasi:http` handler component for each request, within limits; that
//! is what `reflex-edge serve` is made of.

mod allowance;
mod batch;
mod batch_host;
mod bindings;
mod body;
mod cache_host;
mod engine;
mod fills;
mod grant;
mod handler;
mod http_host;
mod limits;
mod misses;
mod pace;
mod policy;
mod recording;
mod samples;
mod sharing;
mod state;

pub use allowance::Allowance;
pub use bindings::http::ClientControl;
pub use bindings::{
    cache as cache_bindings, embeddings as embeddings_bindings, http as http_bindings,
};
#[cfg(feature = "serve")]
pub(crate) use body::Prefixed;
pub use cache_host::{Reflex, ReflexCtx, ReflexCtxView, add_to_linker};
pub use engine::LoadError;
pub use fills::Fills;
pub use grant::{Access, Grant, Refusal, Tenants};
pub use handler::{Failure, Handler};
pub use http_host::{
    HttpPolicy, ReflexHttp, ReflexHttpCtxView, ReflexHttpView, add_http_to_linker,
};
pub use limits::GuestLimits;
pub(crate) use pace::Mark;
pub use pace::Replay;
pub use policy::{Asking, Decision, PolicyGuest, Question};
pub use recording::{NoObserver, Outcome, RecordingObserver};
pub use reflex_llm::{Life, LifeRule, Lifetimes};
pub use samples::Samples;
pub use state::{Progress, ResponseFuture, SendRequest};

/// The body type of requests and responses here.
pub use wasmtime_wasi_http::WasiBody;
