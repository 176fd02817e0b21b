//! The folder of a cassette: which of its files are exchanges, how they are read without trust, and how they are
//! written so that a kill leaves whole files only.

use super::file::{Exchange, FILE_BYTES_MAX};
use super::rules::{self, Rules};
use super::version::VERSION;
use crate::serve::plain::plain;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Exchanges of one folder.
pub(super) const EXCHANGES_MAX: usize = 100_000;
/// Bytes of all files of one folder: what is read is held in memory.
const FOLDER_BYTES_MAX: u64 = 1 << 30;
/// Files of a folder, other ones included.
const FILES_MAX: usize = 2 * EXCHANGES_MAX;
/// Digits of the number in a file's name.
const DIGITS: std::ops::RangeInclusive<usize> = 4..=6;
/// The end of a file's name while it is written.
const UNFINISHED: &str = ".part";

/// The folder of a cassette, open.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    open: OwnedFd,
}

impl Folder {
    /// Opens a folder.
    ///
    /// # Errors
    ///
    /// One line that names it.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::open(path, flags, Mode::empty());
        let open = open.map_err(|error| told_of(path, &io::Error::from(error)))?;
        let path = path.to_owned();
        Ok(Self { path, open })
    }

    /// The same of a folder that is made when absent.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(super) fn make(path: &Path) -> Result<Self, String> {
        fs::create_dir_all(path).map_err(|error| told_of(path, &error))?;
        Self::open(path)
    }

    /// A message about a file in it.
    pub(super) fn told(&self, name: &str, what: &str) -> String {
        let path = self.path.join(name).display().to_string();
        format!("{}: {}", plain(&path), plain(what))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all exchanges, in order.
    ///
    /// # Errors
    ///
    /// One line: a file that is none of a cassette's, and ends like one.
    pub(super) fn names(&self) -> Result<Vec<String>, String> {
        let all = fs::read_dir(&self.path).map_err(|error| told_of(&self.path, &error))?;
        let mut names = Vec::new();
        for (count, entry) in all.enumerate() {
            let entry = entry.map_err(|error| told_of(&self.path, &error))?;
            if count == FILES_MAX {
                return Err(self.told("", &format!("it has more than {FILES_MAX} files")));
            }
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if !name.ends_with(".json") {
                continue;
            }
            if number_of(&name).is_none() {
                return Err(self.told(&name, "its name is none of an exchange"));
            }
            names.push(name.into_owned());
        }
        if names.len() > EXCHANGES_MAX {
            return Err(self.told("", &format!("it has more than {EXCHANGES_MAX} exchanges")));
        }
        names.sort_unstable_by(|one, other| (number_of(one), one).cmp(&(number_of(other), other)));
        Ok(names)
    }

    /// All exchanges with their names, in order.
    ///
    /// # Errors
    ///
    /// One line that names the first file that cannot be used.
    pub(super) fn load(&self) -> Result<Vec<(String, Exchange)>, String> {
        let mut left = FOLDER_BYTES_MAX;
        let mut exchanges = Vec::new();
        for name in self.names()? {
            let Some(bytes) = self.read_if_there(&name, FILE_BYTES_MAX)? else {
                // It was there a moment ago.
                return Err(self.told(&name, "it is gone"));
            };
            left = left
                .checked_sub(bytes.len() as u64)
                .ok_or_else(|| self.told(&name, "with it, the folder has more than 1 GiB"))?;
            let exchange = Exchange::read(&bytes).map_err(|error| self.told(&name, &error))?;
            exchanges.push((name, exchange));
        }
        Ok(exchanges)
    }

    /// A file's bytes; none if no such file is there.
    ///
    /// # Errors
    ///
    /// One line that names it: a link, a pipe or a folder, or it is too long.
    pub(super) fn read_if_there(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, String> {
        // Without NONBLOCK, opening a pipe waits for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.open, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => {
                return Err(self.told(name, "it is a symbolic link, which is not followed"));
            }
            Err(error) => return Err(self.told(name, &io::Error::from(error).to_string())),
        };
        let told = |error: io::Error| self.told(name, &error.to_string());
        let about = file.metadata().map_err(told)?;
        if !about.is_file() {
            return Err(self.told(name, "it is no regular file"));
        }
        if about.len() > bytes_max {
            return Err(self.told(name, &format!("it is longer than {bytes_max} bytes")));
        }
        let mut bytes = Vec::with_capacity(about.len() as usize);
        // It may have grown.
        let mut bounded = file.take(bytes_max + 1);
        bounded.read_to_end(&mut bytes).map_err(told)?;
        match bytes.len() as u64 > bytes_max {
            true => Err(self.told(name, &format!("it is longer than {bytes_max} bytes"))),
            false => Ok(Some(bytes)),
        }
    }

    /// Writes a file as a whole: under another name first.
    ///
    /// # Errors
    ///
    /// One line that names it.
    pub(super) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let unfinished = format!("{name}{UNFINISHED}");
        let written = self.write_unfinished(&unfinished, text).and_then(|()| {
            let renamed = rustix::fs::renameat(&self.open, &unfinished, &self.open, name);
            Ok(renamed?)
        });
        written.map_err(|error| self.told(name, &error.to_string()))
    }

    fn write_unfinished(&self, name: &str, text: &str) -> io::Result<()> {
        // With EXCL, a link is not followed. What an earlier recording has left is in the way.
        let _ = rustix::fs::unlinkat(&self.open, name, AtFlags::empty());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.open, name, flags, Mode::from_raw_mode(0o644))?;
        File::from(file).write_all(text.as_bytes())
    }

    /// Removes all exchanges, and what a killed recording has left.
    ///
    /// # Errors
    ///
    /// One line: the folder has a file that is none of a cassette's. Then nothing is removed.
    pub(super) fn clear(&self) -> Result<(), String> {
        let names = self.names()?;
        // What is no cassette of this version is not removed.
        for name in &names {
            let bytes = self
                .read_if_there(name, FILE_BYTES_MAX)?
                .unwrap_or_default();
            Exchange::read(&bytes).map_err(|error| self.told(name, &error))?;
        }
        for name in &names {
            let removed = rustix::fs::unlinkat(&self.open, name.as_str(), AtFlags::empty());
            removed.map_err(|error| self.told(name, &io::Error::from(error).to_string()))?;
        }
        Ok(())
    }

    /// The number behind that of the last exchange.
    pub(super) fn next_number(names: &[String]) -> u32 {
        let last = names.iter().filter_map(|name| number_of(name)).max();
        last.map_or(1, |number| number + 1)
    }

    /// The rules of the folder; none without a file of them.
    ///
    /// # Errors
    ///
    /// One line that names the file.
    pub(super) fn rules(&self) -> Result<Rules, String> {
        let Some(text) = self.read_if_there(rules::FILE, rules::FILE_BYTES_MAX)? else {
            return Ok(Rules::default());
        };
        let text = String::from_utf8(text).map_err(|_| "it is no text".to_owned());
        let rules = text.and_then(|text| Rules::parse(&text));
        rules.map_err(|error| self.told(rules::FILE, &error))
    }

    /// Writes the file of rules, if there is none yet, so that the folder says which version it is.
    ///
    /// # Errors
    ///
    /// One line that names it.
    pub(super) fn mark(&self) -> Result<(), String> {
        match self.read_if_there(rules::FILE, FILE_BYTES_MAX)? {
            Some(_) => Ok(()),
            None => self.write(
                rules::FILE,
                &format!("# Exchanges for `reflex-edge replay`. [[redact]] adds to what is redacted.\nversion = {VERSION}\n"),
            ),
        }
    }
}

