//! Where values end in a text that was read already.
//!
//! For other texts the results are arbitrary, but it does not panic.

use super::string::run;

/// The first place from this one on that holds no white space.
pub(crate) fn space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

/// The place behind the value that begins at this one. As deep as it may be nested, only the depth
/// is kept.
pub(crate) fn value_end(text: &[u8], start: usize) -> Option<usize> {
    match text.get(start)? {
        b'"' => string_end(text, start),
        b'[' | b'{' => {
            let mut at = start;
            let mut depth = 0_usize;
            loop {
                at += plain(&text[at..]);
                match text.get(at)? {
                    b'"' => {
                        at = string_end(text, at)?;
                        continue;
                    }
                    b'[' | b'{' => depth += 1,
                    b']' | b'}' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let rest = &text[start..];
            let ends = |byte: &u8| b",:]} \n\r\t".contains(byte);
            Some(start + rest.iter().position(ends).unwrap_or(rest.len()))
        }
    }
}

/// The place behind the string whose opening quote is here.
pub(super) fn string_end(text: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += run(text.get(at..)?);
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Whether the array that begins here holds numbers, one or more, and nothing else.
pub(super) fn holds_numbers(text: &[u8], array: usize) -> bool {
    let first = space(text, array + 1);
    let is_of_numbers = |byte: &u8| !matches!(byte, b'"' | b'[' | b'{' | b'n' | b't' | b'f');
    let rest = text.get(first..).unwrap_or_default();
    let inside = rest.iter().take_while(|byte| **byte != b']');
    rest.first() != Some(&b']') && inside.clone().all(is_of_numbers)
}

/// How many bytes at the beginning are surely neither quotes nor brackets. Vectors are long and
/// hold none, so this looks at blocks that the compiler turns into SIMD, lane by lane.
fn plain(text: &[u8]) -> usize {
    const LANES: usize = 16;
    // All four brackets, and some others, become 0x7f by these bits; the callers look at each.
    let is_marked = |byte: u8| u8::from(byte == b'"') | u8::from(byte | 0x26 == 0x7f);
    let mut length = 0;
    for block in text.as_chunks::<{ 4 * LANES }>().0 {
        let mut marked = [0u8; LANES];
        for lane in 0..LANES {
            for row in 0..4 {
                marked[lane] |= is_marked(block[row * LANES + lane]);
            }
        }
        if u128::from_le_bytes(marked) != 0 {
            break;
        }
        length += block.len();
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_quote_and_no_bracket_is_passed_over() {
        for mark in *b"\"[]{}" {
            for at in 0..64 {
                let mut text = [b'1'; 64];
                assert_eq!(plain(&text), 64);
                text[at] = mark;
                assert_eq!(plain(&text), 0, "{mark} at {at}");
            }
        }
    }

    #[test]
    fn arrays_of_numbers_are_told_from_others() {
        let check = |text: &str, expected| {
            assert_eq!(holds_numbers(text.as_bytes(), 0), expected, "{text}");
        };
        check("[1]", true);
        check("[ -1.5e+3 , 2 ] ,\"a\"", true);
        check("[ ]", false);
        for other in ["\"\"", "[]", "{}", "null", "true", "false"] {
            check(&alloc::format!("[1,{other},2]"), false);
            check(&alloc::format!("[{other}]"), false);
        }
    }
}
