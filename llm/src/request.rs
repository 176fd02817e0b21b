//! What a request means: its head and its body, part by part, up to the key's input.

pub(crate) mod head;

pub(crate) mod control;
pub(crate) mod fields;
pub(crate) mod headers;
pub(crate) mod origin;
pub(crate) mod query;

pub(crate) mod asked;
pub(crate) mod body;
pub(crate) mod items;
pub(crate) mod model;
pub(crate) mod outline;
pub(crate) mod outside;
pub(crate) mod tools;

pub(crate) mod identity;
pub(crate) mod keyed;
pub(crate) mod prepared;
pub(crate) mod recorded;
pub(crate) mod splits;
