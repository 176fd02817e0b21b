//! From text to document, in one pass.

use alloc::vec::Vec;

use super::string::{Halves, scan, unescape};
use super::{DEPTH_MAX, Document, Invalid, Kind, Node, TEXT_BYTES_MAX};

/// Up to here, the list of nodes doubles when it is full.
const DOUBLED_MAX: usize = 4096;

/// Reads a text of a request, which is one JSON value.
pub(crate) fn read(text: &[u8]) -> Result<Document<'_>, Invalid> {
    Reader::read_all(text, Halves::Refused, false)
}

/// Reads a text of an answer, which is one JSON value. Half a surrogate pair is accepted, and an
/// array of numbers becomes [`Kind::Numbers`].
pub(crate) fn read_answer(text: &[u8]) -> Result<Document<'_>, Invalid> {
    Reader::read_all(text, Halves::Kept, true)
}

struct Reader<'t> {
    document: Document<'t>,
    at: usize,
    /// Containers not yet closed, as node numbers.
    open: Vec<u32>,
    /// Keys of the objects not yet closed, as node numbers.
    keys: Vec<u32>,
    halves: Halves,
    /// Whether the elements of an array are dropped if all are numbers.
    drops_numbers: bool,
}

impl<'t> Reader<'t> {
    fn read_all(
        text: &'t [u8],
        halves: Halves,
        drops_numbers: bool,
    ) -> Result<Document<'t>, Invalid> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Invalid::TooLarge);
        }
        if text.starts_with(b"\xef\xbb\xbf") {
            return Err(Invalid::ByteOrderMark);
        }
        let mut reader = Self {
            document: Document {
                text,
                decoded: Vec::new(),
                nodes: Vec::with_capacity(64),
                members: Vec::with_capacity(32),
            },
            at: 0,
            open: Vec::with_capacity(16),
            keys: Vec::with_capacity(32),
            halves,
            drops_numbers,
        };
        match reader.read() {
            Ok(()) => Ok(reader.document),
            Err(_) if core::str::from_utf8(text).is_err() => Err(Invalid::NotUtf8),
            Err(invalid) => Err(invalid),
        }
    }

    fn read(&mut self) -> Result<(), Invalid> {
        loop {
            // A value is due.
            match self.token() {
                Some(b'{') => {
                    self.enter(Kind::Object)?;
                    if self.token() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(Kind::Array)?;
                    if self.token() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => self.string(false)?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b'n') => self.literal(b"null", Kind::Null)?,
                Some(b't') => self.literal(b"true", Kind::True)?,
                Some(b'f') => self.literal(b"false", Kind::False)?,
                _ => return Err(Invalid::Syntax),
            }
            // It is followed by another, or it is the last of its container, and perhaps that
            // of the next.
            loop {
                let Some(&container) = self.open.last() else {
                    return match self.token() {
                        None => Ok(()),
                        Some(_) => Err(Invalid::Trailing),
                    };
                };
                match (self.document.node(container).kind(), self.token()) {
                    (Kind::Object, Some(b'}')) | (Kind::Array, Some(b']')) => self.leave()?,
                    (Kind::Array, Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (Kind::Object, Some(b',')) => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    _ => return Err(Invalid::Syntax),
                }
            }
        }
    }

    /// The next byte that is not white space.
    fn token(&mut self) -> Option<u8> {
        loop {
            match self.document.text.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    fn push(&mut self, kind: Kind, start: usize, end: usize) -> u32 {
        let nodes = &mut self.document.nodes;
        if nodes.len() == nodes.capacity() && nodes.len() >= DOUBLED_MAX {
            // By doubling, a document of tiny values would take twice the memory that it needs, and
            // a guest's memory never shrinks. Each further node has one of these bytes before it,
            // except this node and the first of a container just entered.
            let is_mark = |byte: &&u8| matches!(byte, b',' | b':' | b'[' | b'{');
            let rest = self.document.text.get(self.at..).unwrap_or_default();
            let most = rest.iter().filter(is_mark).count() + 2;
            // Strings may hold more of them.
            nodes.reserve_exact(most.min(3 * nodes.len()));
        }
        let at = nodes.len() as u32;
        nodes.push(Node::new(kind, start, end));
        at
    }

    fn enter(&mut self, kind: Kind) -> Result<(), Invalid> {
        if self.open.len() == DEPTH_MAX {
            return Err(Invalid::TooDeep);
        }
        self.at += 1;
        // Until an object is closed, its span says where its keys begin.
        let container = self.push(kind, self.keys.len(), 0);
        self.open.push(container);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        let Some(container) = self.open.pop() else {
            return Err(Invalid::Syntax);
        };
        let document = &mut self.document;
        let next = document.nodes.len();
        let node = document.node(container);
        let mut closed = Node::new(Kind::Array, 0, next);
        if node.kind() == Kind::Object {
            let keys = &mut self.keys[node.start()..];
            let ordered =
                |keys: &[u32]| keys.is_sorted_by(|&a, &b| document.bytes(a) < document.bytes(b));
            if !ordered(keys) {
                // Sorted, not compared pair by pair: a body may consist of keys only.
                keys.sort_unstable_by(|&a, &b| document.bytes(a).cmp(document.bytes(b)));
                if !ordered(keys) {
                    return Err(Invalid::DuplicateKey);
                }
            }
            let start = document.members.len();
            document.members.push(next as u32);
            document.members.extend_from_slice(keys);
            self.keys.truncate(node.start());
            closed = Node::new(Kind::Object, start, document.members.len());
        } else if self.drops_numbers {
            let first = container as usize + 1;
            let elements = &document.nodes[first..];
            if !elements.is_empty() && elements.iter().all(|it| it.kind() == Kind::Number) {
                document.nodes.truncate(first);
                closed = Node::new(Kind::Numbers, 0, 0);
            }
        }
        document.nodes[container as usize] = closed;
        Ok(())
    }

    fn key(&mut self) -> Result<(), Invalid> {
        if self.token() != Some(b'"') {
            return Err(Invalid::Syntax);
        }
        self.keys.push(self.document.nodes.len() as u32);
        self.string(true)?;
        if self.token() != Some(b':') {
            return Err(Invalid::Syntax);
        }
        self.at += 1;
        Ok(())
    }

    /// A key is decoded if it holds any escape, because keys are compared by value; another
    /// string only if its spelling is not the canonical one.
    fn string(&mut self, key: bool) -> Result<(), Invalid> {
        let text = self.document.text;
        let start = self.at + 1;
        let span = scan(&text[start..]).ok_or(Invalid::Syntax)?;
        let end = start + span.len;
        let raw = &text[start..end];
        if !span.ascii && core::str::from_utf8(raw).is_err() {
            return Err(Invalid::NotUtf8);
        }
        if span.respelled || (key && span.escaped) {
            let begin = self.document.decoded.len();
            unescape(raw, &mut self.document.decoded, self.halves)?;
            self.push(Kind::Decoded, begin, self.document.decoded.len());
        } else {
            self.push(Kind::Spelled, start, end);
        }
        self.at = end + 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        self.eat(b"-");
        if !self.eat(b"0") {
            self.digits()?;
        }
        if self.eat(b".") {
            self.digits()?;
        }
        if self.eat(b"eE") {
            self.eat(b"+-");
            self.digits()?;
        }
        self.push(Kind::Number, start, self.at);
        Ok(())
    }

    fn eat(&mut self, any: &[u8]) -> bool {
        let next = self.document.text.get(self.at);
        let eaten = next.is_some_and(|byte| any.contains(byte));
        self.at += usize::from(eaten);
        eaten
    }

    fn digits(&mut self) -> Result<(), Invalid> {
        let rest = &self.document.text[self.at..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        match digits {
            0 => Err(Invalid::Syntax),
            _ => Ok(()),
        }
    }

    fn literal(&mut self, word: &[u8], kind: Kind) -> Result<(), Invalid> {
        if !self.document.text[self.at..].starts_with(word) {
            return Err(Invalid::Syntax);
        }
        self.push(kind, self.at, self.at + word.len());
        self.at += word.len();
        Ok(())
    }
}
