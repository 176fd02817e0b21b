//! A small disk of a test's own, which can be full, refuse to be written, or hang.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use tempfile::TempDir;

/// A disk. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    is_frozen: bool,
    /// The file that it is in; none is in memory.
    _image: Option<TempDir>,
}

impl Disk {
    /// One in memory with these options of `mount -t tmpfs -o`; none, and a skip, if this user may not mount.
    ///
    /// # Panics
    ///
    /// If there is no place for it.
    pub fn mount(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let is_there = mount(&["-t", "tmpfs", "-o", options, "tmpfs"], folder.path());
        if !is_there {
            reflex_skip::skip("a disk in trouble", "mounting is not allowed: run as root");
        }
        is_there.then_some(Self {
            folder,
            is_frozen: false,
            _image: None,
        })
    }

    /// One of so many bytes that can be [frozen](Self::freeze); none, and a skip, if that is not possible
    /// here.
    ///
    /// # Panics
    ///
    /// If there is no place for it.
    pub fn freezable(bytes: u64) -> Option<Self> {
        let image = tempfile::tempdir().expect("a temporary folder");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = image.path().join("disk");
        let made = File::create(&file).and_then(|made| made.set_len(bytes));
        made.expect("a file for a disk");
        let file = file.to_string_lossy();
        let is_there =
            run("mkfs.ext4", &["-q", "-F", &file]) && mount(&["-o", "loop", &file], folder.path());
        if !is_there {
            let how =
                "mkfs.ext4 is missing, or mounting is not allowed: install e2fsprogs, run as root";
            reflex_skip::skip("a disk that hangs", how);
        }
        is_there.then_some(Self {
            folder,
            is_frozen: false,
            _image: Some(image),
        })
    }

    /// From now on each write hangs, until [`thaw`](Self::thaw).
    ///
    /// # Panics
    ///
    /// If it is not [freezable](Self::freezable).
    pub fn freeze(&mut self) {
        assert!(run("fsfreeze", &["-f", &self.path().to_string_lossy()]));
        self.is_frozen = true;
    }

    /// Lets the writes go on.
    ///
    /// # Panics
    ///
    /// If it is not frozen.
    pub fn thaw(&mut self) {
        assert!(run("fsfreeze", &["-u", &self.path().to_string_lossy()]));
        self.is_frozen = false;
    }

    /// Changes its options.
    ///
    /// # Panics
    ///
    /// If they cannot be changed.
    pub fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(mount(&["-o", &options], self.path()), "{options}");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder for answers on it.
    pub fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let place = self.path().to_string_lossy().into_owned();
        // A test that failed has left it frozen.
        let _thawed = self.is_frozen && run("fsfreeze", &["-u", &place]);
        // Lazily: a program of a test that failed may still use it.
        let is_gone = run("umount", &["-l", &place]);
        assert!(is_gone || thread::panicking(), "{place} stays mounted");
    }
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    run("mount", &[arguments, &[&place.to_string_lossy()]].concat())
}

/// Whether it worked.
fn run(program: &str, arguments: &[&str]) -> bool {
    let ended = Command::new(program).args(arguments).output();
    ended.is_ok_and(|output| output.status.success())
}
