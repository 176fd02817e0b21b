//! The middleware as a component among components: composed with a service of another author,
//! as `wac plug` does it, or before one of WASI 0.2; and our guests in other languages and on
//! other hosts.

mod hosts;
mod keyvalue;
pub(crate) mod languages;
mod package;
mod service;
mod service02;
mod tool;
