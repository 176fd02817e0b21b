//! From text to document, in one pass.

use alloc::vec::Vec;

use super::document::{Document, Form, Node};
use super::string::{Halves, scan, unescape};
use super::{DEPTH_MAX, Invalid, NODES_MAX, TEXT_BYTES_MAX};

/// Reads a text of a request, which is one JSON value.
pub(crate) fn read(text: &[u8]) -> Result<Document<'_>, Invalid> {
    read_all(text, Halves::Refused, false)
}

/// Reads a text of an answer, which is one JSON value. Half a surrogate pair is accepted, and an
/// array of numbers becomes [`Kind::Numbers`](super::Kind::Numbers).
pub(crate) fn read_answer(text: &[u8]) -> Result<Document<'_>, Invalid> {
    read_all(text, Halves::Kept, true)
}

fn read_all(text: &[u8], halves: Halves, is_answer: bool) -> Result<Document<'_>, Invalid> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(Invalid::TooLarge);
    }
    if text.starts_with(b"\xef\xbb\xbf") {
        return Err(Invalid::ByteOrderMark);
    }
    let read = match read_once(text, halves, is_answer, true) {
        // From the beginning, without a list.
        Err(Stop::TooMany) => read_once(text, halves, is_answer, false),
        read => read,
    };
    match read {
        Ok(document) => Ok(document),
        Err(_) if core::str::from_utf8(text).is_err() => Err(Invalid::NotUtf8),
        Err(Stop::Invalid(invalid)) => Err(invalid),
        Err(Stop::TooMany) => Err(Invalid::TooLarge),
    }
}

/// Reads a text with a list of its nodes or without one.
pub(super) fn read_once(
    text: &[u8],
    halves: Halves,
    is_answer: bool,
    lists: bool,
) -> Result<Document<'_>, Stop> {
    Reader::new(text, halves, is_answer, lists).read()
}

/// Why reading stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Invalid(Invalid),
    /// The text has more than [`NODES_MAX`] nodes.
    TooMany,
}

impl From<Invalid> for Stop {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

struct Reader<'t> {
    document: Document<'t>,
    at: usize,
    /// Containers not yet closed.
    open: Vec<Open>,
    /// Keys of the objects not yet closed, as places in the document.
    keys: Vec<u32>,
    halves: Halves,
    /// Whether the document's nodes are listed.
    lists: bool,
}

/// A container not yet closed.
struct Open {
    is_object: bool,
    node: u32,
    /// The number of keys of the objects around it.
    keys_before: u32,
}

impl<'t> Reader<'t> {
    fn new(text: &'t [u8], halves: Halves, is_answer: bool, lists: bool) -> Self {
        Self {
            document: Document {
                text,
                nodes: Vec::with_capacity(if lists { 64 } else { 0 }),
                members: Vec::with_capacity(if lists { 32 } else { 0 }),
                is_answer,
            },
            at: 0,
            open: Vec::with_capacity(16),
            keys: Vec::with_capacity(32),
            halves,
            lists,
        }
    }

    fn read(mut self) -> Result<Document<'t>, Stop> {
        loop {
            // A value is due.
            match self.token() {
                Some(b'{') => {
                    self.enter(Form::Object)?;
                    if self.token() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.enter(Form::Array)?;
                    if self.token() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => self.string()?,
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b'n') => self.literal(b"null", Form::Null)?,
                Some(b't') => self.literal(b"true", Form::True)?,
                Some(b'f') => self.literal(b"false", Form::False)?,
                _ => return Err(Invalid::Syntax.into()),
            }
            // It is followed by another, or it is the last of its container, and perhaps that
            // of the next.
            loop {
                let Some(container) = self.open.last() else {
                    return match self.token() {
                        None => Ok(self.document),
                        Some(_) => Err(Invalid::Trailing.into()),
                    };
                };
                match (container.is_object, self.token()) {
                    (true, Some(b'}')) | (false, Some(b']')) => self.leave()?,
                    (false, Some(b',')) => {
                        self.at += 1;
                        break;
                    }
                    (true, Some(b',')) => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    _ => return Err(Invalid::Syntax.into()),
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

    fn push(&mut self, form: Form, start: usize, end: usize) -> Result<(), Stop> {
        if self.lists {
            if self.document.nodes.len() == NODES_MAX {
                return Err(Stop::TooMany);
            }
            self.document.nodes.push(Node::new(form, start, end));
        }
        Ok(())
    }

    fn enter(&mut self, form: Form) -> Result<(), Stop> {
        if self.open.len() == DEPTH_MAX {
            return Err(Invalid::TooDeep.into());
        }
        self.at += 1;
        self.open.push(Open {
            is_object: form == Form::Object,
            node: self.document.nodes.len() as u32,
            keys_before: self.keys.len() as u32,
        });
        // Its span is known when it is closed.
        self.push(form, 0, 0)
    }

    fn leave(&mut self) -> Result<(), Stop> {
        self.at += 1;
        let Some(container) = self.open.pop() else {
            return Err(Invalid::Syntax.into());
        };
        let document = &mut self.document;
        let next = document.nodes.len();
        let mut closed = Node::new(Form::Array, 0, next);
        if container.is_object {
            let keys = &mut self.keys[container.keys_before as usize..];
            if !document.sort(keys) {
                return Err(Invalid::DuplicateKey.into());
            }
            let start = document.members.len();
            if self.lists {
                document.members.push(next as u32);
                document.members.extend_from_slice(keys);
            } else if self.open.is_empty() {
                document.members = core::mem::take(&mut self.keys);
            }
            self.keys.truncate(container.keys_before as usize);
            closed = Node::new(Form::Object, start, document.members.len());
        } else if self.lists && document.is_answer {
            let first = container.node as usize + 1;
            let elements = &document.nodes[first..];
            if !elements.is_empty() && elements.iter().all(|it| it.form() == Form::Number) {
                document.nodes.truncate(first);
                closed = Node::new(Form::Numbers, 0, 0);
            }
        }
        if self.lists {
            document.nodes[container.node as usize] = closed;
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(), Stop> {
        if self.token() != Some(b'"') {
            return Err(Invalid::Syntax.into());
        }
        let place = match self.lists {
            true => self.document.nodes.len(),
            false => self.at,
        };
        self.keys.push(place as u32);
        self.string()?;
        if self.token() != Some(b':') {
            return Err(Invalid::Syntax.into());
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), Stop> {
        let text = self.document.text;
        let start = self.at + 1;
        let span = scan(&text[start..]).ok_or(Invalid::Syntax)?;
        let end = start + span.len;
        let raw = &text[start..end];
        if !span.ascii && core::str::from_utf8(raw).is_err() {
            return Err(Invalid::NotUtf8.into());
        }
        let form = match (span.escaped, span.respelled) {
            (false, _) => Form::Plain,
            (true, false) => Form::Escaped,
            (true, true) => {
                unescape(raw, |_| {}, self.halves)?;
                Form::Respelled
            }
        };
        self.at = end + 1;
        self.push(form, start, end)
    }

    fn number(&mut self) -> Result<(), Stop> {
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
        self.push(Form::Number, start, self.at)
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

    fn literal(&mut self, word: &[u8], form: Form) -> Result<(), Stop> {
        let start = self.at;
        if !self.document.text[start..].starts_with(word) {
            return Err(Invalid::Syntax.into());
        }
        self.at += word.len();
        self.push(form, start, self.at)
    }
}
