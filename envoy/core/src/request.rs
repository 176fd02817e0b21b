//! A request as Envoy has it.

use std::sync::Arc;

use crate::routes::Route;

/// A request as Envoy has it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// As sent.
    pub method: &'r str,
    /// Path and query, as sent.
    pub path: &'r str,
    /// Without those of HTTP/2; names in lower case, in order.
    pub headers: &'r [(&'r str, &'r [u8])],
    /// The host: `:authority`.
    pub authority: &'r str,
    /// The route that Envoy has chosen, and the cluster that it leads to.
    pub route: &'r Arc<Route>,
    /// What `content-length` says.
    pub length: Option<u64>,
}

impl Request<'_> {
    /// Whether it has a header of that name.
    pub fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(other, _)| *other == name)
    }
}
