//! The operator's keys: a file with one a line.

use super::super::format::KeyId;
use super::Wiped;
use std::fmt;
use std::sync::Arc;

/// The keys that a data folder is encrypted with: the first one encrypts, all of them decrypt. A clone
/// is the same keys. Their bytes are overwritten with the last one, and `Debug` shows names only.
#[derive(Clone)]
pub struct EncryptionKeys {
    keys: Arc<[Key]>,
    reads_plain: bool,
}

#[derive(Clone)]
pub(super) struct Key {
    /// The operator's word for it.
    name: String,
    pub(super) id: KeyId,
    /// What the keys of tenants are derived from.
    pub(super) root: Wiped,
}

impl fmt::Debug for EncryptionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.iter().map(|key| (&key.name, &key.id));
        f.debug_map().entries(keys).finish()
    }
}

/// The same keys in the same order.
impl PartialEq for EncryptionKeys {
    fn eq(&self, other: &Self) -> bool {
        let ids = |keys: &Self| keys.keys.iter().map(|key| key.id).collect::<Vec<_>>();
        ids(self) == ids(other) && self.reads_plain == other.reads_plain
    }
}

impl EncryptionKeys {
    /// With these keys, a data folder that is not encrypted is opened as well, and what is written from then
    /// on is encrypted. [`compact`](crate::cache::Cache::compact) writes the rest again. Until that has
    /// ended, the folder can be opened in this way only: what is not encrypted is not authenticated.
    #[must_use]
    pub fn converting(self) -> Self {
        Self {
            reads_plain: true,
            ..self
        }
    }

    /// The name and the id of each key. The id is a hash of the key; records name their key by it.
    pub fn names(&self) -> impl Iterator<Item = (&str, String)> {
        self.keys.iter().map(|key| (&*key.name, key.id.to_string()))
    }

    pub(crate) fn reads_plain(&self) -> bool {
        self.reads_plain
    }

    /// The key that encrypts.
    pub(crate) fn first(&self) -> KeyId {
        self.keys[0].id
    }

    pub(crate) fn has(&self, id: &KeyId) -> bool {
        self.keys.iter().any(|key| key.id == *id)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }
}

#[cfg(feature = "encryption")]
mod file {
    use super::{EncryptionKeys, Key, KeyId, Wiped};
    use std::fs::File;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use zeroize::Zeroizing;

    const ID_CONTEXT: &str = "reflex-edge 2026-11 id of an encryption key";
    const ROOT_CONTEXT: &str = "reflex-edge 2026-11 root of tenants' encryption keys";

    /// Old keys go when no record is under them any more.
    const KEYS_MAX: usize = 16;
    const NAME_CHARACTERS_MAX: usize = 32;
    /// A longer file is another file.
    const FILE_BYTES_MAX: u64 = 16 << 10;

    /// As of the admin token's file: a group may read it, because Kubernetes mounts secrets so.
    const MODE_REFUSED: u32 = 0o027;

