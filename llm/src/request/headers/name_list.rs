//! A long list of names that every header of every request is looked for in.

/// Names by length, each once, and of each a mark, by which it is told from most others without a look at it.
pub(super) struct NameList<const N: usize> {
    names: [&'static str; N],
    marks: [u64; N],
    /// For each length, the number of names that are shorter. The last length has no name.
    starts: [usize; LENGTHS],
}

const LENGTHS: usize = 64;

impl<const N: usize> NameList<N> {
    /// The list may be in any order.
    pub(super) const fn new(names: [&'static str; N]) -> Self {
        let names = ordered(names);
        let mut marks = [0; N];
        let mut at = 0;
        while at < N {
            marks[at] = mark(names[at].as_bytes());
            assert!(
                at == 0 || is_before(names[at - 1], names[at]),
                "a name is there twice"
            );
            at += 1;
        }
        let mut starts = [0; LENGTHS];
        let mut length = 0;
        while length < LENGTHS {
            let mut shorter = 0;
            while shorter < N && names[shorter].len() < length {
                shorter += 1;
            }
            starts[length] = shorter;
            length += 1;
        }
        assert!(starts[LENGTHS - 1] == N, "a name is too long");
        Self {
            names,
            marks,
            starts,
        }
    }

    /// Whether this is one of the names: a look at the marks of those of its length, and a comparison with the
    /// one whose mark it has.
    pub(super) fn has(&self, name: &str) -> bool {
        let Some(&[start, end]) = self.starts.get(name.len()..name.len() + 2) else {
            return false;
        };
        let mark = mark(name.as_bytes());
        let mut marked = self.marks[start..end].iter().zip(&self.names[start..end]);
        marked.any(|(other, other_name)| *other == mark && *other_name == name)
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> impl Iterator<Item = &&'static str> {
        self.names.iter()
    }
}

/// The beginning and the end of a name, eight bytes of each, in which nearly all names of a length differ; the
/// whole of a shorter one.
const fn mark(name: &[u8]) -> u64 {
    match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => {
            u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29)
        }
        _ => {
            let (mut mark, mut at) = (0, 0);
            while at < name.len() {
                mark = mark << 8 | name[at] as u64;
                at += 1;
            }
            mark
        }
    }
}

/// Sorts names by length and then by their bytes, at compile time, so that lists can be read by family.
const fn ordered<const N: usize>(mut names: [&str; N]) -> [&str; N] {
    let mut sorted = 1;
    while sorted < N {
        let mut at = sorted;
        while at > 0 && is_before(names[at], names[at - 1]) {
            names.swap(at - 1, at);
            at -= 1;
        }
        sorted += 1;
    }
    names
}

const fn is_before(a: &str, b: &str) -> bool {
    if a.len() != b.len() {
        return a.len() < b.len();
    }
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return a[at] < b[at];
        }
        at += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::names::HEADERS;
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::format;

    #[test]
    fn a_name_is_found_and_no_other() {
        let check = |name: &str| {
            let is_there = HEADERS.names().any(|it| *it == name);
            assert_eq!(HEADERS.has(name), is_there, "{name}");
        };
        for name in HEADERS.names() {
            assert!(HEADERS.has(name), "{name}");
            check(&name[1..]);
            check(&name[..name.len() - 1]);
            check(&format!("{name}x"));
            check(&name.to_ascii_uppercase());
            // With the same mark, where the name is long enough to have a middle that is not in it.
            let middle = name.len() / 2;
            check(&format!("{}!{}", &name[..middle], &name[middle + 1..]));
        }
        for length in 0..100 {
            check(&"~".repeat(length));
        }
    }

    #[test]
    fn nearly_all_marks_differ() {
        let mut alike = BTreeMap::new();
        for name in HEADERS.names() {
            *alike
                .entry((name.len(), mark(name.as_bytes())))
                .or_insert(0) += 1;
        }
        assert!(alike.values().all(|count| *count <= 2), "{alike:?}");
    }

    #[test]
    fn a_list_is_ordered_by_length_and_then_by_bytes() {
        let list = NameList::new(["b", "ac", "abcdefghij", "ab", "a"]);
        assert!(list.names().eq(&["a", "b", "ab", "ac", "abcdefghij"]));
        for name in ["a", "b", "ab", "ac", "abcdefghij"] {
            assert!(list.has(name));
        }
        for name in ["", "c", "ba", "abcdefghi", "abcdefghijk", "abcdefgxij"] {
            assert!(!list.has(name), "{name}");
        }
    }
}
