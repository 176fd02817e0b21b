//! A text that was read: a list of its values, or, where those are too many, the text alone.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::ops::Range;

use super::skip::{holds_numbers, space, value_end};
use super::string::{Halves, unescape};
use super::{Kind, POSITION_BITS, TEXT_BYTES_MAX};

/// How a scalar is spelled.
pub(crate) enum Spelled<'d> {
    /// Canonically; a string with its quotes.
    Well(&'d [u8]),
    /// A string in another spelling, without its quotes.
    Otherwise(&'d [u8]),
}

/// A text that was read. A place in it is the number of a node; if there are none, a position in the
/// text.
pub(crate) struct Document<'t> {
    pub(super) text: &'t [u8],
    /// In the order of the text, a container before its contents. Empty if they are too many.
    pub(super) nodes: Vec<Node>,
    /// For each object, the node after all that it contains; then its keys, as node numbers, sorted
    /// by value. Each value follows its key. Without nodes, the keys of the outermost object, as
    /// positions, sorted by value.
    pub(super) members: Vec<u32>,
    /// Whether an array of numbers is [`Kind::Numbers`].
    pub(super) is_answer: bool,
}

/// A form, and a span: of the text, or, for an object, of the members. An array has the node after
/// all that it contains in place of the end. Eight bytes, because the shortest values have two in
/// the text.
#[derive(Clone, Copy)]
pub(super) struct Node {
    form_and_start: u32,
    end: u32,
}

/// What a node is, and how it is spelled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Null,
    False,
    True,
    Number,
    /// A string without escapes.
    Plain,
    /// A string with escapes, all in their canonical spelling.
    Escaped,
    /// A string in another spelling.
    Respelled,
    Array,
    Numbers,
    Object,
}

/// In the order of declaration.
const FORMS: [Form; 10] = [
    Form::Null,
    Form::False,
    Form::True,
    Form::Number,
    Form::Plain,
    Form::Escaped,
    Form::Respelled,
    Form::Array,
    Form::Numbers,
    Form::Object,
];

const _: () = assert!(FORMS.len() <= 1 << (u32::BITS - POSITION_BITS));

impl Node {
    /// Positions are at most [`TEXT_BYTES_MAX`]: none of what they point into is longer.
    pub(super) fn new(form: Form, start: usize, end: usize) -> Self {
        debug_assert!(start <= TEXT_BYTES_MAX && end <= TEXT_BYTES_MAX);
        Self {
            form_and_start: (form as u32) << POSITION_BITS | start as u32,
            end: end as u32,
        }
    }

    pub(super) fn form(self) -> Form {
        FORMS[(self.form_and_start >> POSITION_BITS) as usize]
    }

    fn start(self) -> usize {
        (self.form_and_start & TEXT_BYTES_MAX as u32) as usize
    }

    fn end(self) -> usize {
        self.end as usize
    }
}

impl Form {
    fn kind(self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::False => Kind::False,
            Self::True => Kind::True,
            Self::Number => Kind::Number,
            Self::Plain | Self::Escaped | Self::Respelled => Kind::String,
            Self::Array => Kind::Array,
            Self::Numbers => Kind::Numbers,
            Self::Object => Kind::Object,
        }
    }
}

