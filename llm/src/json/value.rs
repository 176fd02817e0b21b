//! One value of a document, and what it holds.

use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::slice;

use super::Kind;
use super::document::{Document, Spelled};
use super::skip::space;
use super::string::scan;

/// One value of a document.
#[derive(Clone, Copy)]
pub(crate) struct Value<'d> {
    document: &'d Document<'d>,
    at: u32,
}

impl Document<'_> {
    /// The value that the text is.
    pub(crate) fn root(&self) -> Value<'_> {
        let at = match self.has_nodes() {
            true => 0,
            false => space(self.text, 0) as u32,
        };
        Value::new(self, at)
    }
}

impl<'d> Value<'d> {
    pub(super) fn new(document: &'d Document<'d>, at: u32) -> Self {
        Self { document, at }
    }

    /// What the value is.
    pub(crate) fn kind(self) -> Kind {
        self.document.kind(self.at)
    }

    /// A scalar as the text has it, without the quotes of a string.
    pub(crate) fn spelling(self) -> &'d [u8] {
        self.document.spelling(self.at)
    }

    /// A scalar as the text has it, and whether that is its canonical spelling.
    pub(crate) fn spelled(self) -> Spelled<'d> {
        if let Some(spelled) = self.document.listed(self.at) {
            return spelled;
        }
        let text = self.document.text;
        let span = self.document.span(self.at);
        if self.kind() != Kind::String {
            return Spelled::Well(&text[span]);
        }
        match scan(&text[span.start..]).is_none_or(|found| found.respelled) {
            true => Spelled::Otherwise(&text[span]),
            false => Spelled::Well(&text[span.start - 1..span.end + 1]),
        }
    }

    /// The text from this value on, if it has no node.
    pub(crate) fn unlisted(self) -> Option<&'d [u8]> {
        let unlisted = !self.document.has_nodes();
        unlisted.then(|| &self.document.text[self.at as usize..])
    }

    /// A string's value. Valid UTF-8, unless half a surrogate pair of an answer is in it.
    pub(crate) fn string(self) -> Option<Cow<'d, [u8]>> {
        (self.kind() == Kind::String).then(|| self.document.string(self.at))
    }

    /// The value of a key, and nothing of any other value.
    pub(crate) fn name(self) -> Cow<'d, [u8]> {
        match self.document.plain(self.at) {
            Some(plain) => Cow::Borrowed(plain),
            None => self.string().unwrap_or_default(),
        }
    }

    /// The value of an object's member; none for a value that is no object.
    pub(crate) fn get(self, name: &str) -> Option<Value<'d>> {
        let document = self.document;
        let Some(keys) = document.keys(self.at) else {
            let mut members = self.members_as_written();
            let found =
                members.find(|(key, _)| key.is_some_and(|key| *key.name() == *name.as_bytes()));
            return found.map(|(_, value)| value);
        };
        let name = name.as_bytes();
        let is = |&&key: &&u32| match document.plain(key) {
            Some(plain) => plain == name,
            None => *document.string(key) == *name,
        };
        // Of few keys, nearly all have another length.
        let key = match keys.len() {
            0..=FEW_KEYS => keys.iter().find(is)?,
            _ => {
                let found = keys.binary_search_by(|&key| (*document.string(key)).cmp(name));
                keys.get(found.ok()?)?
            }
        };
        Some(Self::new(document, document.value_of(*key)))
    }

    /// The member's value unless it is null, which every API treats as absent.
    pub(crate) fn get_some(self, name: &str) -> Option<Value<'d>> {
        self.get(name).filter(|value| value.kind() != Kind::Null)
    }

    /// What a container holds, with keys if it is an object, in their order. A scalar holds nothing.
    pub(crate) fn members(self) -> Members<'d> {
        if self.kind() != Kind::Object {
            return self.members_as_written();
        }
        let document = self.document;
        let order = match document.keys(self.at) {
            Some(keys) => Order::Listed(keys.iter()),
            None => Order::Sorted(Sorted::of(self)),
        };
        Members { document, order }
    }

    /// The same in the order of the text.
    pub(crate) fn members_as_written(self) -> Members<'d> {
        let document = self.document;
        let order = match self.kind() {
            kind @ (Kind::Array | Kind::Object) => Order::Written {
                next: document.inside(self.at),
                // Without nodes, the text says where it is.
                end: match document.has_nodes() {
                    true => document.after(self.at),
                    false => self.at,
                },
                is_object: kind == Kind::Object,
            },
            _ => Order::Listed([].iter()),
        };
        Members { document, order }
    }

    /// The elements of an array; none for a value that is no array.
    pub(crate) fn elements(self) -> impl Iterator<Item = Value<'d>> {
        let members = match self.kind() {
            Kind::Array => self.members_as_written(),
            _ => Members {
                document: self.document,
                order: Order::Listed([].iter()),
            },
        };
        members.map(|(_, value)| value)
    }
}

/// Walks an array in its order, or an object in the order of its keys or of the text.
pub(crate) struct Members<'d> {
    document: &'d Document<'d>,
    order: Order<'d>,
}

enum Order<'d> {
    /// By keys that the document lists.
    Listed(slice::Iter<'d, u32>),
    /// By keys that were sorted for this.
    Sorted(Sorted),
    /// From place to place.
    Written {
        next: u32,
        end: u32,
        /// Keys stand between the values that are walked.
        is_object: bool,
    },
}

/// Objects with fewer keys are most, and take no allocation.
const FEW_KEYS: usize = 12;

/// The keys of one object, sorted by their values.
struct Sorted {
    few: [u32; FEW_KEYS],
    /// All, if they are not few.
    many: Vec<u32>,
    next: usize,
    count: usize,
}

impl Sorted {
    fn of(object: Value<'_>) -> Self {
        let keys = || {
            let members = object.members_as_written();
            members.filter_map(|(key, _)| key.map(|key| key.at))
        };
        let mut sorted = Self {
            few: [0; FEW_KEYS],
            many: Vec::new(),
            next: 0,
            count: 0,
        };
        for (place, key) in sorted.few.iter_mut().zip(keys()) {
            *place = key;
            sorted.count += 1;
        }
        if sorted.count == FEW_KEYS {
            sorted.many.reserve_exact(keys().count());
            sorted.many.extend(keys());
        }
        object.document.sort(sorted.keys());
        sorted
    }

    fn keys(&mut self) -> &mut [u32] {
        match self.many.is_empty() {
            true => &mut self.few[..self.count],
            false => &mut self.many,
        }
    }
}

impl Iterator for Sorted {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let at = self.next;
        self.next += 1;
        self.keys().get(at).copied()
    }
}

impl<'d> Iterator for Members<'d> {
    type Item = (Option<Value<'d>>, Value<'d>);

    fn next(&mut self) -> Option<Self::Item> {
        let document = self.document;
        let key = match &mut self.order {
            Order::Listed(keys) => *keys.next()?,
            Order::Sorted(keys) => keys.next()?,
            Order::Written { next, end, .. } if document.is_behind(*next, *end) => return None,
            Order::Written {
                next, is_object, ..
            } => {
                let first = *next;
                let value = match is_object {
                    true => document.value_of(first),
                    false => first,
                };
                *next = document.after(value);
                if *is_object {
                    first
                } else {
                    return Some((None, Value::new(document, value)));
                }
            }
        };
        let value = Value::new(document, document.value_of(key));
        Some((Some(Value::new(document, key)), value))
    }
}
