//! A data folder that is encrypted: what its files show, which keys open it, and what is forgotten.

use super::*;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool as Flag;

const OTHER: [u8; 32] = [8; 32];
const SECRET_METADATA: &[u8] = b"what comes with it";
const SECRET_PAYLOAD: &[u8] = b"an answer that only one may know";

/// Keys by their numbers; the first one encrypts.
pub(super) fn keys(numbers: &[u8]) -> EncryptionKeys {
    let line = |it: &u8| format!("k{it} {}\n", format!("{it:02x}").repeat(32));
    let lines: String = numbers.iter().map(line).collect();
    EncryptionKeys::parse(&lines).unwrap()
}

fn encrypted() -> Props {
    let mut props = Props::new();
    props.options.encryption_keys = Some(keys(&[1]));
    props
}

fn own_key(tenant: &[u8; 32], number: u64) -> CacheKey {
    CacheKey::new(
        "own",
        tenant,
        blake3::hash(&number.to_le_bytes()).as_bytes(),
    )
}

/// An entry with a secret in it.
fn put_secret(cache: &Cache, tenant: &[u8; 32], number: u64) {
    let payload = [&[0; 1000][..], SECRET_PAYLOAD].concat();
    cache
        .insert(NewEntry {
            key: &own_key(tenant, number),
            tenant,
            metadata: SECRET_METADATA,
            payload: &payload,
            now_ms: NOW,
            ttl_ms: None,
        })
        .unwrap();
}

fn has_secret(cache: &Cache, tenant: &[u8; 32], number: u64) -> bool {
    let Lookup::Hit(entry) = cache.lookup(&own_key(tenant, number), NOW) else {
        return false;
    };
    assert_eq!(entry.metadata(), SECRET_METADATA);
    assert_eq!(&entry.payload()[1000..], SECRET_PAYLOAD);
    assert_eq!(entry.tenant(), *tenant);
    true
}

fn is_anywhere(dir: &Path, what: &[u8]) -> bool {
    let mut files = snapshot(dir).into_iter().filter_map(|(_, bytes)| bytes);
    files.any(|bytes| bytes.windows(what.len()).any(|window| window == what))
}

