//! The one JSON reader, for requests and answers: one pass over the bytes into a flat arena.
//!
//! It is stricter than most. It refuses texts that readers understand differently (a key twice,
//! half a surrogate pair, a byte order mark), because the provider's reader may differ from ours.
//! It neither recurses nor allocates per token: nodes are spans of the text, and only strings in an
//! unusual spelling are copied out.
//!
//! Answers are read by the same grammar, with two differences ([`read_answer`]). Half a surrogate
//! pair is accepted: a stream that splits an emoji has one, and a replay has the same bytes. An
//! array of numbers is one node: vectors are long, and no reader of answers looks at one number.

mod reader;
mod string;

use alloc::borrow::Cow;
use alloc::vec::Vec;

pub(crate) use reader::{read, read_answer};
use string::Halves;
pub(crate) use string::run;

/// Arrays and objects inside each other. Real requests stay below 20, and the readers of
/// providers give up at 128 or earlier.
pub(crate) const DEPTH_MAX: usize = 128;

/// Positions are kept in 28 bits, beside the four of a kind.
pub(crate) const TEXT_BYTES_MAX: usize = (1 << POSITION_BITS) - 1;

const POSITION_BITS: u32 = 28;

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It begins with a byte order mark.
    ByteOrderMark,
    /// An object has a key twice, compared by value.
    DuplicateKey,
    /// It is not UTF-8. Named before any fault of the JSON.
    NotUtf8,
    /// An escape stands for half of a surrogate pair.
    Surrogate,
    /// It is not JSON.
    Syntax,
    /// It is nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// It is longer than [`TEXT_BYTES_MAX`].
    TooLarge,
    /// The value is followed by more than white space.
    Trailing,
}

/// A text that was read: its nodes in the order of the text, a container before its contents.
pub(crate) struct Document<'t> {
    text: &'t [u8],
    /// The values of strings whose spelling is not their value's canonical one.
    decoded: Vec<u8>,
    nodes: Vec<Node>,
    /// For each object, the node after all that it contains; then its keys, as node numbers, sorted
    /// by value. Each value follows its key.
    members: Vec<u32>,
}

/// A kind, and a span: of the text, of the decoded strings, or, for an object, of the members. An
/// array has the node after its content in place of the end. Eight bytes, because the shortest
/// values take only two in the text.
#[derive(Clone, Copy)]
struct Node {
    kind_and_start: u32,
    end: u32,
}

impl Node {
    /// Positions are at most [`TEXT_BYTES_MAX`]: no text is longer.
    fn new(kind: Kind, start: usize, end: usize) -> Self {
        debug_assert!(start <= TEXT_BYTES_MAX && end <= TEXT_BYTES_MAX);
        Self {
            kind_and_start: (kind as u32) << POSITION_BITS | start as u32,
            end: end as u32,
        }
    }

    fn kind(self) -> Kind {
        KINDS[(self.kind_and_start >> POSITION_BITS) as usize]
    }

    fn start(self) -> usize {
        (self.kind_and_start & TEXT_BYTES_MAX as u32) as usize
    }

    fn end(self) -> usize {
        self.end as usize
    }
}

/// In the order of declaration.
const KINDS: [Kind; 9] = [
    Kind::Null,
    Kind::False,
    Kind::True,
    Kind::Number,
    Kind::Spelled,
    Kind::Decoded,
    Kind::Array,
    Kind::Numbers,
    Kind::Object,
];

const _: () = assert!(KINDS.len() <= 1 << (u32::BITS - POSITION_BITS));

/// The kind of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `null`
    Null,
    /// `false`
    False,
    /// `true`
    True,
    /// A number, as spelled.
    Number,
    /// A string in its canonical spelling, which may hold escapes.
    Spelled,
    /// A string by value.
    Decoded,
    /// An array.
    Array,
    /// An array of one number or more, of an answer. Its elements were checked and dropped.
    Numbers,
    /// An object.
    Object,
}

/// One value of a document.
#[derive(Clone, Copy)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    node: u32,
}

