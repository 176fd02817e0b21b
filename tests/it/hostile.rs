//! Components that do what no component should: whoever is beside them gets right answers all the
//! while, and each deed has its reason in a count.

mod plain;
mod policy;
mod streams;