/// The error of an open that has changed nothing.
#[track_caller]
fn refusal(props: &Props) -> String {
    let before = snapshot(props.dir.path());
    let error = props.try_open().unwrap_err();
    assert!(matches!(error, OpenError::Key(..)) && !error.is_of_the_disk());
    assert_eq!(snapshot(props.dir.path()), before);
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

/// The segment files, with the id of each one's key.
fn used_keys(props: &Props) -> Vec<Option<String>> {
    let report = StoreReport::of(props.data_dir()).unwrap();
    report.segments.into_iter().map(|it| it.key).collect()
}

#[test]
fn no_file_shows_what_is_stored_and_everything_is_found_again() {
    let mut props = encrypted();
    props.options.disk_bytes_max = 4 << 20;
    let cache = props.open();
    for number in 0..100 {
        put_secret(&cache, &TENANT, number);
        put(&cache, number, 0, 3000);
    }
    for number in 0..50 {
        cache.remove(&key(number));
    }
    let check = |cache: &Cache| {
        assert!((0..100).all(|number| has_secret(cache, &TENANT, number)));
        assert!((0..100).all(|it| version(cache, it) == Some(0).filter(|_| it >= 50)));
        cache.sync().unwrap();
        for what in [SECRET_METADATA, SECRET_PAYLOAD, &payload(70, 0, 64)] {
            assert!(!is_anywhere(props.dir.path(), what));
        }
    };
    check(&cache);
    cache.compact(NOW).unwrap();
    check(&cache);
    let heads = std::cell::Cell::new(0);
    cache.for_each_head(|head| {
        let is_ours = head.metadata == SECRET_METADATA || head.metadata.ends_with(b"/0");
        assert!(is_ours && head.tenant == TENANT);
        heads.set(heads.get() + 1);
        ControlFlow::Continue(())
    });
    assert_eq!(heads.get(), 150);
    assert_eq!(cache.stats().corrupt, 0);
    drop(cache);
    let report = StoreReport::of_encrypted(props.data_dir(), &keys(&[1])).unwrap();
    assert_eq!((report.findings, report.entries), (Vec::new(), 150));
    let cache = props.open();
    check(&cache);
    let purged = cache.purge_where(|head| head.metadata == SECRET_METADATA);
    assert_eq!(purged.unwrap().entries, 100);
    assert!((0..100).all(|number| !has_secret(&cache, &TENANT, number)));
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn a_flipped_byte_anywhere_is_the_right_answer_or_a_miss() {
    let props = encrypted();
    let cache = props.open();
    for number in 0..4 {
        put(&cache, number, 0, 10 * number as usize);
    }
    put(&cache, 1, 1, 50);
    // The record behind it tells of its loss.
    put(&cache, 4, 0, 33);
    drop(cache);
    let end = FIRST_RECORD + 6 * 256;
    let superblock = (0..FIRST_RECORD).step_by(61);
    for at in superblock.chain(FIRST_RECORD..end) {
        let with = 1 << (at % 8);
        props.flip(at, with);
        let cache = props.open();
        for number in 0..4 {
            let expected = Some(u64::from(number == 1));
            let found = version(&cache, number);
            assert!(found.is_none() || found == expected, "byte {at}");
            // Records name their key themselves.
            assert!(found.is_some() || at >= FIRST_RECORD, "byte {at}");
        }
        drop(cache);
        props.flip(at, with);
    }
}

#[test]
fn a_wrong_or_a_missing_key_is_refused_in_one_line_and_nothing_is_touched() {
    let mut props = encrypted();
    let cache = props.open();
    put(&cache, 1, 1, 100);
    drop(cache);
    props.options.encryption_keys = None;
    assert!(refusal(&props).contains("no key is given"));
    props.options.encryption_keys = Some(keys(&[2]));
    let why = refusal(&props);
    let id = used_keys(&props)[0].clone().unwrap();
    assert!(why.contains(&id), "{why}");
    assert!(StoreReport::of_encrypted(props.data_dir(), &keys(&[2])).is_err());
    props.options.encryption_keys = Some(keys(&[2, 1]));
    assert_eq!(version(&props.open(), 1), Some(1));
}

#[test]
fn a_folder_that_is_not_encrypted_is_refused_until_an_operator_converts_it() {
    let mut later = Props::new();
    drop(later.open());
    // Without an entry, there is nothing to convert.
    later.options.encryption_keys = Some(keys(&[1]));
    put(&later.open(), 1, 1, 100);
    later.options.encryption_keys = None;
    assert!(refusal(&later).contains("is encrypted"));

    let mut props = Props::new();
    let cache = props.open();
    for number in 0..100 {
        put_secret(&cache, &TENANT, number);
        put(&cache, number, 0, 2000);
    }
    drop(cache);
    props.options.encryption_keys = Some(keys(&[1]));
    assert!(refusal(&props).contains("store compact"));

    // A conversion that was begun has to be ended.
    props.options.encryption_keys = Some(keys(&[1]).converting());
    let cache = props.open();
    assert!(cache.is_converting());
    put_secret(&cache, &TENANT, 100);
    assert!((0..101).all(|number| has_secret(&cache, &TENANT, number)));
    drop(cache);
    props.options.encryption_keys = Some(keys(&[1]));
    assert!(refusal(&props).contains("in part"));
    props.options.encryption_keys = None;
    assert!(refusal(&props).contains("no key is given"));

    props.options.encryption_keys = Some(keys(&[1]).converting());
    let cache = props.open();
    cache.compact(NOW).unwrap();
    assert!(!cache.is_converting());
    drop(cache);
    assert!(!is_anywhere(props.dir.path(), SECRET_PAYLOAD));
    assert!(!is_anywhere(props.dir.path(), SECRET_METADATA));
    props.options.encryption_keys = Some(keys(&[1]));
    let cache = props.open();
    assert!((0..101).all(|number| has_secret(&cache, &TENANT, number)));
    assert!((0..100).all(|number| version(&cache, number) == Some(0)));
    assert_eq!(cache.stats().corrupt, 0);
}

/// Its checksums are right, as those of another program that can write to the folder.
#[test]
fn a_record_that_is_not_sealed_is_never_served_from_an_encrypted_folder() {
    let mut plain = Props::new();
    put(&plain.open(), 1, 1, 100);
    let first = plain.segments().remove(0);
    let theirs = fs::read(&first).unwrap();
    plain.options.encryption_keys = Some(keys(&[1]).converting());
    let cache = plain.open();
    cache.compact(NOW).unwrap();
    drop(cache);
    plain.options.encryption_keys = Some(keys(&[1]));
    let cache = plain.open();
    assert_eq!(version(&cache, 1), Some(1));
    cache.remove(&key(1));
    drop(cache);
    for path in plain.folder() {
        fs::remove_file(path).unwrap();
    }
    // The segment comes back as it was in this very store.
    fs::write(&first, &theirs).unwrap();
    // Nor by a compaction, which is what converts a folder.
    for keys in [keys(&[1]), keys(&[1]).converting()] {
        plain.options.encryption_keys = Some(keys);
        let cache = plain.open();
        assert_eq!(cache.stats().entries, 1);
        cache.compact(NOW).unwrap();
        assert_eq!(version(&cache, 1), None);
        drop(cache);
        for path in plain.folder() {
            fs::remove_file(path).unwrap();
        }
        fs::write(&first, &theirs).unwrap();
    }
}

#[test]
fn keys_are_rotated_under_load_and_old_ones_are_needed_until_nothing_is_under_them() {
    let mut props = encrypted();
    props.options.disk_bytes_max = 64 << 20;
    let mut cache = props.open();
    cache.start_flusher().unwrap();
    cache.start_writer().unwrap();
    for number in 0..200 {
        put(&cache, number, 0, 2000);
    }
    cache.sync().unwrap();
    let is_over = Flag::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                for number in 0..200 {
                    // A lookup that meets the end of a segment is a miss.
                    let found = version(&cache, number);
                    assert!(matches!(found, None | Some(0)), "key {number}: {found:?}");
                }
            }
        });
        scope.spawn(|| {
            for number in (1000..3000).take_while(|_| !is_over.load(Relaxed)) {
                put(&cache, 1000 + number % 50, number, 2000);
            }
        });
        for (first, second) in [(2, 1), (3, 2), (4, 3)] {
            let rotated = keys(&[first, second]);
            cache.set_encryption_keys(&rotated).unwrap();
            let error = cache.set_encryption_keys(&keys(&[first])).unwrap_err();
            assert!(error.contains("still encrypted"), "{error}");
            assert!(cache.stats().segments_of_old_keys > 0);
            assert_eq!(cache.reencrypt(NOW).unwrap(), 0);
            assert_eq!(cache.stats().segments_of_old_keys, 0);
            cache.set_encryption_keys(&keys(&[first])).unwrap();
        }
        is_over.store(true, Relaxed);
    });
    assert_eq!((cache.stats().corrupt, cache.stats().store_errors), (0, 0));
    drop(cache);
    props.options.encryption_keys = Some(keys(&[3]));
    refusal(&props);
    props.options.encryption_keys = Some(keys(&[4]));
    let cache = props.open();
    assert!((0..200).all(|number| version(&cache, number) == Some(0)));
    assert_eq!(cache.stats().corrupt, 0);
}

