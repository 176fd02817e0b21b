//! What an answer says: its head, its frames, whether it is whole and good, its usage and its life.

pub(crate) mod head;
pub(crate) mod recorder;

pub(crate) mod judge;
pub(crate) mod sse;

pub(crate) mod date;
pub(crate) mod revealed;
pub(crate) mod stated;
pub(crate) mod usage;
