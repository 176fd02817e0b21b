//! The contents beside sealed segments: used when they are whole and of this very segment, made
//! anew otherwise.

use super::*;

/// Numbers of entries, enough for three sealed segments and an active one.
const ENTRIES: u64 = 100;

fn filled(props: &Props) {
    let cache = props.open();
    for number in 0..ENTRIES {
        put(&cache, number, 0, 4000);
    }
    // A removal in the second segment of something in the first.
    cache.remove(&key(3));
    put(&cache, 4, 1, 100);
    cache.sync().unwrap();
}

fn files(props: &Props, extension: &str) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| path.extension().is_some_and(|found| found == extension);
    props.folder().into_iter().filter(is_one).collect()
}

#[track_caller]
fn check_all(cache: &Cache) {
    for number in 0..ENTRIES {
        let expected = match number {
            3 => None,
            4 => Some(1),
            _ => Some(0),
        };
        assert_eq!(version(cache, number), expected, "key {number}");
    }
}

#[test]
fn sealed_segments_get_contents_and_are_opened_by_them() {
    let props = Props::new();
    filled(&props);
    assert_eq!(files(&props, "seg").len(), 4);
    assert_eq!(files(&props, "idx").len(), 3);
    // An unreadable block in each segment costs entries in the active one only: the
    // others were not read.
    props.faults.bad_block.store(10, Relaxed);
    let cache = props.open();
    props.faults.bad_block.store(0, Relaxed);
    for number in (0..90).filter(|number| ![3, 4].contains(number)) {
        assert_eq!(version(&cache, number), Some(0), "key {number}");
    }
    assert!(cache.stats().corrupt > 0);
    assert_eq!(cache.stats().segments, 4);
    drop(cache);
    check_all(&props.open());
}

#[test]
fn contents_count_against_the_quota_and_go_with_their_segment() {
    let props = Props::new();
    let cache = props.open();
    for number in 0..3000 {
        put(&cache, number, 0, 100);
        if number % 100 == 0 {
            cache.sync().unwrap();
        }
        let space = |path: PathBuf| fs::metadata(path).unwrap().blocks() * 512;
        let on_disk: u64 = props.folder().into_iter().map(space).sum();
        // Beside it, a file system may need a block to know where those of a file are.
        let own_bytes = 4096 * props.folder().len() as u64;
        assert!(on_disk <= cache.stats().disk_bytes + own_bytes);
        assert!(cache.stats().disk_bytes <= props.options.disk_bytes_max);
    }
    for idx in files(&props, "idx") {
        assert!(idx.with_extension("seg").exists(), "{idx:?}");
    }
    assert_eq!(cache.stats().pinned_bytes, 0);
    cache.purge_all().unwrap();
    assert_eq!(props.folder().len(), 0);
    assert_eq!(cache.stats().disk_bytes, 0);
}

#[test]
fn torn_altered_stale_and_foreign_contents_are_made_anew_and_never_believed() {
    let props = Props::new();
    filled(&props);
    let other = Props::new();
    filled(&other);
    let idx = files(&props, "idx");
    let whole = fs::read(&idx[0]).unwrap();
    let second = fs::read(&idx[1]).unwrap();
    let foreign = fs::read(&files(&other, "idx")[0]).unwrap();
    let mut damaged = vec![whole[..100].to_vec(), second, foreign, vec![b'x'; 9000]];
    for at in (1..whole.len()).step_by(97) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        damaged.push(flipped);
        damaged.push(whole[..at].to_vec());
    }
    for bytes in damaged {
        fs::write(&idx[0], bytes).unwrap();
        let cache = props.open();
        check_all(&cache);
        drop(cache);
        assert_eq!(fs::read(&idx[0]).unwrap(), whole, "not made anew");
    }
}

/// If a segment were written to again behind its contents, the records there, removals included,
/// would be lost at the start after the next.
#[test]
fn a_segment_with_contents_is_not_written_to_any_more() {
    let props = Props::new();
    filled(&props);
    let (segments, idx) = (files(&props, "seg"), files(&props, "idx"));
    for path in &segments[1..] {
        fs::remove_file(path).unwrap();
    }
    fs::write(&idx[0], "unreadable just now").unwrap();
    let before = fs::read(&segments[0]).unwrap();
    let cache = props.open();
    put(&cache, 1, 7, 10);
    cache.remove(&key(2));
    assert_eq!(fs::read(&segments[0]).unwrap(), before);
    // Contents of removed segments are useless.
    assert_eq!(files(&props, "idx").len(), 1);
    drop(cache);
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(7));
    assert_eq!(version(&cache, 2), None);
}

/// Contents of a segment that had the same number before it was reclaimed.
#[test]
fn contents_of_an_earlier_life_are_not_believed() {
    let props = Props::new();
    filled(&props);
    let idx = files(&props, "idx")[0].clone();
    let earlier = fs::read(&idx).unwrap();
    for path in props.folder() {
        fs::remove_file(path).unwrap();
    }
    let cache = props.open();
    for number in 0..ENTRIES {
        put(&cache, number + 1, 5, 4000);
    }
    drop(cache);
    fs::write(&idx, &earlier).unwrap();
    let cache = props.open();
    for number in 0..ENTRIES {
        assert_eq!(version(&cache, number + 1), Some(5), "key {number}");
    }
}

/// Files that were never finished, or were too many, used to be removed from a folder that was
/// then refused for another of its files.
#[test]
fn a_folder_that_is_refused_is_left_as_it_was() {
    let mut props = Props::new();
    filled(&props);
    let last = files(&props, "seg").pop().unwrap();
    let bytes = fs::read(&last).unwrap();
    let newer = [&sealed_again(&bytes[..4096], 8), &bytes[4096..]].concat();
    fs::write(&last, newer).unwrap();
    fs::write(last.with_extension("seg.tmp"), "half").unwrap();
    props.options.disk_bytes_max /= 2;
    let before = snapshot(props.dir.path());
    let error = props.try_open().unwrap_err().to_string();
    assert!(error.contains("later release"), "{error}");
    assert_eq!(snapshot(props.dir.path()), before);
}
