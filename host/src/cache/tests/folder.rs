//! Which data folders are opened, and that refused ones stay as they are.

use super::*;

#[test]
fn a_folder_in_use_or_not_ours_is_refused_in_one_line_and_left_alone() {
    #[track_caller]
    fn check(props: &Props, expected: &str) {
        let before = snapshot(props.dir.path());
        let error = props.try_open().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let path = props.data_dir().display().to_string();
        assert!(error.contains(&path), "{error}");
        assert!(!error.contains('\n'), "{error}");
        assert_eq!(snapshot(props.dir.path()), before);
    }

    let props = Props::new();
    let cache = props.open();
    check(&props, "in use by another process");
    put(&cache, 1, 0, 10);
    drop(cache);
    assert_eq!(version(&props.open(), 1), Some(0));

    let manifest = props.data_dir().join("manifest");
    let ours = fs::read(&manifest).unwrap();
    let newer = sealed_again(&ours, 8);
    let older = sealed_as(&ours, 8, 1);
    let feature = sealed_as(&ours, 12, 16);
    let mut flipped = ours.clone();
    flipped[20] ^= 1;
    for (bytes, expected) in [
        (&newer[..], "later release (format 4"),
        (&older, "earlier release (format 1"),
        (&older, &format!("rm -r {}", props.data_dir().display())),
        (&feature[..], "later release"),
        (&flipped[..], "damaged (its checksum differs)"),
        (&ours[..100], "damaged (cut short)"),
        (b"", "damaged (cut short)"),
        (&[b'x'; 5000], "another program's"),
    ] {
        fs::write(&manifest, bytes).unwrap();
        check(&props, expected);
    }
    // The manifest lost, the segments there.
    fs::remove_file(&manifest).unwrap();
    check(&props, "files in it but no manifest");
    fs::write(&manifest, &ours).unwrap();
    assert_eq!(version(&props.open(), 1), Some(0));

    let segment = props.segments().remove(0);
    let bytes = fs::read(&segment).unwrap();
    for (version, expected) in [(4, "later release (format 4"), (1, "earlier release")] {
        let other = [&sealed_as(&bytes[..4096], 8, version), &bytes[4096..]].concat();
        fs::write(&segment, other).unwrap();
        check(&props, expected);
        let report = StoreReport::of(props.data_dir()).unwrap_err().to_string();
        assert!(report.contains(expected), "{report}");
    }

    let props = Props::new();
    fs::create_dir(props.data_dir()).unwrap();
    fs::write(props.data_dir().join("thesis.txt"), "irreplaceable").unwrap();
    check(&props, "files in it but no manifest");

    let props = Props::new();
    fs::write(props.data_dir(), "a file").unwrap();
    check(&props, "cannot make data folder");
}

#[test]
fn what_a_crash_leaves_while_making_things_is_cleared_away() {
    let props = Props::new();
    fs::create_dir_all(props.data_dir().join("segments")).unwrap();
    fs::create_dir_all(props.data_dir().join("lost+found")).unwrap();
    fs::write(props.data_dir().join("manifest.tmp"), "half").unwrap();
    fs::write(props.data_dir().join("lock"), "").unwrap();
    let cache = props.open();
    put(&cache, 1, 0, 10);
    drop(cache);

    let segments = props.data_dir().join("segments");
    fs::write(segments.join("00000000000000ff.seg.tmp"), "half").unwrap();
    for name in [
        "notes.txt",
        "1.seg",
        "000000000000000G.seg",
        "0000000000000001.idx",
    ] {
        fs::write(segments.join(name), "stays").unwrap();
    }
    let cache = props.open();
    assert_eq!(version(&cache, 1), Some(0));
    assert!(!segments.join("00000000000000ff.seg.tmp").exists());
    assert!(segments.join("notes.txt").exists());
    assert_eq!(cache.stats().segments, 1);
}
