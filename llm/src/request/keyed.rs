//! What a key covers, part by part, and in which parts two keys differ.
//!
//! The parts are read back from the bytes that the hasher has hashed. So an explanation cannot say
//! anything else than the key does. It is for operators: no request takes this way.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::json::spans::{self, Span};
use crate::key::read_fields;
use crate::{By, Bypass, Examined, KeyHasher, Prepared};

/// Differences that are told. Two requests with more are different requests.
pub const DIFFERENCES_MAX: usize = 50;

/// A request's key, and what it covers.
pub struct Keyed {
    /// The key, and what belongs to it.
    pub examined: Examined,
    /// All bytes that were hashed.
    record: Vec<u8>,
}

/// A kind of part that a key covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyedKind {
    /// Who asks: the credential, the trusted header, or a group. Its value is never told.
    Tenant,
    /// The provider's scheme and host.
    Provider,
    /// The method.
    Method,
    /// The path without the query.
    Path,
    /// A parameter of the query.
    Query,
    /// The API, and whether the answer is a stream of events.
    Form,
    /// The client accepts nothing but events, although the body asks for none.
    Accept,
    /// A header.
    Header,
    /// A cookie.
    Cookie,
    /// A field of the body, or of an object further in.
    Field,
}

impl KeyedKind {
    /// A stable word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tenant => "credential",
            Self::Provider => "provider",
            Self::Method => "method",
            Self::Path => "path",
            Self::Query => "query",
            Self::Form => "form",
            Self::Accept => "accept",
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Field => "field",
        }
    }

    /// The same kind among those that operators have lists for.
    pub const fn by(self) -> Option<By> {
        match self {
            Self::Header => Some(By::Header),
            Self::Cookie => Some(By::Cookie),
            Self::Query => Some(By::Query),
            Self::Field => Some(By::Field),
            _ => None,
        }
    }
}

/// A part that a key covers.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyedPart {
    /// Its kind.
    pub kind: KeyedKind,
    /// Its name, as the request spells it; empty for kinds of which there is one.
    pub name: String,
    /// Its value, as it was hashed. Empty for [`KeyedKind::Tenant`].
    pub value: Vec<u8>,
}

/// Without the value.
impl fmt::Debug for KeyedPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.kind.name(), self.name)
    }
}

/// A part in which two keys differ.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its kind.
    pub kind: KeyedKind,
    /// Its name. A field further in has its whole way: `messages[0].content`.
    pub name: String,
    /// The value in the first request; none if the part is absent there.
    pub left: Option<Vec<u8>>,
    /// The same in the second request.
    pub right: Option<Vec<u8>>,
    /// The parts inside are the same in both, but in another order.
    pub is_order: bool,
}

/// Without the values.
impl fmt::Debug for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} `{}`", self.kind.name(), self.name)
    }
}

/// The parts in which two keys differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// At most [`DIFFERENCES_MAX`], the head's first. Empty if and only if the keys are equal.
    pub found: Vec<Difference>,
    /// More were left out.
    pub has_more: bool,
}

impl Prepared {
    /// Reads the body, makes the key, and keeps what it covers.
    ///
    /// # Errors
    ///
    /// Why the request passes by.
    pub fn keyed(&self, body: &[u8]) -> Result<Keyed, Bypass> {
        let body = self.read(body)?;
        let (examined, hasher) = self.examined(&body, KeyHasher::recording);
        Ok(Keyed {
            examined,
            record: hasher.into_record(),
        })
    }
}

/// The content is as secret as a credential.
impl fmt::Debug for Keyed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keyed({} bytes)", self.record.len())
    }
}

impl Keyed {
    /// Everything that the key covers, in the order in which it was hashed; of the body, the
    /// fields of the outermost object.
    pub fn parts(&self) -> Vec<KeyedPart> {
        let (mut parts, body) = self.read();
        let members = spans::root(body).and_then(|root| spans::members(body, root));
        for (name, value) in members.unwrap_or_default() {
            parts.push(KeyedPart {
                kind: KeyedKind::Field,
                name: text(&body[name]),
                value: body[value].into(),
            });
        }
        for part in &mut parts {
            if part.kind == KeyedKind::Tenant {
                part.value.clear();
            }
        }
        parts
    }

