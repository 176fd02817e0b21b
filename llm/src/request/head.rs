//! A request without its body.

use core::fmt;

/// A request without its body.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The method as sent: methods are case-sensitive.
    pub method: &'a str,
    /// The provider that will really be asked, as `scheme://authority`. It is part of the key, so
    /// it must reflect everything else that selects the provider (a `Host` header that is passed
    /// on, a route).
    pub upstream: &'a str,
    /// Path with query, exactly as sent.
    pub path: &'a str,
    /// Every header in the order of arrival, names in lower case, values untouched.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl<'a> Head<'a> {
    /// The values of one header, in order: a repeated header counts each time.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let all = self.headers.iter();
        all.filter(move |(other, _)| *other == name)
            .map(|(_, value)| *value)
    }
}

/// Without path and headers: credentials stand there, and do not belong in logs.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Head({} {})", self.method, self.upstream)
    }
}
