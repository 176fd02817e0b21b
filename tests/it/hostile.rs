//! Components that misbehave: other components beside them get right answers all the
//! while, and each misdeed has its reason in a count.

mod plain;
mod policy;
mod streams;
