//! Strings inside JSON: their ends, their spelling, their values.

use super::Invalid;

/// What a look at a string shows, short of decoding it.
pub(crate) struct Span {
    /// Bytes before the closing quote.
    pub(crate) len: usize,
    pub(crate) ascii: bool,
    /// It holds escapes.
    pub(crate) escaped: bool,
    /// It holds an escape that the canonical spelling does not have.
    pub(crate) respelled: bool,
}

/// Finds the end of the string whose opening quote was just passed.
pub(crate) fn scan(text: &[u8]) -> Option<Span> {
    let mut cursor = Cursor::default();
    let mut escaped = false;
    let mut respelled = false;
    loop {
        match cursor.seek(text)? {
            b'"' => {
                return Some(Span {
                    len: cursor.at,
                    ascii: cursor.high & HIGH == 0,
                    escaped,
                    respelled,
                });
            }
            b'\\' => {
                escaped = true;
                match text.get(cursor.at + 1)? {
                    b'"' | b'\\' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    // The digits are looked at when it is decoded, which this makes sure of.
                    b'/' | b'u' => respelled = true,
                    _ => return None,
                }
                cursor.at += 2;
            }
            // A control character must be escaped.
            _ => return None,
        }
    }
}

/// The number of bytes before a quote, a backslash, a control character or the end.
pub(crate) fn run(text: &[u8]) -> usize {
    let mut cursor = Cursor::default();
    cursor.seek(text);
    cursor.at
}

/// Walks from one byte that does not stand for itself to the next.
#[derive(Default)]
struct Cursor {
    at: usize,
    /// All bytes that were passed, and perhaps some behind, in a bitwise or.
    high: u64,
}

impl Cursor {
    /// Goes to the next quote, backslash or control character, or to the end.
    ///
    /// Prompts are long, so most of the time is spent here. It checks words of 8 bytes, and after a
    /// few without such a byte, blocks that the compiler turns into SIMD.
    #[inline]
    fn seek(&mut self, text: &[u8]) -> Option<u8> {
        let mut words = 0;
        while let Some(word) = text.get(self.at..)?.first_chunk() {
            let word = u64::from_le_bytes(*word);
            self.high |= word;
            let marks = marks(word);
            if marks != 0 {
                self.at += marks.trailing_zeros() as usize / 8;
                return text.get(self.at).copied();
            }
            self.at += 8;
            words += 1;
            if words == 4 {
                self.skip_blocks(text);
            }
        }
        while let Some(&byte) = text.get(self.at) {
            if is_marked(byte) != 0 {
                return Some(byte);
            }
            self.high |= u64::from(byte);
            self.at += 1;
        }
        None
    }

    /// Skips blocks without such a byte. Lane by lane: a sum over the lanes of each block would
    /// keep the compiler from using SIMD, so all lanes are checked together at the end.
    fn skip_blocks(&mut self, text: &[u8]) {
        const LANES: usize = 16;
        let mut high = [0u8; LANES];
        for block in text[self.at..].as_chunks::<{ 2 * LANES }>().0 {
            let mut marked = [0u8; LANES];
            for lane in 0..LANES {
                let (a, b) = (block[lane], block[lane + LANES]);
                marked[lane] = is_marked(a) | is_marked(b);
                high[lane] |= a | b;
            }
            if u128::from_le_bytes(marked) != 0 {
                break;
            }
            self.at += 2 * LANES;
        }
        if !high.is_ascii() {
            self.high |= HIGH;
        }
    }
}

/// Not a `bool`, so that it stays one byte per lane.
fn is_marked(byte: u8) -> u8 {
    u8::from(byte == b'"') | u8::from(byte == b'\\') | u8::from(byte < b' ')
}

const LOW: u64 = u64::from_le_bytes([1; 8]);
const HIGH: u64 = LOW << 7;

/// Marks the bytes of a word that end a run. The lowest mark is exact; higher marks may come from a
/// borrow.
fn marks(word: u64) -> u64 {
    let equals = |byte: u8| {
        let difference = word ^ (LOW * u64::from(byte));
        difference.wrapping_sub(LOW) & !difference
    };
    let control = word.wrapping_sub(LOW * 0x20) & !word;
    (equals(b'"') | equals(b'\\') | control) & HIGH
}

/// How to treat an escape that stands for half of a surrogate pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Halves {
    /// It is an error.
    Refused,
    /// It becomes three bytes, by the rule of UTF-8, although the standard excludes halves. No
    /// other text has these bytes, so keys that differ in a half differ.
    Kept,
}

/// Hands over the value of a string that was scanned, part by part.
pub(crate) fn unescape(
    mut raw: &[u8],
    mut value: impl FnMut(&[u8]),
    halves: Halves,
) -> Result<(), Invalid> {
    loop {
        let (plain, rest) = raw.split_at(run(raw));
        if !plain.is_empty() {
            value(plain);
        }
        let Some((_backslash, rest)) = rest.split_first() else {
            return Ok(());
        };
        let (&escape, rest) = rest.split_first().ok_or(Invalid::Syntax)?;
        raw = rest;
        let byte = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (code, rest) = utf16(rest, halves)?;
                raw = rest;
                match char::from_u32(code) {
                    Some(character) => {
                        value(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    None => {
                        let low = |shift: u32| (0x80 | code >> shift & 0x3f) as u8;
                        value(&[0xe0 | (code >> 12) as u8, low(6), low(0)]);
                    }
                }
                continue;
            }
            _ => return Err(Invalid::Syntax),
        };
        value(&[byte]);
    }
}

/// The code point after `\u`, which takes a second escape if it is outside the first plane. Half a
/// pair is a code point of its own where halves are kept.
fn utf16(raw: &[u8], halves: Halves) -> Result<(u32, &[u8]), Invalid> {
    let (first, rest) = hex(raw)?;
    if !(0xd800..0xe000).contains(&first) {
        return Ok((first, rest));
    }
    if first < 0xdc00
        && let Some(second) = rest.strip_prefix(b"\\u")
        && let (second @ 0xdc00..0xe000, rest) = hex(second)?
    {
        let code = 0x10000 + ((first - 0xd800) << 10 | (second - 0xdc00));
        return Ok((code, rest));
    }
    match halves {
        Halves::Refused => Err(Invalid::Surrogate),
        Halves::Kept => Ok((first, rest)),
    }
}

fn hex(raw: &[u8]) -> Result<(u32, &[u8]), Invalid> {
    let (digits, rest) = raw.split_at_checked(4).ok_or(Invalid::Syntax)?;
    let mut value = 0;
    for &digit in digits {
        let digit = char::from(digit).to_digit(16).ok_or(Invalid::Syntax)?;
        value = value << 4 | digit;
    }
    Ok((value, rest))
}