impl<'t> Document<'t> {
    /// The value that the text is.
    pub(crate) fn root(&self) -> Value<'_> {
        Value {
            document: self,
            node: 0,
        }
    }

    /// The length of the text.
    pub(crate) fn text_bytes(&self) -> usize {
        self.text.len()
    }

    fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    /// The node after this one and all that it contains.
    fn after(&self, at: u32) -> u32 {
        let node = self.node(at);
        match node.kind() {
            Kind::Array => node.end,
            Kind::Object => self.members[node.start()],
            _ => at + 1,
        }
    }

    /// The bytes of a scalar, as [`Value::spelling`] has them.
    fn bytes(&self, at: u32) -> &[u8] {
        let node = self.node(at);
        let source = match node.kind() {
            Kind::Array | Kind::Numbers | Kind::Object => return &[],
            Kind::Decoded => &self.decoded,
            _ => self.text,
        };
        &source[node.start()..node.end()]
    }
}

impl<'d> Value<'d> {
    /// The kind of the value.
    pub(crate) fn kind(self) -> Kind {
        self.document.node(self.node).kind()
    }

    /// The bytes of a scalar: a decoded string's value, otherwise the spelling without quotes. For
    /// a key, this is its value, decoded if it has escapes.
    pub(crate) fn spelling(self) -> &'d [u8] {
        self.document.bytes(self.node)
    }

    /// A scalar as the text has it, with its quotes; of a decoded string, the value without.
    pub(crate) fn source(self) -> &'d [u8] {
        let node = self.document.node(self.node);
        match node.kind() {
            Kind::Spelled => &self.document.text[node.start() - 1..node.end() + 1],
            _ => self.spelling(),
        }
    }

    /// A string's value. Valid UTF-8, unless half a surrogate pair of an answer is in it.
    pub(crate) fn string(self) -> Option<Cow<'d, [u8]>> {
        let bytes = self.spelling();
        match self.kind() {
            Kind::Spelled if bytes.contains(&b'\\') => {
                let mut value = Vec::with_capacity(bytes.len());
                // It was read without fault, so it is decoded without.
                string::unescape(bytes, &mut value, Halves::Kept).ok()?;
                Some(Cow::Owned(value))
            }
            Kind::Spelled | Kind::Decoded => Some(Cow::Borrowed(bytes)),
            _ => None,
        }
    }

    /// The value of an object's member; none for a value that is no object.
    pub(crate) fn get(self, name: &str) -> Option<Value<'d>> {
        let keys = self.keys();
        let found = keys.binary_search_by(|&key| self.document.bytes(key).cmp(name.as_bytes()));
        let key = keys.get(found.ok()?)?;
        Some(self.at(key + 1))
    }

    /// The member's value unless it is null, which every API treats as absent.
    pub(crate) fn get_some(self, name: &str) -> Option<Value<'d>> {
        self.get(name).filter(|value| value.kind() != Kind::Null)
    }

    /// The members of a container, with keys if it is an object, in their order. A scalar has none.
    pub(crate) fn members(self) -> Members<'d> {
        Members {
            next: self.at(self.node + 1),
            end: match self.kind() {
                Kind::Array => self.document.after(self.node),
                _ => self.node + 1,
            },
            keys: self.keys().iter(),
            is_object: false,
        }
    }

    /// The same in the order of the text.
    pub(crate) fn members_as_written(self) -> Members<'d> {
        Members {
            end: self.document.after(self.node),
            keys: [].iter(),
            is_object: self.kind() == Kind::Object,
            ..self.members()
        }
    }

    /// The elements of an array; none for a value that is no array.
    pub(crate) fn elements(self) -> impl Iterator<Item = Value<'d>> {
        let members = self.members();
        members.filter_map(|(key, value)| key.is_none().then_some(value))
    }

    /// The keys of an object, by number, in the order of their values.
    fn keys(self) -> &'d [u32] {
        let node = self.document.node(self.node);
        match node.kind() {
            Kind::Object => &self.document.members[node.start() + 1..node.end()],
            _ => &[],
        }
    }

    fn at(self, node: u32) -> Self {
        Self { node, ..self }
    }
}

/// Walks an array in its order, or an object in the order of its keys or of the text.
pub(crate) struct Members<'d> {
    next: Value<'d>,
    end: u32,
    keys: core::slice::Iter<'d, u32>,
    /// Keys stand between the values that are walked.
    is_object: bool,
}

impl<'d> Iterator for Members<'d> {
    type Item = (Option<Value<'d>>, Value<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(&key) = self.keys.next() {
            return Some((Some(self.next.at(key)), self.next.at(key + 1)));
        }
        let first = self.next;
        if first.node >= self.end {
            return None;
        }
        let (key, value) = match self.is_object {
            true => (Some(first), first.at(first.node + 1)),
            false => (None, first),
        };
        self.next.node = value.document.after(value.node);
        Some((key, value))
    }
}
