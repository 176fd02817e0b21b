//! Headers and lists as Envoy hands them to a module, read where they lie.
//!
//! ```text
//! count  (length of name, length of value) × count  (name 0 value 0) × count
//! ```
//!
//! Numbers have 32 bits, little-endian. The bytes come from Envoy, which is trusted, but a module that
//! panics costs requests: whatever does not fit together is no list.

/// Bytes of the count, and of each length.
const NUMBER: usize = 4;

/// Bytes of the two lengths of a pair.
const LENGTHS: usize = 2 * NUMBER;

/// Names and values of a map, in order; none if the bytes are no map, or a name is no text. No bytes are
/// an empty map.
pub fn headers(bytes: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    read(bytes, |name, value| {
        Some((std::str::from_utf8(name).ok()?, value))
    })
}

/// The values of a list, which Envoy writes as the names of a map.
pub fn values(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    read(bytes, |value, _| Some(value))
}

fn read<'b, T>(bytes: &'b [u8], pair: impl Fn(&'b [u8], &'b [u8]) -> Option<T>) -> Option<Vec<T>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = number(bytes)?;
    // Bounds the memory that is taken for a count that makes no sense.
    let bytes_of_lengths = count.checked_mul(LENGTHS)?;
    let (mut lengths, mut texts) = rest.split_at_checked(bytes_of_lengths)?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let (name, value);
        (name, lengths) = number(lengths)?;
        (value, lengths) = number(lengths)?;
        let (name_is, value_is);
        (name_is, texts) = text(texts, name)?;
        (value_is, texts) = text(texts, value)?;
        pairs.push(pair(name_is, value_is)?);
    }
    Some(pairs)
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

/// A text of that length, and what comes after the zero behind it.
fn text(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(length)?;
    match rest.split_first()? {
        (0, rest) => Some((text, rest)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut bytes = (pairs.len() as u32).to_le_bytes().to_vec();
        for (name, value) in pairs {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
        }
        for (name, value) in pairs {
            bytes.extend([name, &b"\0"[..], value, b"\0"].concat());
        }
        bytes
    }

    #[test]
    fn what_envoy_writes_is_read_in_order() {
        let pairs: [(&str, &[u8]); 4] = [
            (":method", b"POST"),
            ("cookie", b"a=1"),
            ("cookie", b""),
            ("x-bytes", b"\0\xff\0"),
        ];
        let named = pairs.map(|(name, value)| (name.as_bytes(), value));
        let bytes = write(&named);
        assert_eq!(headers(&bytes).expect("a map"), pairs);
        let names: Vec<&[u8]> = named.iter().map(|(name, _)| *name).collect();
        assert_eq!(values(&bytes).expect("a list"), names);
        assert_eq!(headers(b""), Some(vec![]));
        assert_eq!(headers(&write(&[])), Some(vec![]));
    }

    #[test]
    fn a_name_that_is_no_text_makes_no_headers_but_a_value_of_a_list() {
        let bytes = write(&[(b"\x80\x80", b"")]);
        assert_eq!(headers(&bytes), None);
        assert_eq!(values(&bytes), Some(vec![&b"\x80\x80"[..]]));
    }

    #[test]
    fn every_torn_prefix_is_refused() {
        let bytes = write(&[(b":path", b"/v1"), (b"accept", b"*/*"), (b"x", b"")]);
        for cut in 1..bytes.len() {
            assert_eq!(headers(&bytes[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_count_or_length_that_does_not_fit_is_refused() {
        let bytes = write(&[(b"a", b"1")]);
        for at in 0..NUMBER + LENGTHS {
            for wrong in [1, 0x7f, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[at] ^= wrong;
                // A pair less is a map; all else is none.
                if bytes[..NUMBER] != [0; NUMBER] {
                    assert_eq!(headers(&bytes), None, "{at} {wrong}");
                }
            }
        }
        assert_eq!(headers(&u32::MAX.to_le_bytes()), None);
        let mut huge = vec![0xff; 64];
        huge[..NUMBER].copy_from_slice(&2_u32.to_le_bytes());
        assert_eq!(headers(&huge), None);
    }

    fn letters(random: &mut impl FnMut() -> u64) -> Vec<u8> {
        let count = random() % 6;
        (0..count).map(|_| b'a' + (random() % 26) as u8).collect()
    }

    /// Random bytes, and maps with random bytes in random places: never a panic, never more than there
    /// is, and what is read writes the bytes that were read.
    #[test]
    fn whatever_bytes_come_nothing_is_read_that_is_not_there() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut maps = 0;
        for _ in 0..200_000 {
            let count = random() % 4;
            let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..count)
                .map(|_| (letters(&mut random), letters(&mut random)))
                .collect();
            let pairs: Vec<(&[u8], &[u8])> = pairs
                .iter()
                .map(|(name, value)| (name.as_slice(), value.as_slice()))
                .collect();
            let mut bytes = write(&pairs);
            for _ in 0..random() % 4 {
                let at = random() as usize % bytes.len();
                bytes[at] = match random() % 3 {
                    0 => random() as u8,
                    1 => bytes[at].wrapping_add(1),
                    _ => 0,
                };
            }
            bytes.truncate(bytes.len() - (random() as usize % 3).min(bytes.len()));
            if let Some(read) = headers(&bytes) {
                maps += 1;
                let read: Vec<(&[u8], &[u8])> = read
                    .iter()
                    .map(|(name, value)| (name.as_bytes(), *value))
                    .collect();
                assert!(bytes.is_empty() || bytes.starts_with(&write(&read)));
            }
        }
        assert!((1000..200_000).contains(&maps), "{maps}");
    }
}