/// The number in the name of an exchange: `0001-chat-completions-0a1b2c3d.json`.
fn number_of(name: &str) -> Option<u32> {
    let (number, rest) = name.strip_suffix(".json")?.split_once('-')?;
    let is_number = DIGITS.contains(&number.len()) && number.bytes().all(|it| it.is_ascii_digit());
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (is_number && rest.bytes().all(is_name)).then(|| number.parse().ok())?
}

fn told_of(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", plain(&path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const FILE: &str =
        r#"{"cassette":1,"request":{"method":"GET","path":"/a"},"answer":{"status":204}}"#;
    const NAME: &str = "0001-a-01234567.json";

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(dir.path()).expect("the folder");
        (dir, folder)
    }

    fn check_refused(folder: &Folder, name: &str) {
        let error = folder.load().expect_err(name);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(name), "{error}");
    }

    #[test]
    fn what_was_written_is_there_in_order_and_nothing_else_counts() {
        let (dir, folder) = folder();
        folder.mark().expect("rules");
        for name in ["0002-a-01234567.json", NAME, "10000-b-01234567.json"] {
            folder.write(name, FILE).expect("written");
        }
        fs::write(dir.path().join("README.md"), "text").expect("written");
        fs::write(dir.path().join("0004-a-01234567.json.part"), "{").expect("written");
        let names: Vec<String> = folder
            .load()
            .expect("exchanges")
            .into_iter()
            .map(|it| it.0)
            .collect();
        assert_eq!(
            names,
            [NAME, "0002-a-01234567.json", "10000-b-01234567.json"]
        );
        assert_eq!(Folder::next_number(&names), 10_001);
        folder.clear().expect("cleared");
        assert_eq!(folder.names(), Ok(Vec::new()));
        assert!(dir.path().join("README.md").exists() && dir.path().join(rules::FILE).exists());
    }

    #[test]
    fn links_pipes_folders_and_strange_names_are_refused_by_name() {
        let (dir, hostile) = folder();
        let path = dir.path().join(NAME);
        symlink("/etc/passwd", &path).expect("a link");
        check_refused(&hostile, NAME);
        fs::remove_file(&path).expect("removed");
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
            .expect("a pipe");
        check_refused(&hostile, NAME);
        fs::remove_file(&path).expect("removed");
        fs::create_dir(&path).expect("a folder");
        check_refused(&hostile, NAME);
        fs::remove_dir(&path).expect("removed");
        let file = File::create(&path).expect("a file");
        file.set_len(FILE_BYTES_MAX + 1).expect("a long file");
        check_refused(&hostile, NAME);
        fs::write(&path, &FILE[..40]).expect("a broken file");
        check_refused(&hostile, NAME);
        assert!(
            hostile.clear().is_err() && path.exists(),
            "what is none is not removed"
        );
        fs::remove_file(&path).expect("removed");
        for name in [
            "package.json",
            "1-a.json",
            "0001-A.json",
            "0001-..json",
            "0001-\u{1b}[2J.json",
        ] {
            let path = dir.path().join(name);
            fs::write(&path, FILE).expect("a file");
            let error = hostile.load().expect_err(name);
            assert!(
                error.lines().count() == 1 && !error.contains('\u{1b}'),
                "{error}"
            );
            fs::remove_file(&path).expect("removed");
        }
    }

    #[test]
    fn writing_follows_no_link() {
        let (dir, folder) = folder();
        let other = dir.path().join("other");
        fs::write(&other, "mine").expect("a file");
        symlink(&other, dir.path().join(format!("{NAME}{UNFINISHED}"))).expect("a link");
        symlink(&other, dir.path().join(NAME)).expect("a link");
        folder.write(NAME, FILE).expect("written");
        assert_eq!(fs::read_to_string(&other).expect("text"), "mine");
        assert_eq!(
            fs::read_to_string(dir.path().join(NAME)).expect("text"),
            FILE
        );
    }
}
