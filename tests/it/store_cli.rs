//! `reflex-edge store`: an operator's work on the data folder of a daemon that has ended.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan, run};
use reflex_tests::upstream::Upstream;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

const HIT: &str = "HIT_L1_EXACT";
const PROMPTS: [&str; 3] = ["one?", "two?", "three?"];

/// Has answers stored in a folder, and ends.
async fn filled(upstream: &Upstream) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = start(upstream, folder.path()).await;
    for prompt in PROMPTS {
        assert_eq!(edge.client.fetch(Ask::chat(prompt)).await.reflex(), "MISS");
    }
    edge.recorded(3, 0).await;
    end(edge).await;
    folder
}

async fn start(upstream: &Upstream, dir: &Path) -> Edge {
    let config = "stale_if_error_seconds_max = 3600";
    let plan = Plan::new(&upstream.url()).data_dir(dir).config(config);
    plan.start().await
}

async fn end(mut edge: Edge) {
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
}

/// The exit code, and the output.
async fn store(command: &str, dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    let dir = dir.to_str().expect("text");
    let output = run(&[&["store", command, dir], more].concat()).await;
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

async fn hits(edge: &Edge) -> usize {
    let mut hits = 0;
    for prompt in PROMPTS {
        let ask = Ask::chat(prompt).header("cache-control", "only-if-cached");
        hits += usize::from(edge.client.fetch(ask).await.reflex() == HIT);
    }
    hits
}

#[tokio::test]
async fn a_folder_is_checked_counted_and_compacted() {
    let upstream = Upstream::start().await;
    let folder = filled(&upstream).await;
    let dir = folder.path();
    let (code, said) = store("check", dir, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 entries, 0 findings"), "{said}");
    let (code, said) = store("stats", dir, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("entries         3\n"), "{said}");
    let (code, said) = store("compact", dir, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.ends_with("bytes freed\n"), "{said}");

    let edge = start(&upstream, dir).await;
    assert_eq!(hits(&edge).await, 3);
    // No process uses it meanwhile.
    for command in ["check", "stats", "compact"] {
        let (code, said) = store(command, dir, &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("in use by another process"), "{said}");
    }
    end(edge).await;
}

#[tokio::test]
async fn damage_is_found_and_told_and_nothing_is_changed() {
    let upstream = Upstream::start().await;
    let folder = filled(&upstream).await;
    let segments = fs::read_dir(folder.path().join("segments")).expect("a folder");
    let segment = segments
        .map(|entry| entry.expect("an entry").path())
        .find(|path| path.extension().is_some_and(|found| found == "seg"))
        .expect("a segment");
    // Within the first record: a block is before it.
    let file = fs::File::options().read(true).write(true).open(&segment);
    let file = file.expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 4096 + 200).expect("a byte");
    file.write_all_at(&[!byte[0]], 4096 + 200).expect("room");
    let before = fs::read(&segment).expect("bytes");
    let (code, said) = store("check", folder.path(), &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 findings"), "{said}");
    assert!(fs::read(&segment).expect("bytes") == before);
    let edge = start(&upstream, folder.path()).await;
    assert_eq!(hits(&edge).await, 2);
    end(edge).await;
}

#[tokio::test]
async fn what_may_still_be_served_stale_is_kept_if_that_is_said() {
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let edge = start(&upstream, folder.path()).await;
    let ask = Ask::chat("for a second?");
    let stored = ask.clone().header("x-reflex-ttl", "1");
    assert_eq!(edge.client.fetch(stored).await.reflex(), "MISS");
    edge.recorded(1, 0).await;
    let look = ask.header("cache-control", "only-if-cached");
    while edge.client.fetch(look.clone()).await.status != 504 {
        tokio::task::yield_now().await;
    }
    end(edge).await;
    let entries = async || store("stats", folder.path(), &[]).await.1;
    let keep = ["--stale-seconds-max", "3600"];
    assert_eq!(store("compact", folder.path(), &keep).await.0, Some(0));
    assert!(entries().await.contains("entries         1\n"));
    assert_eq!(store("compact", folder.path(), &[]).await.0, Some(0));
    assert!(entries().await.contains("entries         0\n"));
}

#[tokio::test]
async fn what_is_no_data_folder_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    for command in ["check", "stats", "compact"] {
        let (code, said) = store(command, &missing, &[]).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("missing") && !missing.exists(), "{said}");
        let (code, said) = store(command, folder.path(), &[]).await;
        assert_eq!(code, Some(2), "{said}");
    }
    assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
}