    /// The parts in which the keys of two requests differ.
    pub fn differences(&self, other: &Self) -> Differences {
        let mut differences = Differences::default();
        if self.examined.exchange.key == other.examined.exchange.key {
            return differences;
        }
        let ((left, left_body), (right, right_body)) = (self.read(), other.read());
        differences.heads(&left, &right);
        let roots = (spans::root(left_body), spans::root(right_body));
        if let (Some(left), Some(right)) = roots {
            let bodies = Bodies {
                left: left_body,
                right: right_body,
            };
            bodies.compare("", left, right, &mut differences);
        }
        if differences.found.is_empty() {
            differences.add(KeyedKind::Field, "", None, None, true);
        }
        differences
    }

    /// The parts of the head, and the body in its canonical spelling.
    fn read(&self) -> (Vec<KeyedPart>, &[u8]) {
        let mut parts = Vec::new();
        let mut header = String::new();
        let mut read_bytes = 0;
        for (name, value) in read_fields(&self.record) {
            read_bytes += 2 * size_of::<u64>() + name.len() + value.len();
            let mut add = |kind, name: &str, value: &[u8]| {
                parts.push(KeyedPart {
                    kind,
                    name: name.into(),
                    value: value.into(),
                });
            };
            match name {
                "tenant" => add(KeyedKind::Tenant, "", value),
                "upstream" => add(KeyedKind::Provider, "", value),
                "method" => add(KeyedKind::Method, "", value),
                "path" => add(KeyedKind::Path, "", value),
                "shape" => add(KeyedKind::Form, "", value),
                "accept" => add(KeyedKind::Accept, "", value),
                "query" => list(value, b'&', |name, item| add(KeyedKind::Query, name, item)),
                "header" => header = text(value),
                "value" if header == "cookie" => {
                    list(value, b';', |name, item| add(KeyedKind::Cookie, name, item));
                }
                "value" => add(KeyedKind::Header, &header, value),
                // A field that is new in the key and not yet known here still shows.
                other => add(KeyedKind::Header, other, value),
            }
        }
        // The name of the last field and its length, which says that it reaches to the end.
        let body_at = read_bytes + 2 * size_of::<u64>() + "body".len();
        (parts, self.record.get(body_at..).unwrap_or_default())
    }
}

/// Calls `each` for every item of the form `name=value`, with its value.
fn list(list: &[u8], separator: u8, mut each: impl FnMut(&str, &[u8])) {
    for item in list.split(|&byte| byte == separator) {
        let item = item.trim_ascii();
        let end = item.iter().position(|&byte| byte == b'=');
        let (name, value) = item.split_at(end.unwrap_or(item.len()));
        each(&text(name), value.strip_prefix(b"=").unwrap_or(value));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The values of the parts of one kind and name.
type Values<'p> = BTreeMap<(KeyedKind, &'p str), Vec<&'p [u8]>>;

fn by_name(parts: &[KeyedPart]) -> Values<'_> {
    let mut values = Values::new();
    for part in parts {
        let all = values.entry((part.kind, part.name.as_str())).or_default();
        all.push(&part.value);
    }
    values
}

impl Differences {
    fn add(
        &mut self,
        kind: KeyedKind,
        name: &str,
        left: Option<Vec<u8>>,
        right: Option<Vec<u8>>,
        is_order: bool,
    ) {
        if self.found.len() == DIFFERENCES_MAX {
            self.has_more = true;
            return;
        }
        // The hash of a credential tells whether two credentials are equal.
        let told = |value: Option<Vec<u8>>| match kind {
            KeyedKind::Tenant => value.map(|_| Vec::new()),
            _ => value,
        };
        self.found.push(Difference {
            kind,
            name: name.into(),
            left: told(left),
            right: told(right),
            is_order,
        });
    }

