//! The head of a request from the host, cut into its parts.

use crate::bindings::reflex::cache::http;
use crate::bindings::wasi::http::types::Request;

/// A request without its body.
#[derive(Debug)]
pub struct Told(http::Head);

/// Method, upstream and path stand before the headers.
const FIRST_HEADER: usize = 3;

impl Told {
    /// Asks the host.
    pub fn of(request: &Request) -> Self {
        Self(http::inspect(request))
    }

    /// As sent: `POST`.
    pub fn method(&self) -> &str {
        self.text(0)
    }

    /// Where it will go: `scheme://authority`.
    pub fn upstream(&self) -> &str {
        self.text(1)
    }

    /// Path and query as sent.
    pub fn path(&self) -> &str {
        self.text(2)
    }

    /// Each header: its name in lower case, and its value.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let names = (FIRST_HEADER..self.0.ends.len()).step_by(2);
        names.map(|name| (self.text(name), self.part(name + 1)))
    }

    fn text(&self, number: usize) -> &str {
        str::from_utf8(self.part(number)).unwrap_or_default()
    }

    /// A part of the head; empty if it is missing.
    fn part(&self, number: usize) -> &[u8] {
        let end = |number: usize| self.0.ends.get(number).map(|&end| end as usize);
        let start = number.checked_sub(1).map_or(Some(0), end);
        let range = start.zip(end(number));
        range
            .and_then(|(start, end)| self.0.text.get(start..end))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parts: &[&str], ends: &[u32]) -> Told {
        Told(http::Head {
            text: parts.concat().into_bytes(),
            ends: ends.to_vec(),
        })
    }

    #[test]
    fn parts_are_what_the_host_has_put_together() {
        let told = told(
            &["POST", "http://a", "/v1", "x-a", "1", "x-b", "", "x-a", "2"],
            &[4, 12, 15, 18, 19, 22, 22, 25, 26],
        );
        assert_eq!(told.method(), "POST");
        assert_eq!(told.upstream(), "http://a");
        assert_eq!(told.path(), "/v1");
        let headers: Vec<_> = told.headers().collect();
        let expected: [(&str, &[u8]); 3] = [("x-a", b"1"), ("x-b", b""), ("x-a", b"2")];
        assert_eq!(headers, expected);
    }

    #[test]
    fn parts_that_are_not_there_are_empty() {
        for ends in [&[][..], &[9], &[4, 2], &[u32::MAX, 3]] {
            let told = told(&["POST"], ends);
            assert_eq!((told.upstream(), told.path()), ("", ""), "{ends:?}");
            assert_eq!(told.headers().count(), 0);
        }
    }
}
