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
use crate::json::{Halves, Kind, Members, Spelled, Value, run, scan, space, unescape, value_end};
use crate::request::outline::Outline;

/// Writes a value, without the members that are out of the key.
///
/// Keeps its own stack, as deep as the reader lets a document be, so that no nesting can
/// exhaust the program's.
pub(crate) fn write(root: Value<'_>, outline: Outline<'_>, out: &mut KeyHasher) {
    let mut open: Vec<Level> = Vec::with_capacity(16);
    let mut value = root;
    let mut known = outline.top();
    loop {
        let free = value.unlisted().filter(|_| known.is_free());
        match (value.kind(), free) {
            (Kind::Object | Kind::Array, Some(text)) => as_written(text, out),
            (Kind::Object, None) => {
                out.push(b'{');
                open.push(Level::new(value, known, b'}'));
            }
            (Kind::Array, None) => {
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
                let name = &*key.name();
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
    match value.spelled() {
        // Numbers and words always are.
        Spelled::Well(spelling) => out.write(spelling),
        Spelled::Otherwise(spelling) => respelled(spelling, out),
    }
}

/// Writes the value that a text begins with, in one pass over it: of what is the user's own, only
/// white space and the spelling of strings change.
fn as_written(text: &[u8], out: &mut KeyHasher) {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => {
                at = space(text, at);
                continue;
            }
            b'"' => {
                let string = &text[at + 1..];
                let Some(span) = scan(string) else { return };
                match span.respelled {
                    true => respelled(&string[..span.len], out),
                    false => out.write(&text[at..at + span.len + 2]),
                }
                at += span.len + 2;
                continue;
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' | b':' => {}
            _ => {
                let end = value_end(text, at).unwrap_or(text.len());
                out.write(&text[at..end]);
                at = end;
                continue;
            }
        }
        out.push(byte);
        at += 1;
        if depth == 0 {
            return;
        }
    }
}

/// Room for what is decoded of a string until it is written.
const DECODED_BYTES: usize = 256;

/// Writes a string that is spelled in another way, given without its quotes, in the canonical one.
fn respelled(spelling: &[u8], out: &mut KeyHasher) {
    out.push(b'"');
    // Gathers what is decoded, which comes character by character.
    let mut room = [0; DECODED_BYTES];
    let mut filled = 0;
    let decode = |part: &[u8]| {
        if part.len() > room.len() - filled {
            escaped(&room[..filled], out);
            filled = 0;
        }
        match room.get_mut(filled..filled + part.len()) {
            Some(free) => {
                free.copy_from_slice(part);
                filled += part.len();
            }
            None => escaped(part, out),
        }
    };
    // It was read without fault, so it is decoded without.
    let _ = unescape(spelling, decode, Halves::Kept);
    escaped(&room[..filled], out);
    out.push(b'"');
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
