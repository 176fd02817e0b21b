//! Real processes on real files: killed at any moment, two on one folder, against the limits of
//! the system. The children are this test binary, told by the environment what to do.

use super::*;
use crate::clock::Clock;
use crate::store::faults::SPAWNING;
use std::env;
use std::io::{BufRead, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;

const ROLE: &str = "REFLEX_TEST_CHILD";
const DIR: &str = "REFLEX_TEST_DIR";
/// Or as many as `REFLEX_KILLS` says.
const KILLS: u64 = 20;
const KEYS: u64 = 50;

/// Large enough that nothing has to make room.
const DISK_BYTES: u64 = 512 << 20;

fn options(dir: &Path) -> CacheOptions {
    CacheOptions {
        data_dir: dir.join("data"),
        disk_bytes_max: DISK_BYTES,
        memory_bytes_max: 8 << 20,
        entry_bytes_max: 64 << 10,
        segment_bytes: 1 << 20,
        durability: Durability::EveryInsert,
        ..CacheOptions::default()
    }
}

fn open(dir: &Path) -> Cache {
    Cache::open_on(Arc::new(FaultDisk::default()), &options(dir)).unwrap()
}

/// Whether it worked.
fn run(command: &mut Command) -> bool {
    let spawned = {
        let _nobody_locks = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
        command.stderr(Stdio::null()).spawn()
    };
    spawned.is_ok_and(|mut child| child.wait().unwrap().success())
}

/// Another process of this very binary, doing what `role` says, below a shell that first does
/// what `before` says.
fn child(role: &str, dir: &Path, before: &str) -> Child {
    let _nobody_locks = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
    Command::new("sh")
        .arg("-c")
        .arg(format!("{before} exec \"$@\""))
        .arg("sh")
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "cache::tests::process::child_process",
            "--nocapture",
        ])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The lines of a child, without those of the test harness.
fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let stdout = child.stdout.take().unwrap();
    let lines = BufReader::new(stdout).lines().map_while(Result::ok);
    // The harness does not end its line before a test prints.
    lines.filter_map(|line| Some(line.split_once('>')?.1.to_owned()))
}

#[test]
fn child_process() {
    let Some(role) = env::var_os(ROLE) else {
        return;
    };
    let dir = env::var_os(DIR).unwrap();
    let cache = Cache::open(&options(Path::new(&dir)));
    match role.to_str().unwrap() {
        "write" => {
            let cache = cache.unwrap();
            let mut random = Random(u64::from(std::process::id()));
            loop {
                let number = random.below(KEYS);
                let version = version(&cache, number).map_or(0, |version| version + 1);
                println!(">{number}");
                put(&cache, number, version, random.below(60_000) as usize);
                println!(">{number} {version}");
            }
        }
        "open" => println!(">{}", cache.unwrap_err()),
        "fill" => {
            let cache = cache.unwrap();
            for number in 0..200 {
                put(&cache, number, 0, 20_000);
                assert_eq!(version(&cache, number), Some(0));
            }
            let _ = cache.sync();
            println!(">{:?}", cache.stats().trouble);
        }
        role => panic!("{role}"),
    }
}

#[test]
fn whatever_was_called_durable_before_the_process_was_killed_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(1);
    let mut known: HashMap<u64, u64> = HashMap::new();
    let kills = env::var("REFLEX_KILLS").ok();
    let kills = kills.and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    for round in 0..kills {
        let mut writer = child("write", dir.path(), "");
        let mut lines = lines(&mut writer);
        let mut being_written = None;
        let mut note = |line: String| match line.split_once(' ') {
            Some((number, version)) => {
                known.insert(number.parse().unwrap(), version.parse().unwrap());
                being_written = None;
            }
            None => being_written = Some(line.parse().unwrap()),
        };
        for _ in 0..random.below(300) {
            note(lines.next().unwrap());
        }
        writer.kill().unwrap();
        // The lines from before it died.
        lines.for_each(note);
        writer.wait().unwrap();

        let cache = open(dir.path());
        for number in 0..KEYS {
            let found = version(&cache, number);
            let expected = known.get(&number).copied();
            // Its last insert may be there, or may have torn the older version.
            let next = expected.map_or(0, |version| version + 1);
            let was_at_it = being_written == Some(number);
            assert!(
                found == expected || was_at_it && found.is_none_or(|found| found == next),
                "round {round}, key {number}: {found:?}, not {expected:?}"
            );
            if found.is_none() {
                known.remove(&number);
            }
            known.extend(found.map(|found| (number, found)));
        }
    }
}

