//! reflex-edge as a dynamic module of Envoy: the whole cache inside an unmodified Envoy, without a
//! daemon.
//!
//! ```text
//! Envoy ─► abi (hooks) ─► stream: one request, on its worker
//!                                    ├─► envoy/core: may it be cached, and under which key
//!                                    ├─► lookup ─► home (one cache a folder, for all workers) ─► reply
//!                                    │       └─► fills: another request asks already ─► follow it
//!                                    └─► provider; recording ─► keep ─► home
//! ```
//!
//! A request is looked at on the worker that Envoy runs it on, and only there. What has to wait (for
//! the disk, or for another request's answer) is a future whose waker is Envoy's scheduler, so that
//! no worker ever blocks. Whatever goes wrong, the request goes to the provider as if the module
//! were absent.

mod abi;
mod panics;
mod version;

mod plugin;
mod routes;
mod settings;

mod keep;
mod lookup;
mod recording;
mod reply;
mod request;
mod stream;

mod clock;
mod counts;
mod home;