    fn heads(&mut self, left: &[KeyedPart], right: &[KeyedPart]) {
        let (lefts, rights) = (by_name(left), by_name(right));
        let mut names: Vec<_> = lefts.keys().chain(rights.keys()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let (left, right) = (lefts.get(name), rights.get(name));
            if left != right {
                let joined = |values: &Vec<&[u8]>| values.join(&b", "[..]);
                let (left, right) = (left.map(joined), right.map(joined));
                self.add(name.0, name.1, left, right, false);
            }
        }
        // Each name has the same values: then only the order of the names can differ.
        for kind in [KeyedKind::Query, KeyedKind::Cookie] {
            let of = |parts: &[KeyedPart]| -> Vec<KeyedPart> {
                let parts = parts.iter().filter(|part| part.kind == kind);
                parts.cloned().collect()
            };
            let is_told = self.found.iter().any(|found| found.kind == kind);
            if !is_told && of(left) != of(right) {
                self.add(kind, "", None, None, true);
            }
        }
    }
}

/// Two bodies in their canonical spelling.
pub(crate) struct Bodies<'b> {
    pub(crate) left: &'b [u8],
    pub(crate) right: &'b [u8],
}

impl Bodies<'_> {
    /// Compares two values at the same place, and goes into those that both are objects or arrays:
    /// as deep as the JSON reader lets a document be.
    pub(crate) fn compare(&self, way: &str, left: Span, right: Span, found: &mut Differences) {
        let (left_text, right_text) = (&self.left[left.clone()], &self.right[right.clone()]);
        if left_text == right_text || found.has_more {
            return;
        }
        let before = found.found.len();
        let compared = match (left_text.first(), right_text.first()) {
            (Some(b'{'), Some(b'{')) => self.objects(way, left, right, found),
            (Some(b'['), Some(b'[')) => self.arrays(way, left, right, found),
            _ => None,
        };
        if found.found.len() == before {
            let (left, right) = (left_text.into(), right_text.into());
            let is_order = compared.is_some();
            found.add(KeyedKind::Field, way, Some(left), Some(right), is_order);
        }
    }

    fn objects(&self, way: &str, left: Span, right: Span, found: &mut Differences) -> Option<()> {
        let (lefts, rights) = (
            spans::members(self.left, left)?,
            spans::members(self.right, right)?,
        );
        let inside = |name: &[u8]| match way {
            "" => text(name),
            way => format!("{way}.{}", text(name)),
        };
        // A map, because an object may have a million members.
        let named: BTreeMap<&[u8], &Span> = rights
            .iter()
            .map(|(name, value)| (&self.right[name.clone()], value))
            .collect();
        for (name, value) in &lefts {
            let name = &self.left[name.clone()];
            match named.get(name) {
                Some(other) => {
                    self.compare(&inside(name), value.clone(), (*other).clone(), found);
                }
                None => {
                    let value = Some(self.left[value.clone()].into());
                    found.add(KeyedKind::Field, &inside(name), value, None, false);
                }
            }
        }
        let own: BTreeMap<&[u8], ()> = lefts
            .iter()
            .map(|(name, _)| (&self.left[name.clone()], ()))
            .collect();
        for (name, value) in &rights {
            let name = &self.right[name.clone()];
            if !own.contains_key(name) {
                let value = Some(self.right[value.clone()].into());
                found.add(KeyedKind::Field, &inside(name), None, value, false);
            }
        }
        Some(())
    }

    fn arrays(&self, way: &str, left: Span, right: Span, found: &mut Differences) -> Option<()> {
        let (lefts, rights) = (
            spans::elements(self.left, left)?,
            spans::elements(self.right, right)?,
        );
        for number in 0..lefts.len().max(rights.len()) {
            let inside = || format!("{way}[{number}]");
            match (lefts.get(number), rights.get(number)) {
                (Some(left), Some(right)) => {
                    self.compare(&inside(), left.clone(), right.clone(), found);
                }
                (left, right) => {
                    let left = left.map(|left| self.left[left.clone()].into());
                    let right = right.map(|right| self.right[right.clone()].into());
                    found.add(KeyedKind::Field, &inside(), left, right, false);
                }
            }
            if found.has_more {
                break;
            }
        }
        Some(())
    }
}
