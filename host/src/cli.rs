//! The commands of `reflex-edge`.

pub(crate) mod envoy;
pub(crate) mod explain;
pub(crate) mod store;
