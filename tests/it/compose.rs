//! The middleware as a component among components: composed with a service that somebody else
//! wrote, as `wac plug` does it, and our guests in other languages and on other hosts.

mod hosts;
mod keyvalue;
pub(crate) mod languages;
mod package;
mod service;
mod tool;