#[test]
fn a_second_process_is_refused_for_as_long_as_the_first_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = child("write", dir.path(), "");
    let mut first_lines = lines(&mut first);
    first_lines.next().unwrap();
    let mut second = child("open", dir.path(), "");
    let said: Vec<_> = lines(&mut second).collect();
    assert!(
        said[0].ends_with("is in use by another process"),
        "{said:?}"
    );
    assert!(second.wait().unwrap().success());
    first.kill().unwrap();
    first.wait().unwrap();
    open(dir.path());
}

/// The shell here ignores the signal that comes with the limit; the daemon does so itself.
#[test]
fn a_limit_on_the_size_of_files_means_memory() {
    let dir = tempfile::tempdir().unwrap();
    // In units of 512 bytes, or of 1024: less than a segment.
    let mut child = child("fill", dir.path(), "trap '' XFSZ; ulimit -f 500;");
    let said: Vec<_> = lines(&mut child).collect();
    assert!(child.wait().unwrap().success(), "{said:?}");
    assert!(said[0].contains("cannot make"), "{said:?}");
}

#[test]
fn a_full_file_system_means_memory_and_what_was_stored_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]);
    if !run(mount.arg(dir.path())) {
        reflex_skip::skip("a full file system", "mounting is not allowed: run as root");
        return;
    }
    let filled = catch_unwind(AssertUnwindSafe(|| {
        let cache = open(dir.path());
        for number in 0..300 {
            put(&cache, number, 0, 20_000);
            assert_eq!(version(&cache, number), Some(0));
        }
        let stats = cache.stats();
        assert!(stats.segments >= 2 && !stats.healthy, "{stats:?}");
        assert_eq!(version(&cache, 0), Some(0));
        drop(cache);
        let cache = open(dir.path());
        assert_eq!(version(&cache, 0), Some(0));
        put(&cache, 1, 1, 20_000);
        assert_eq!(version(&cache, 1), Some(1));
    }));
    assert!(run(Command::new("umount").arg(dir.path())));
    filled.unwrap();
}

#[test]
fn a_read_only_or_full_file_system_means_memory_until_it_is_neither() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let check = |mount: &[&str], remount: &str| {
        if !run(Command::new("mount").args(mount).arg(dir.path())) {
            reflex_skip::skip("a mounted disk", "mounting is not allowed: run as root");
            return;
        }
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let cache = Cache::open_even_without_disk(&options).unwrap();
            // A full disk shows only with a write.
            put(&cache, 1, 0, 10);
            let _ = cache.sync();
            assert_eq!(version(&cache, 1), Some(0));
            let stats = cache.stats();
            assert!(!stats.healthy && stats.trouble.is_some(), "{stats:?}");

            let remount = format!("remount,{remount}");
            assert!(run(Command::new("mount")
                .args(["-o", &remount])
                .arg(dir.path())));
            // Or with the next insert, or when the flusher looks.
            while !cache.stats().healthy {
                cache.shared.bell.ring();
                let new = NewEntry {
                    key: &key(2),
                    tenant: &TENANT,
                    metadata: b"2/0",
                    payload: &payload(2, 0, 10),
                    now_ms: Clock::system().now_ms(),
                    ttl_ms: None,
                };
                cache.insert(new).unwrap();
            }
            put(&cache, 3, 0, 10);
            drop(cache);
            assert_eq!(version(&Cache::open(&options).unwrap(), 3), Some(0));
        }));
        assert!(run(Command::new("umount").arg(dir.path())));
        opened.unwrap();
    };
    check(&["-t", "tmpfs", "-o", "ro", "tmpfs"], "rw");
    check(&["-t", "tmpfs", "-o", "size=4k", "tmpfs"], "size=64m");
}

#[test]
fn files_that_are_removed_underneath_do_no_harm() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..100 {
        put(&cache, number, 0, 4000);
    }
    for path in props.folder() {
        fs::remove_file(path).unwrap();
    }
    for number in 0..100 {
        assert_eq!(version(&cache, number), Some(0));
    }
    for number in 100..1000 {
        put(&cache, number, 0, 4000);
        assert_eq!(version(&cache, number), Some(0));
    }
    assert!(cache.sync().is_ok());
    assert!(cache.stats().healthy);
}
