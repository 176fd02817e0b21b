//! Lists that members of bodies and answers are looked for in: nearly all of them are not there, and
//! most of those have a length or a first byte that no name of that length has.

/// Names of which none is empty.
pub(crate) struct NameSet<const N: usize> {
    names: [&'static [u8]; N],
    /// For each length, the first bytes of the names that have it, by their last five bits.
    firsts: [u32; LENGTHS],
}

/// Names that are longer count as one length.
const LENGTHS: usize = 32;

impl<const N: usize> NameSet<N> {
    pub(crate) const fn new(names: [&'static [u8]; N]) -> Self {
        let mut firsts = [0; LENGTHS];
        let mut at = 0;
        while at < N {
            firsts[length(names[at])] |= bit(names[at][0]);
            at += 1;
        }
        Self { names, firsts }
    }

    /// Whether this is one of the names.
    #[inline]
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        self.may_have(name) && self.names.contains(&name)
    }

    /// Whether this is one of the names, whose letters match in either case.
    #[inline]
    pub(crate) fn has_in_any_case(&self, name: &[u8]) -> bool {
        // A letter has the same last five bits in either case.
        let is = |other: &&[u8]| other.eq_ignore_ascii_case(name);
        self.may_have(name) && self.names.iter().any(is)
    }

    #[inline]
    fn may_have(&self, name: &[u8]) -> bool {
        let first = name.first();
        first.is_some_and(|first| self.firsts[length(name)] & bit(*first) != 0)
    }
}

/// Parts of names, with any text around them.
pub(crate) struct PartSet<const N: usize> {
    parts: [&'static [u8]; N],
    firsts: u32,
    shortest: usize,
}

impl<const N: usize> PartSet<N> {
    pub(crate) const fn new(parts: [&'static [u8]; N]) -> Self {
        let (mut firsts, mut shortest) = (0, usize::MAX);
        let mut at = 0;
        while at < N {
            firsts |= bit(parts[at][0]);
            if parts[at].len() < shortest {
                shortest = parts[at].len();
            }
            at += 1;
        }
        Self {
            parts,
            firsts,
            shortest,
        }
    }

    /// Whether a name contains any of the parts.
    #[inline]
    pub(crate) fn is_in(&self, name: &[u8]) -> bool {
        let Some(last) = name.len().checked_sub(self.shortest) else {
            return false;
        };
        (0..=last).any(|at| {
            let begins = |part: &&[u8]| name[at..].starts_with(part);
            self.firsts & bit(name[at]) != 0 && self.parts.iter().any(begins)
        })
    }
}

const fn length(name: &[u8]) -> usize {
    match name.len() {
        0..LENGTHS => name.len(),
        _ => LENGTHS - 1,
    }
}

const fn bit(first: u8) -> u32 {
    1 << (first & 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_has_what_the_list_has() {
        const LONG: &[u8] = b"a_name_that_is_longer_than_any_name_of_a_member";
        const NAMES: NameSet<4> = NameSet::new([b"ab", b"b", b"abc", LONG]);
        for name in [&b"ab"[..], b"b", b"abc", LONG] {
            assert!(NAMES.has(name) && NAMES.has_in_any_case(name));
            assert!(NAMES.has_in_any_case(&name.to_ascii_uppercase()));
        }
        let longer = &[LONG, b"x"].concat()[..];
        for name in [&b""[..], b"a", b"bb", b"AB", b"abd", b"\x01b", longer] {
            assert!(!NAMES.has(name), "{}", name.escape_ascii());
            let is_spelled_otherwise = name == b"AB";
            assert_eq!(NAMES.has_in_any_case(name), is_spelled_otherwise);
        }
    }

    #[test]
    fn a_part_is_found_wherever_it_stands() {
        const PARTS: PartSet<2> = PartSet::new([b"abc", b"xy"]);
        for name in [&b"abc"[..], b"1abc", b"ababc", b"xy", b"xxy", b"1xy1"] {
            assert!(PARTS.is_in(name), "{}", name.escape_ascii());
        }
        for name in [&b""[..], b"x", b"ab", b"x1y", b"ABC", b"8y"] {
            assert!(!PARTS.is_in(name), "{}", name.escape_ascii());
        }
    }
}
