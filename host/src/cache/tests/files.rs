//! Real files that were changed, and file systems in trouble. Each byte of a small store, and with
//! `REFLEX_EVERY_BYTE=1` each byte of its free space.

use super::*;
use crate::store::StoreOptions;
use crate::store::faults::SPAWNING;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::sync::PoisonError;

/// A second tenant, all of whose entries are purged.
const PURGED: [u8; 32] = [8; 32];

/// Bytes further than this from anything written are free space, where all bytes are alike.
const NEAR: usize = 16;

/// Of this many bytes of free space, one is tried.
const FREE_STEP: usize = 97;

/// A store of three short segments, of which two are sealed, and with all other kinds of files.
struct Small {
    dir: TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
    /// For each key, the versions that it ever had; a lookup should find the last one.
    versions: Vec<Vec<Option<u64>>>,
}

fn small_options(dir: &Path) -> (CacheOptions, StoreOptions) {
    let options = CacheOptions {
        entry_bytes_max: 4096,
        memory_bytes_max: 1 << 20,
        durability: Durability::Os,
        ..CacheOptions::default()
    };
    let store = StoreOptions {
        dir: dir.join("data"),
        // So that a segment is full after five records.
        entries_max: 40,
        ..StoreOptions::plain(1 << 20, 8 << 10)
    };
    (options, store)
}

fn try_open(dir: &Path) -> Result<Cache, OpenError> {
    let (options, store) = small_options(dir);
    Cache::open_sized(Arc::new(FaultDisk::default()), &options, &store)
}

impl Small {
    fn new() -> Self {
        // In memory if possible: each try opens and syncs everything.
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let dir = dir.unwrap();
        let mut versions = vec![vec![None]; 8];
        {
            let cache = try_open(dir.path()).unwrap();
            let mut store = |number: u64, version, length| {
                put(&cache, number, version, length);
                versions[number as usize].push(Some(version));
            };
            store(0, 0, 70);
            store(1, 0, 30);
            store(2, 0, 90);
            store(1, 1, 150);
            store(3, 0, 1);
            store(0, 1, 40);
            store(4, 0, 200);
            store(5, 0, 120);
            assert!(cache.remove(&key(2)));
            let purged = NewEntry {
                key: &key(7),
                tenant: &PURGED,
                metadata: b"7/0",
                payload: &payload(7, 0, 100),
                now_ms: NOW,
                ttl_ms: None,
            };
            cache.insert(purged).unwrap();
            cache.purge_tenant(&PURGED).unwrap();
            store(5, 1, 10);
            // The last one: no record behind it shows its loss.
            store(6, 0, 60);
            cache.sync().unwrap();
        }
        versions[2].push(None);
        let files = snapshot(dir.path()).into_iter();
        let files = files.filter_map(|(path, bytes)| Some((path, bytes?)));
        let small = Self {
            files: files.collect(),
            dir,
            versions,
        };
        let names = |end: &str| {
            let named = small.files.iter().filter(|(path, _)| {
                let name = path.file_name().unwrap().to_string_lossy();
                name.ends_with(end)
            });
            named.count()
        };
        assert!(names(".seg") >= 3 && names(".idx") >= 2, "{:?}", names(""));
        assert_eq!((names("manifest"), names("purge_marks")), (1, 1));
        small
    }

    /// Puts everything back.
    fn restore(&self) {
        for path in snapshot(self.dir.path()).into_iter().map(|(path, _)| path) {
            if path.is_file() && !self.files.iter().any(|(known, _)| *known == path) {
                fs::remove_file(path).unwrap();
            }
        }
        for (path, bytes) in &self.files {
            if fs::read(path).ok().as_ref() != Some(bytes) {
                fs::write(path, bytes).unwrap();
            }
        }
    }

