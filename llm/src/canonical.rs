//! The canonical spelling of a JSON value: no white space, each string in the one spelling that
//! escapes only what must be, numbers as they came. The members of objects that the API defines are
//! sorted by the bytes of their keys. Members of all other objects stay in their order, which
//! models see.
//!
//! Two texts have the same canonical spelling if and only if they have the same value, except for
//! numbers: `1` and `1.0` differ, because no provider promises to treat them as equal.

use alloc::vec::Vec;

use crate::KeyHasher;
use crate::api::Known;
use crate::json::{Kind, Members, Value, run};
use crate::outline::Outline;

/// Writes a value, without the members that are out of the key.
///
/// Keeps its own stack, as deep as the reader lets a document be, so that no nesting can
/// exhaust the program's.
pub(crate) fn write(root: Value<'_>, outline: Outline<'_>, out: &mut KeyHasher) {
    let mut open: Vec<Level> = Vec::with_capacity(16);
    let mut value = root;
    let mut known = outline.top();
    loop {
        match value.kind() {
            Kind::Object => {
                out.push(b'{');
                open.push(Level::new(value, known, b'}'));
            }
            Kind::Array => {
                out.push(b'[');
                open.push(Level::new(value, known, b']'));
            }
            _ => scalar(value, out),
        }
        value = loop {
            let depth = open.len();
            let Some(level) = open.last_mut() else {
                return;
            };
            let Some((key, next)) = level.rest.next() else {
                out.push(level.close);
                open.pop();
                continue;
            };
            known = level.known;
            if let Some(key) = key {
                let name = key.spelling();
                let omitted = match depth {
                    1 => outline.omits_field(name, next),
                    _ => outline.omits_member(known, name, next),
                };
                if omitted {
                    continue;
                }
                if matches!(next.kind(), Kind::Object | Kind::Array) {
                    known = known.inside(name);
                }
            }
            if !core::mem::take(&mut level.first) {
                out.push(b',');
            }
            if let Some(key) = key {
                scalar(key, out);
                out.push(b':');
            }
            break next;
        };
    }
}

/// A container that is being written.
struct Level<'d> {
    rest: Members<'d>,
    known: &'static Known,
    first: bool,
    close: u8,
}

impl<'d> Level<'d> {
    fn new(container: Value<'d>, known: &'static Known, close: u8) -> Self {
        Self {
            rest: match known.is_sorted {
                true => container.members(),
                false => container.members_as_written(),
            },
            known,
            first: true,
            close,
        }
    }
}

fn scalar(value: Value<'_>, out: &mut KeyHasher) {
    match value.kind() {
        Kind::Decoded => {
            out.push(b'"');
            escaped(value.spelling(), out);
            out.push(b'"');
        }
        // Spelled canonically already: numbers and words always are.
        _ => out.write(value.source()),
    }
}

/// Writes a string's value with the escapes that JSON demands, and the short one of each.
fn escaped(mut value: &[u8], out: &mut KeyHasher) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    loop {
        let (plain, rest) = value.split_at(run(value));
        out.write(plain);
        let Some((&byte, rest)) = rest.split_first() else {
            return;
        };
        value = rest;
        match byte {
            b'"' => out.write(b"\\\""),
            b'\\' => out.write(b"\\\\"),
            0x08 => out.write(b"\\b"),
            0x0c => out.write(b"\\f"),
            b'\n' => out.write(b"\\n"),
            b'\r' => out.write(b"\\r"),
            b'\t' => out.write(b"\\t"),
            _ => {
                let digit = |nibble: u8| HEX[usize::from(nibble)];
                out.write(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
            }
        }
    }
}