    impl EncryptionKeys {
        /// Reads the file of keys: on each line a name of up to 32 letters, digits, `.`, `_` and `-`, and
        /// 64 hexadecimal digits. The first key encrypts. Empty lines and those with `#` do not count.
        ///
        /// # Errors
        ///
        /// A line that names the file and what is wrong, and shows nothing of a key: it cannot be read, users
        /// beside its owner and its group can read it, or its form is another one.
        pub fn read(path: &Path) -> Result<Self, String> {
            let named = |error: String| format!("{}: {error}", path.display());
            let io = |error: std::io::Error| named(error.to_string());
            let file = File::open(path).map_err(io)?;
            let mode = file.metadata().map_err(io)?.permissions().mode() & 0o777;
            if mode & MODE_REFUSED != 0 {
                let why = format!("mode {mode:04o} lets others at the keys; `chmod 600` it");
                return Err(named(why));
            }
            // As long as it can become, because a longer string would leave a copy behind.
            let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize + 2));
            file.take(FILE_BYTES_MAX + 1)
                .read_to_string(&mut text)
                .map_err(io)?;
            if text.len() as u64 > FILE_BYTES_MAX {
                return Err(named(format!("it is longer than {FILE_BYTES_MAX} bytes")));
            }
            Self::parse(&text).map_err(named)
        }

        /// As [`read`](Self::read), of the text of such a file.
        ///
        /// # Errors
        ///
        /// What is wrong with which line. Nothing of a key is in it.
        pub fn parse(text: &str) -> Result<Self, String> {
            let mut keys: Vec<Key> = Vec::new();
            for (number, line) in (1..).zip(text.lines()) {
                let line = line.trim();
                if line.is_empty() || line.starts_with('#') {
                    continue;
                }
                let key = key(line).ok_or_else(|| {
                    format!("line {number} is not a name and 64 hexadecimal digits")
                })?;
                if keys.iter().any(|it| it.id == key.id || it.name == key.name) {
                    return Err(format!("line {number} repeats a name or a key"));
                }
                keys.push(key);
            }
            match keys.len() {
                0 => Err("it has no key".into()),
                count if count > KEYS_MAX => Err(format!("it has more than {KEYS_MAX} keys")),
                _ => Ok(Self {
                    keys: keys.into(),
                    reads_plain: false,
                }),
            }
        }
    }

    fn key(line: &str) -> Option<Key> {
        let (name, digits) = line.split_once(char::is_whitespace)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.len() > NAME_CHARACTERS_MAX || !name.bytes().all(is_plain) {
            return None;
        }
        let (pairs, rest) = digits.trim().as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let mut bytes = Zeroizing::new([0; 32]);
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |it: u8| char::from(it).to_digit(16);
            *byte = (digit(*high)? << 4 | digit(*low)?) as u8;
        }
        let id = blake3::derive_key(ID_CONTEXT, &*bytes);
        Some(Key {
            name: name.to_owned(),
            id: KeyId(*id.first_chunk()?),
            root: Wiped(blake3::derive_key(ROOT_CONTEXT, &*bytes)),
        })
    }
}

#[cfg(all(test, feature = "encryption"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    const A: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const B: &str = "FF0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    #[test]
    fn the_first_key_encrypts_and_names_are_all_that_is_shown() {
        let keys = EncryptionKeys::parse(&format!("# ours\n\n2026-11 {A}\nold\t{B} \n")).unwrap();
        let names: Vec<_> = keys.names().collect();
        assert_eq!(names.len(), 2);
        assert_eq!(names[0].0, "2026-11");
        assert_eq!(names[0].1, keys.first().to_string());
        let shown = format!("{keys:?}");
        assert!(
            shown.contains("2026-11") && shown.contains(&names[1].1),
            "{shown}"
        );
        assert!(!shown.contains(&A[..16]) && shown.len() < 100, "{shown}");
        let other = EncryptionKeys::parse(&format!("new {B}\nx {A}")).unwrap();
        assert!(other != keys && other.has(&keys.first()));
        // An id is derived, and no part of the key.
        assert!(!A.contains(&names[0].1));
    }

    #[test]
    fn another_form_is_refused_in_words_that_show_no_key() {
        for (text, why) in [
            (String::new(), "no key"),
            (format!("{A}\n"), "line 1"),
            (format!("a {}", &A[1..]), "line 1"),
            (format!("a {A}0"), "line 1"),
            (format!("a {}g", &A[1..]), "line 1"),
            (format!("a +{}", &A[1..]), "line 1"),
            (format!("a b {A}"), "line 1"),
            (format!("ä {A}"), "line 1"),
            (format!("{} {A}", "a".repeat(33)), "line 1"),
            (format!("a {A}\nb {A}"), "line 2 repeats"),
            (format!("a {A}\na {B}"), "line 2 repeats"),
        ] {
            let error = EncryptionKeys::parse(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains(&A[2..8]), "{error}");
        }
        let many = |count: u8| {
            let line = |it: u8| format!("k{it} {it:02x}{}\n", &A[2..]);
            (0..count).map(line).collect::<String>()
        };
        assert!(EncryptionKeys::parse(&many(16)).is_ok());
        assert!(EncryptionKeys::parse(&many(17)).unwrap_err().contains("16"));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(&path, format!("a {A}\n")).unwrap();
        for (mode, is_fine) in [(0o600, true), (0o440, true), (0o644, false), (0o620, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = EncryptionKeys::read(&path);
            assert_eq!(read.is_ok(), is_fine, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "#".repeat(17 << 10)).unwrap();
        let error = EncryptionKeys::read(&path).unwrap_err();
        assert!(error.contains("keys: it is longer"), "{error}");
        let missing = EncryptionKeys::read(&dir.path().join("none")).unwrap_err();
        assert!(missing.contains("none"), "{missing}");
    }
}