    /// With one file changed: no panic, and no wrong answer. `may_be_older`: the newest version may
    /// be gone without a trace.
    fn check(&self, what: &str, path: &Path, changed: &[u8], may_be_older: bool) {
        fs::write(path, changed).unwrap();
        // A refused folder has lost nothing: the files are as they were.
        if let Ok(cache) = try_open(self.dir.path()) {
            for (number, versions) in self.versions.iter().enumerate() {
                let found = version(&cache, number as u64);
                let is_right = match may_be_older {
                    true => versions.contains(&found),
                    false => found.is_none() || versions.last() == Some(&found),
                };
                assert!(is_right, "{what} of {path:?}: key {number}: {found:?}");
            }
            assert!(matches!(cache.lookup(&key(7), NOW), Lookup::Miss));
            // And it goes on.
            put(&cache, 7, 1, 50);
            assert_eq!(version(&cache, 7), Some(1));
        } else {
            let is_same = fs::read(path).is_ok_and(|bytes| bytes == changed);
            assert!(is_same, "{what} of {path:?}: refused but changed");
        }
        self.restore();
    }

    /// The bytes of a file that are worth trying.
    fn offsets(bytes: &[u8]) -> Vec<usize> {
        let every = env::var_os("REFLEX_EVERY_BYTE").is_some();
        let is_near = |at: usize| {
            let near = at.saturating_sub(NEAR)..bytes.len().min(at + NEAR);
            bytes[near].iter().any(|byte| *byte != 0)
        };
        (0..bytes.len())
            .filter(|at| every || at % FREE_STEP == 0 || is_near(*at))
            .collect()
    }
}

#[test]
fn every_byte_of_a_small_store_flipped() {
    let small = Small::new();
    for (path, bytes) in &small.files {
        for at in Small::offsets(bytes) {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (at % 8);
            small.check(&format!("byte {at} flipped"), path, &changed, false);
        }
    }
}

#[test]
fn every_byte_of_a_small_store_zeroed() {
    let small = Small::new();
    for (path, bytes) in &small.files {
        for at in Small::offsets(bytes) {
            if bytes[at] != 0 {
                let mut changed = bytes.clone();
                changed[at] = 0;
                small.check(&format!("byte {at} zeroed"), path, &changed, false);
            }
        }
    }
}

#[test]
fn every_file_of_a_small_store_cut_short_at_every_byte() {
    let small = Small::new();
    for (path, bytes) in &small.files {
        for at in Small::offsets(bytes) {
            small.check(&format!("all from {at}"), path, &bytes[..at], true);
        }
    }
}

#[test]
fn every_file_of_a_small_store_missing_or_empty() {
    let small = Small::new();
    for (path, _) in &small.files {
        small.check("all", path, b"", true);
        fs::remove_file(path).unwrap();
        if let Ok(cache) = try_open(small.dir.path()) {
            for (number, versions) in small.versions.iter().enumerate() {
                let found = version(&cache, number as u64);
                assert!(versions.contains(&found), "without {path:?}: {number}");
            }
            assert!(matches!(cache.lookup(&key(7), NOW), Lookup::Miss));
        }
        small.restore();
    }
}

/// Reading a mapped record again is a signal then, as in every program that maps files. The first
/// read of a record does not use the mapping.
#[test]
fn a_segment_cut_short_underneath_before_the_first_read_is_a_miss() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..100 {
        put(&cache, number, 0, 4000);
    }
    cache.sync().unwrap();
    drop(cache);
    let cache = props.open();
    for path in props.segments() {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(FIRST_RECORD).unwrap();
    }
    for number in 0..100 {
        assert_eq!(version(&cache, number), None);
    }
    assert_eq!(cache.stats().corrupt, 100);
    for number in 0..1000 {
        put(&cache, number, 1, 4000);
        assert_eq!(version(&cache, number), Some(1));
    }
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 999), Some(1));
}

/// Something mounted, until this is dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None` where that is not allowed, which is a skip.
    fn new(at: &Path, arguments: &[&str]) -> Option<Self> {
        if run(Command::new("mount").args(arguments).arg(at)) {
            return Some(Self(at.to_owned()));
        }
        reflex_skip::skip("a mounted disk", "mounting is not allowed: run as root");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let is_gone = run(Command::new("umount").arg(&self.0))
            || run(Command::new("umount").arg("--lazy").arg(&self.0));
        assert!(is_gone || thread::panicking(), "{:?} stays mounted", self.0);
    }
}

