//! The places of a JSON text's parts.
//!
//! For texts that [`json`](crate::json) has read already: this finds the places again, which a
//! document does not keep. For other texts the results are arbitrary, but it does not panic.

use alloc::vec::Vec;
use core::ops::Range;

use crate::json::{space, value_end};

/// A place in a text.
pub(crate) type Span = Range<usize>;

/// The keys (without quotes, as spelled) and values of an object, in the order of the text.
pub(crate) fn members(text: &[u8], object: Span) -> Option<Vec<(Span, Span)>> {
    let mut cursor = Cursor::inside(text, object, *b"{}")?;
    let mut members = Vec::new();
    while cursor.has_more()? {
        let key = cursor.value()?;
        let is_string = key.len() >= 2 && text[key.start] == b'"';
        cursor.eat(b':')?;
        let value = cursor.value()?;
        members.push(is_string.then_some((key.start + 1..key.end - 1, value))?);
    }
    Some(members)
}

/// The elements of an array.
pub(crate) fn elements(text: &[u8], array: Span) -> Option<Vec<Span>> {
    let mut cursor = Cursor::inside(text, array, *b"[]")?;
    let mut elements = Vec::new();
    while cursor.has_more()? {
        elements.push(cursor.value()?);
    }
    Some(elements)
}

/// The value that a text is, without the white space around it.
pub(crate) fn root(text: &[u8]) -> Option<Span> {
    let mut cursor = Cursor {
        text,
        at: 0,
        is_first: true,
    };
    cursor.value()
}

/// Goes from part to part of a container.
struct Cursor<'t> {
    /// Up to where the container closes.
    text: &'t [u8],
    at: usize,
    is_first: bool,
}

impl<'t> Cursor<'t> {
    fn inside(text: &'t [u8], container: Span, [open, close]: [u8; 2]) -> Option<Self> {
        let whole = text.get(container.clone())?;
        let is_one = whole.len() >= 2 && whole.first() == Some(&open);
        (is_one && whole.last() == Some(&close)).then(|| Self {
            text: &text[..container.end - 1],
            at: container.start + 1,
            is_first: true,
        })
    }

    /// Whether another part follows; passes the comma before it.
    fn has_more(&mut self) -> Option<bool> {
        self.skip_space();
        if self.at == self.text.len() {
            return Some(false);
        }
        if !core::mem::take(&mut self.is_first) {
            self.eat(b',')?;
        }
        Some(true)
    }

    fn skip_space(&mut self) {
        self.at = space(self.text, self.at);
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    /// Passes a value.
    fn value(&mut self) -> Option<Span> {
        self.skip_space();
        let start = self.at;
        self.at = value_end(self.text, start)?;
        (self.at > start).then_some(start..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn parts(text: &str) -> Option<Vec<&str>> {
        let found = elements(text.as_bytes(), root(text.as_bytes())?)?;
        Some(found.into_iter().map(|span| &text[span]).collect())
    }

    #[test]
    fn elements_are_found_as_they_are_spelled() {
        assert_eq!(parts("[]"), Some(alloc::vec![]));
        let text = " [ 1.0 ,\"a,\\\"]\", [[],{\"]\":[\"}\"]}],null\n] ";
        let expected = ["1.0", "\"a,\\\"]\"", "[[],{\"]\":[\"}\"]}]", "null"];
        assert_eq!(parts(text).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn members_are_found_in_the_order_of_the_text() {
        let text = "{\"b\" : [1] , \"a\\\"\":{} }";
        let found = members(text.as_bytes(), 0..text.len());
        let found: Option<Vec<_>> = found.map(|found| {
            let parts = found.into_iter();
            parts
                .map(|(key, value)| (&text[key], &text[value]))
                .collect()
        });
        assert_eq!(found, Some(alloc::vec![("b", "[1]"), ("a\\\"", "{}")]));
    }

    #[test]
    fn what_is_no_json_is_no_panic() {
        let whole = "{\"a\":[1,{\"b\":\"\\\\\"}],\"c\":\"d\"}";
        for end in 0..whole.len() {
            for start in 0..end {
                let text = format!("[{}]", &whole[start..end]);
                let bytes = text.as_bytes();
                let _ = root(bytes);
                let _ = elements(bytes, 0..bytes.len());
                let _ = members(whole.as_bytes(), start..end);
                let _ = members(&bytes[1..], 0..end - start);
            }
        }
        for text in ["]", "[", "[[", "{\"", "[\"\\", "", ",", "}"] {
            let bytes = text.as_bytes();
            let _ = root(bytes);
            let _ = elements(bytes, 0..bytes.len());
            let _ = members(bytes, 0..bytes.len());
        }
    }
}