#[test]
fn a_rotation_at_a_restart_begins_new_segments_and_keeps_what_is_there() {
    let mut props = encrypted();
    put(&props.open(), 1, 1, 100);
    props.options.encryption_keys = Some(keys(&[2, 1]));
    let cache = props.open();
    put(&cache, 2, 2, 100);
    assert_eq!(cache.stats().segments_of_old_keys, 1);
    drop(cache);
    let used = used_keys(&props);
    assert!(used.len() == 2 && used[0] != used[1] && used.iter().all(Option::is_some));
    let cache = props.open();
    assert_eq!((version(&cache, 1), version(&cache, 2)), (Some(1), Some(2)));
}

#[test]
fn an_erased_tenant_is_unreadable_at_once_even_with_the_key_and_without_the_purge() {
    let props = encrypted();
    let cache = props.open();
    for number in 0..40 {
        put_secret(&cache, &OTHER, number);
        put_secret(&cache, &TENANT, number);
    }
    cache.sync().unwrap();
    let secrets = props.data_dir().join("tenant_secrets");
    let manifest = props.data_dir().join("manifest");
    let slots = fs::read(&secrets).unwrap();
    let at = slots.windows(32).position(|it| it == OTHER).unwrap();
    let secret = &slots[at + 32..at + 64];
    assert!(is_anywhere(props.dir.path(), secret));
    let unpurged = fs::read(&manifest).unwrap();

    cache.erase_tenant(&OTHER, NOW).unwrap();
    assert_eq!(cache.stats().moved_bytes, 0, "nothing was written again");
    assert!(!is_anywhere(props.dir.path(), secret));
    assert!((0..40).all(|it| !has_secret(&cache, &OTHER, it) && has_secret(&cache, &TENANT, it)));
    put_secret(&cache, &OTHER, 50);
    assert!(has_secret(&cache, &OTHER, 50));
    drop(cache);

    // An attacker with the key and the disk takes the purge back. The records are there.
    fs::write(&manifest, unpurged).unwrap();
    fs::remove_file(props.data_dir().join("purge_marks")).unwrap();
    let cache = props.open();
    assert_eq!(cache.stats().entries, 81);
    assert!((0..40).all(|it| !has_secret(&cache, &OTHER, it) && has_secret(&cache, &TENANT, it)));
    assert!(has_secret(&cache, &OTHER, 50));
    // What is left of the tenant goes with a compaction.
    cache.erase_tenant(&OTHER, NOW).unwrap();
    cache.compact(NOW).unwrap();
    assert!(!is_anywhere(props.dir.path(), &OTHER));
}

