//! The commands of `reflex-edge`.

pub(crate) mod admin;
pub(crate) mod cassette;
pub(crate) mod config;
pub(crate) mod envoy;
pub(crate) mod explain;
pub(crate) mod pages;
pub(crate) mod progress;
pub(crate) mod store;
