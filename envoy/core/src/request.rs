//! A request as Envoy has it.

use crate::routes::Route;

/// A request as Envoy has it.
#[derive(Clone, Debug)]
pub struct Request {
    /// As sent.
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// Without those of HTTP/2; names in lower case, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The host: `:authority`.
    pub authority: String,
    /// The route that Envoy has chosen, and the cluster that it leads to.
    pub route: Route,
    /// What `content-length` says.
    pub length: Option<u64>,
}