#[test]
fn an_erasure_that_the_disk_refuses_is_told_and_made_up_for() {
    let props = encrypted();
    let cache = props.open();
    put_secret(&cache, &OTHER, 1);
    cache.sync().unwrap();
    let slots = fs::read(props.data_dir().join("tenant_secrets")).unwrap();
    let at = slots.windows(32).position(|it| it == OTHER).unwrap();
    let secret = slots[at + 32..at + 64].to_vec();
    props.faults.fails_syncs.store(true, Relaxed);
    assert!(cache.erase_tenant(&OTHER, NOW).is_err());
    assert!(!has_secret(&cache, &OTHER, 1));
    props.faults.fails_syncs.store(false, Relaxed);
    let _ = cache.sync();
    assert!(!is_anywhere(props.dir.path(), &secret));
}

#[test]
fn a_purge_of_everything_forgets_all_secrets() {
    let props = encrypted();
    let cache = props.open();
    put_secret(&cache, &OTHER, 1);
    put_secret(&cache, &TENANT, 1);
    cache.purge_all().unwrap();
    let slots = fs::read(props.data_dir().join("tenant_secrets")).unwrap();
    assert!(slots[4096..].iter().all(|byte| *byte == 0));
    put_secret(&cache, &TENANT, 2);
    drop(cache);
    assert!(has_secret(&props.open(), &TENANT, 2));
}

#[test]
fn tenants_past_the_bound_share_a_secret_and_are_erased_all_the_same() {
    let props = encrypted();
    let cache = props.open();
    cache.set_secrets_max(2);
    let tenant = |number: u8| [number; 32];
    for number in 1..5 {
        put_secret(&cache, &tenant(number), 1);
    }
    drop(cache);
    let secrets = props.data_dir().join("tenant_secrets");
    let has_slot = |number| {
        let slots = fs::read(&secrets).unwrap();
        slots.windows(32).any(|it| it == tenant(number))
    };
    assert_eq!([1, 2, 3, 4].map(has_slot), [true, true, false, false]);
    let cache = props.open();
    cache.set_secrets_max(2);
    assert!((1..5).all(|number| has_secret(&cache, &tenant(number), 1)));
    // Its records are written out of the files, as without encryption.
    cache.erase_tenant(&tenant(4), NOW).unwrap();
    assert!(!is_anywhere(&props.data_dir().join("segments"), &tenant(4)));
    assert!((1..4).all(|number| has_secret(&cache, &tenant(number), 1)));
    // A place that became free goes to the next tenant that is written, or written again.
    cache.erase_tenant(&tenant(1), NOW).unwrap();
    assert_eq!([1, 2, 3].map(has_slot), [false, true, true]);
    // And so is that of a tenant without an answer, once a segment has gone.
    cache.purge_tenant(&tenant(2)).unwrap();
    cache.compact(NOW).unwrap();
    put_secret(&cache, &tenant(6), 1);
    assert_eq!([2, 6].map(has_slot), [false, true]);
    assert!(
        [3, 6]
            .map(tenant)
            .iter()
            .all(|it| has_secret(&cache, it, 1))
    );
    assert_eq!(cache.stats().corrupt, 0);
}