impl<'t> Document<'t> {
    /// The length of the text.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    pub(super) fn has_nodes(&self) -> bool {
        !self.nodes.is_empty()
    }

    fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    pub(super) fn kind(&self, at: u32) -> Kind {
        if self.has_nodes() {
            return self.node(at).form().kind();
        }
        match self.text.get(at as usize) {
            Some(b'{') => Kind::Object,
            Some(b'[') => match self.is_answer && holds_numbers(self.text, at as usize) {
                true => Kind::Numbers,
                false => Kind::Array,
            },
            Some(b'"') => Kind::String,
            Some(b't') => Kind::True,
            Some(b'f') => Kind::False,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// How a listed scalar is spelled.
    pub(super) fn listed(&self, at: u32) -> Option<Spelled<'t>> {
        let node = self.nodes.get(at as usize)?;
        let (text, start, end) = (self.text, node.start(), node.end());
        Some(match node.form() {
            Form::Plain | Form::Escaped => Spelled::Well(&text[start - 1..end + 1]),
            Form::Respelled => Spelled::Otherwise(&text[start..end]),
            Form::Array | Form::Numbers | Form::Object => Spelled::Well(&[]),
            _ => Spelled::Well(&text[start..end]),
        })
    }

    /// Where a scalar stands in the text, without quotes. Of a container, nothing.
    pub(super) fn span(&self, at: u32) -> Range<usize> {
        if self.has_nodes() {
            let node = self.node(at);
            return match node.form() {
                Form::Array | Form::Numbers | Form::Object => 0..0,
                _ => node.start()..node.end(),
            };
        }
        match self.kind(at) {
            Kind::String => at as usize + 1..self.end(at) - 1,
            Kind::Array | Kind::Numbers | Kind::Object => 0..0,
            _ => at as usize..self.end(at),
        }
    }

    /// A scalar as the text has it, without quotes.
    pub(super) fn spelling(&self, at: u32) -> &'t [u8] {
        self.text.get(self.span(at)).unwrap_or_default()
    }

    /// A string's value, or a key's.
    pub(super) fn string(&self, at: u32) -> Cow<'t, [u8]> {
        if let Some(plain) = self.plain(at) {
            return Cow::Borrowed(plain);
        }
        let spelling = self.spelling(at);
        if !spelling.contains(&b'\\') {
            return Cow::Borrowed(spelling);
        }
        let mut value = Vec::with_capacity(spelling.len());
        // It was read without fault, so it is decoded without.
        match unescape(spelling, |part| value.extend_from_slice(part), Halves::Kept) {
            Ok(()) => Cow::Owned(value),
            Err(_) => Cow::Borrowed(spelling),
        }
    }

    /// The place of the first that a container holds.
    pub(super) fn inside(&self, container: u32) -> u32 {
        match self.has_nodes() {
            true => container + 1,
            false => space(self.text, container as usize + 1) as u32,
        }
    }

    /// The place of the value that belongs to a key.
    pub(super) fn value_of(&self, key: u32) -> u32 {
        if self.has_nodes() {
            return key + 1;
        }
        let colon = space(self.text, self.end(key));
        space(self.text, colon + 1) as u32
    }

    /// The place that follows a value and all that it contains, in its container.
    pub(super) fn after(&self, at: u32) -> u32 {
        if !self.has_nodes() {
            let end = space(self.text, self.end(at));
            return match self.text.get(end) {
                Some(b',') => space(self.text, end + 1) as u32,
                _ => end as u32,
            };
        }
        let node = self.node(at);
        match node.form() {
            Form::Array => node.end,
            Form::Object => self.members[node.start()],
            _ => at + 1,
        }
    }

    /// Whether a place is behind all that its container holds, the end of which is this.
    pub(super) fn is_behind(&self, at: u32, end: u32) -> bool {
        match self.has_nodes() {
            true => at >= end,
            false => matches!(self.text.get(at as usize), None | Some(b']' | b'}')),
        }
    }

    /// The keys of an object in the order of their values, if they are listed.
    pub(super) fn keys(&self, at: u32) -> Option<&[u32]> {
        if self.has_nodes() {
            let node = self.node(at);
            return Some(match node.form() {
                Form::Object => &self.members[node.start() + 1..node.end()],
                _ => &[],
            });
        }
        let is_root = at as usize == space(self.text, 0);
        is_root.then_some(&self.members)
    }

    /// Sorts keys by their values. Whether all differ.
    pub(super) fn sort(&self, keys: &mut [u32]) -> bool {
        let ordered = |keys: &[u32]| keys.is_sorted_by(|&a, &b| self.compare(a, b).is_lt());
        if ordered(keys) {
            return true;
        }
        // Sorted rather than compared pair by pair: a body may be nothing but keys.
        keys.sort_unstable_by(|&a, &b| self.compare(a, b));
        ordered(keys)
    }

    /// Compares keys by their values. Nearly all are spelled as what they are.
    fn compare(&self, a: u32, b: u32) -> Ordering {
        match (self.plain(a), self.plain(b)) {
            // Nearly all differ here.
            (Some(&[a, ..]), Some(&[b, ..])) if a != b => a.cmp(&b),
            (Some(a), Some(b)) => a.cmp(b),
            _ => self.string(a).cmp(&self.string(b)),
        }
    }

    /// A string that is listed as one without escapes.
    pub(super) fn plain(&self, at: u32) -> Option<&'t [u8]> {
        let node = self.nodes.get(at as usize)?;
        let text = self.text;
        (node.form() == Form::Plain).then(|| &text[node.start()..node.end()])
    }

    /// Where a value without a node ends in the text.
    fn end(&self, at: u32) -> usize {
        value_end(self.text, at as usize).unwrap_or(self.text.len())
    }
}
