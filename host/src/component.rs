//! Guest components: the engine, the WIT host, the limits.
//!
//! Any wasmtime host adds the interfaces that its guests use to its own linker: [`add_to_linker`]
//! (plain functions, no WASI), [`add_keyvalue_to_linker`] (`wasi:keyvalue`) and, with feature
//! `http`, [`add_http_to_linker`] (the bridge to `wasi:http` 0.3). A [`Grant`](crate::grant::Grant)
//! says what each guest may do. Four types go further, the last three with feature `http`:
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

mod engine;
mod limits;

#[cfg(feature = "http")]
mod border;

mod bindings;
mod wit;

#[cfg(feature = "http")]
mod errand;
#[cfg(feature = "http")]
mod guest_time;
#[cfg(feature = "http")]
mod handler;
#[cfg(feature = "http")]
mod host_body;
#[cfg(feature = "http")]
mod pool;
#[cfg(feature = "http")]
mod progress;
#[cfg(feature = "http")]
mod state;
#[cfg(feature = "http")]
mod watched;

mod policy_guest;
#[cfg(feature = "http")]
mod service02;
#[cfg(feature = "http")]
mod transparent;

pub use crate::grant::GuestLimits;
/// `reflex:cache/cache` as `bindgen!` makes it of the WIT, which is where these docs come from.
pub use bindings::cache as cache_bindings;
/// `reflex:cache/embeddings`, from the same source.
#[cfg(feature = "http")]
pub use bindings::embeddings as embeddings_bindings;
/// `reflex:cache/http`, from the same source.
#[cfg(feature = "http")]
pub use bindings::http as http_bindings;
#[cfg(feature = "http")]
pub use border::{from_wasi, to_wasi};
pub use engine::LoadError;
#[cfg(feature = "http")]
pub use errand::{Lost, Rest};
#[cfg(feature = "http")]
pub use handler::{Failure, Handler};
pub use policy_guest::{Asking, Decision, PolicyGuest, Question};
#[cfg(feature = "middleware")]
pub(crate) use progress::Done;
#[cfg(feature = "http")]
pub use progress::Progress;
#[cfg(feature = "http")]
pub use service02::Service02;
#[cfg(feature = "http")]
pub use transparent::Transparent;
pub use wit::cache::{Reflex, ReflexCtxView, add_to_linker, add_to_linker_async};
#[cfg(feature = "http")]
pub use wit::http::{ReflexHttp, ReflexHttpCtxView, ReflexHttpView, add_http_to_linker};
pub use wit::keyvalue::{Bucket, add_keyvalue_to_linker, add_keyvalue_to_linker_async};
