//! What Envoy has of a request, for as long as a test wants to change it.

use super::*;

/// A [`Request`] that owns what it is made of.
#[derive(Clone)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) authority: String,
    pub(super) route: Route,
    pub(super) length: Option<u64>,
}

impl Seen {
    /// It, as Envoy's filter hands it over.
    pub(super) fn with<T>(&self, take: impl FnOnce(&Request<'_>) -> T) -> T {
        take(&Request {
            method: &self.method,
            path: &self.path,
            headers: &borrowed(&self.headers),
            authority: &self.authority,
            route: &Rc::new(self.route.clone()),
            length: self.length,
        })
    }
}

/// Headers as Envoy's filter hands them over.
pub(super) fn borrowed(headers: &[(String, Vec<u8>)]) -> Vec<(&str, &[u8])> {
    let headers = headers.iter();
    headers
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect()
}