/// Whether it worked.
fn run(command: &mut Command) -> bool {
    let spawned = {
        let _nobody_locks = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::null()).spawn()
    };
    spawned.is_ok_and(|mut child| child.wait().unwrap().success())
}

#[test]
fn a_read_only_file_system_is_refused_in_words_and_is_as_it_was_when_it_is_writable_again() {
    let dir = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::new(dir.path(), &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) else {
        return;
    };
    let cache = try_open(dir.path()).unwrap();
    put(&cache, 1, 0, 100);
    drop(cache);
    let before = snapshot(dir.path());
    let remount = |how: &str| run(Command::new("mount").args(["-o", how]).arg(dir.path()));
    assert!(remount("remount,ro"));
    let error = try_open(dir.path()).unwrap_err();
    let (OpenError::Io { path, .. }, text) = (&error, error.to_string()) else {
        panic!("{error}");
    };
    assert!(
        text.contains("Read-only") && path.starts_with(dir.path()),
        "{text}"
    );
    assert!(remount("remount,rw"));
    assert!(snapshot(dir.path()) == before);
    assert_eq!(version(&try_open(dir.path()).unwrap(), 1), Some(0));
}

/// Loss of power: the file of a file system, copied at some moment, is the disk at that moment.
/// Mounted elsewhere, it is the disk after the power is back.
#[test]
fn what_was_durable_on_a_real_file_system_is_there_after_the_power_was_lost() {
    const ROUNDS: u64 = 6;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let image = fs::File::create(path("image")).unwrap();
    image.set_len(24 << 20).unwrap();
    let mut format = Command::new("mkfs.ext4");
    if !run(format.args(["-q", "-F"]).arg(path("image"))) {
        let how = "get mkfs.ext4 (on Debian: `apt-get install e2fsprogs`)";
        reflex_skip::skip("power loss on ext4", how);
        return;
    }
    for name in ["live", "after"] {
        fs::create_dir(path(name)).unwrap();
    }
    // The journal is written when we ask for it, and not while it is being copied.
    let mount = |image: &str, at: &str| {
        let image = path(image).to_string_lossy().into_owned();
        Mount::new(&path(at), &["-o", "loop,commit=300", &image])
    };
    let Some(_live) = mount("image", "live") else {
        return;
    };
    // Unmounted before the mount, also when something here fails.
    let done = catch_unwind(AssertUnwindSafe(|| {
        let cache = try_open(&path("live")).unwrap();
        let mut random = Random(5);
        // Versions of each key since the last sync, of which the first is durable.
        let mut possible = vec![vec![None]; 12];
        for round in 0..ROUNDS {
            for step in 0..random.below(120) {
                let number = random.below(12);
                if random.below(5) == 0 {
                    cache.remove(&key(number));
                    possible[number as usize].push(None);
                } else {
                    let at = round * 1000 + step;
                    put(&cache, number, at, random.below(3000) as usize);
                    possible[number as usize].push(Some(at));
                }
                if random.below(30) == 0 {
                    cache.sync().unwrap();
                    for known in &mut possible {
                        known.drain(..known.len() - 1);
                    }
                }
            }
            // Of one moment only: nothing may have been written meanwhile.
            loop {
                let before = fs::read(path("image")).unwrap();
                fs::write(path("copy"), &before).unwrap();
                if fs::read(path("image")).unwrap() == before {
                    break;
                }
            }
            let _after = mount("copy", "after").unwrap();
            let recovered = try_open(&path("after")).unwrap();
            for (number, possible) in possible.iter().enumerate() {
                let found = version(&recovered, number as u64);
                // A lost removal is one of these; a removal that tore the entry gives none.
                let is_right = possible.contains(&found) || possible.len() > 1 && found.is_none();
                assert!(
                    is_right,
                    "round {round}, key {number}: {found:?}, {possible:?}"
                );
            }
        }
    }));
    done.unwrap();
}
