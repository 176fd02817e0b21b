//! Removes exports from a core module. A host calls every export: Envoy enters the module once more
//! for each request to be logged, which costs 2 µs, although our filter logs none. The SDK exports
//! all callbacks.

/// The section that lists a module's exports.
const EXPORT_SECTION: u8 = 7;
/// Magic number and version.
const HEADER_BYTES: usize = 8;

/// The module without the functions of these names. None if it is no module.
pub(crate) fn without(module: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let (header, mut rest) = module.split_at_checked(HEADER_BYTES)?;
    let mut out = header.to_vec();
    while let Some((&id, after)) = rest.split_first() {
        let (length, after) = number(after)?;
        let (content, after) = after.split_at_checked(length)?;
        rest = after;
        out.push(id);
        match id {
            EXPORT_SECTION => {
                let content = kept(content, names)?;
                write_number(&mut out, content.len());
                out.extend(content);
            }
            _ => {
                write_number(&mut out, length);
                out.extend(content);
            }
        }
    }
    Some(out)
}

/// An export section without these names.
fn kept(section: &[u8], names: &[&str]) -> Option<Vec<u8>> {
    let (count, mut rest) = number(section)?;
    let mut entries: Vec<u8> = Vec::new();
    let mut left = 0;
    for _ in 0..count {
        let begin = rest;
        let (length, after) = number(rest)?;
        let (name, after) = after.split_at_checked(length)?;
        // Its kind, and its number within that kind.
        let (_, after) = number(after.get(1..)?)?;
        rest = after;
        if !names.iter().any(|gone| gone.as_bytes() == name) {
            entries.extend(&begin[..begin.len() - after.len()]);
            left += 1;
        }
    }
    let mut out = Vec::new();
    write_number(&mut out, left);
    out.extend(entries);
    Some(out)
}

/// A number in LEB128, and the bytes after it.
fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(5) {
        value |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}

fn write_number(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exports `names`, all of function 200, between two other sections.
    fn module(names: &[&str]) -> Vec<u8> {
        let mut section = vec![names.len() as u8];
        for name in names {
            section.push(name.len() as u8);
            section.extend(name.as_bytes());
            section.extend([0, 0xc8, 0x01]);
        }
        let mut bytes = b"\0asm\x01\0\0\0\x01\x02ab".to_vec();
        bytes.extend([EXPORT_SECTION, section.len() as u8]);
        bytes.extend(section);
        bytes.extend(b"\x0a\x01c");
        bytes
    }

    #[test]
    fn what_is_named_goes_and_all_else_stays() {
        let all = module(&["memory", "gone", "kept"]);
        assert_eq!(without(&all, &["gone"]), Some(module(&["memory", "kept"])));
        assert_eq!(without(&all, &["nobody"]), Some(all.clone()));
        let none = without(&all, &["memory", "gone", "kept"]);
        assert_eq!(none, Some(module(&[])));
        for cut in 9..all.len() - 3 {
            let section = &all[..cut];
            assert!(cut == 12 || without(section, &["gone"]).is_none(), "{cut}");
        }
    }
}
