//! One LLM request: looked up, joined, asked, recorded, and answered.

pub(crate) mod answer;
pub(crate) mod ask;
pub(crate) mod body;
pub(crate) mod fills;
pub(crate) mod observer;
pub(crate) mod policy;
pub(crate) mod recording;
pub(crate) mod reply;
pub(crate) mod revealed;
pub(crate) mod shared_body;
pub(crate) mod watch;

pub use ask::{ResponseFuture, SendRequest};
pub use body::budget::Budget;
pub use fills::Fills;
pub use observer::{NoObserver, Outcome, RecordingObserver};
pub use policy::HttpPolicy;
pub use reflex_llm::{
    Api, ClientControl, Life, LifeRule, Lifetimes, PathRule, ProviderControl, Rules,
};
pub use reply::pace::Replay;
pub use reply::samples::Samples;
/// The body type of requests and responses here.
pub use wasmtime_wasi_http::WasiBody;