/// Each record that was ever written, again and again, by its salt.
#[test]
fn no_salt_is_ever_used_twice() {
    const RECORD_BYTES: usize = 112 + 64 + 3 + 93;
    let props = encrypted();
    let mut salts = HashSet::new();
    let mut places = HashSet::new();
    for round in 0..4 {
        let cache = props.open();
        for number in 0..50 {
            put(
                &cache,
                number,
                round % 2,
                if number < 10 { 93 } else { 700 },
            );
        }
        let mut note = |cache: &Cache| {
            cache.sync().unwrap();
            for path in props.segments() {
                let bytes = fs::read(&path).unwrap();
                let records = (4096..bytes.len() - RECORD_BYTES).step_by(16);
                for at in records.filter(|at| bytes[*at..].starts_with(b"RFXR")) {
                    if bytes[at + 5] != 0 && places.insert((path.clone(), at)) {
                        assert_eq!(bytes[at + 5], 2, "sealed, with its tenant's secret");
                        let salt = bytes[at + 120..at + 144].to_vec();
                        assert!(salts.insert(salt), "a salt twice");
                    }
                }
            }
        };
        note(&cache);
        cache.compact(NOW).unwrap();
        note(&cache);
    }
    assert!(salts.len() >= 4 * 50 + 50, "{}", salts.len());
}

#[test]
fn lost_secrets_cost_what_they_opened_and_nothing_else() {
    let props = encrypted();
    let cache = props.open();
    put_secret(&cache, &TENANT, 1);
    put_secret(&cache, &OTHER, 1);
    cache.purge_tenant(&[9; 32]).unwrap();
    drop(cache);
    let secrets = props.data_dir().join("tenant_secrets");
    let whole = fs::read(&secrets).unwrap();
    let at = whole.windows(32).position(|it| it == TENANT).unwrap();
    let mut damaged = whole.clone();
    damaged[at + 40] ^= 1;
    fs::write(&secrets, damaged).unwrap();
    let cache = props.open();
    assert!(!has_secret(&cache, &TENANT, 1) && has_secret(&cache, &OTHER, 1));
    put_secret(&cache, &TENANT, 2);
    drop(cache);
    let cache = props.open();
    assert!(has_secret(&cache, &TENANT, 2) && has_secret(&cache, &OTHER, 1));
    drop(cache);

    for lost in [None, Some(&whole[..100])] {
        match lost {
            None => fs::remove_file(&secrets).unwrap(),
            Some(bytes) => fs::write(&secrets, bytes).unwrap(),
        }
        let cache = props.open();
        assert_eq!((cache.stats().entries, cache.stats().corrupt), (0, 1));
        put_secret(&cache, &TENANT, 1);
        put_secret(&cache, &OTHER, 1);
        drop(cache);
        let cache = props.open();
        assert!(has_secret(&cache, &TENANT, 1) && has_secret(&cache, &OTHER, 1));
    }
}

#[cfg(not(shuttle))]
#[test]
fn long_entries_are_opened_on_a_thread_that_may_wait() {
    let mut props = encrypted();
    props.options.disk_bytes_max = 16 << 20;
    props.options.entry_bytes_max = 1 << 20;
    let cache = props.open();
    put(&cache, 1, 1, 300 << 10);
    put(&cache, 2, 2, 30 << 10);
    assert_eq!(version(&cache, 1), Some(1));
    assert!(cache.lookup_now(&key(1), NOW).is_none());
    assert!(cache.may_contain(&key(1), NOW));
    let now = cache.lookup_now(&key(2), NOW).and_then(Lookup::hit);
    assert_eq!(check(&now.unwrap(), 2), 2);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let found = runtime.unwrap().block_on(cache.lookup_async(&key(1), NOW));
    let entry = found.hit().unwrap();
    assert_eq!((check(&entry, 1), entry.tier()), (1, Tier::Disk));
}

#[test]
fn a_check_with_the_key_finds_what_cannot_be_opened() {
    let props = encrypted();
    let cache = props.open();
    put_secret(&cache, &TENANT, 1);
    put_secret(&cache, &OTHER, 1);
    drop(cache);
    let secrets = props.data_dir().join("tenant_secrets");
    let mut slots = fs::read(&secrets).unwrap();
    let at = slots.windows(32).position(|it| it == OTHER).unwrap();
    slots[at..at + 128].fill(0);
    fs::write(&secrets, slots).unwrap();
    let findings = |keys: Option<&EncryptionKeys>| match keys {
        Some(keys) => StoreReport::of_encrypted(props.data_dir(), keys),
        None => StoreReport::of(props.data_dir()),
    };
    assert!(findings(None).unwrap().findings.is_empty());
    let found = findings(Some(&keys(&[1]))).unwrap();
    assert_eq!((found.findings.len(), found.entries), (1, 1));
    assert!(found.findings[0].contains("secret of its tenant"));
}
