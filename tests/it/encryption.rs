//! A data folder that is encrypted: the daemon's settings, its refusals, and a rotation of keys while it
//! runs.

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan, run};
use reflex_tests::upstream::Upstream;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

const HIT: &str = "HIT_L1_EXACT";
const OLD: &str = "2026-10 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const NEW: &str = "2026-11 101112131415161718191a1b1c1d1e1f000102030405060708090a0b0c0d0e0f";

/// A folder for data, and a file of keys beside it.
struct Props {
    dir: tempfile::TempDir,
    upstream: Upstream,
}

impl Props {
    async fn with(keys: &[&str]) -> Self {
        let props = Self {
            dir: tempfile::tempdir().expect("a folder"),
            upstream: Upstream::start().await,
        };
        props.write(keys, 0o600);
        props
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn write(&self, keys: &[&str], mode: u32) {
        fs::write(self.file(), keys.join("\n")).expect("written");
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.file(), mode).expect("ours");
    }

    async fn start(&self) -> Edge {
        let config = format!("encryption_key_file = {:?}", self.file());
        let plan = Plan::new(&self.upstream.url());
        plan.data_dir(&self.data()).config(&config).start().await
    }

    /// A start that is refused, with or without the file of keys: its one line.
    async fn refusal(&self, has_keys: bool) -> String {
        let data = self.data();
        let config = self.dir.path().join("edge.toml");
        let text = match has_keys {
            true => format!("encryption_key_file = {:?}", self.file()),
            false => String::new(),
        };
        fs::write(&config, text).expect("written");
        let before = files(&data);
        let output = run(&[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--upstream",
            "http://127.0.0.1:9",
            "--data-dir",
            text_of(&data),
            "--config",
            text_of(&config),
        ])
        .await;
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(files(&data) == before, "the folder was changed");
        let said = said(output);
        let lines: Vec<_> = said.lines().collect();
        assert_eq!(lines.len(), 1, "{said}");
        assert!(lines[0].starts_with("reflex-edge: "), "{said}");
        said
    }

    async fn store(&self, command: &str) -> (Option<i32>, String) {
        let (data, file) = (self.data(), self.file());
        let keys = ["--encryption-key-file", text_of(&file)];
        let output = run(&[&["store", command, text_of(&data)], &keys[..]].concat()).await;
        (output.status.code(), said(output))
    }
}

fn text_of(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}

fn said(output: Output) -> String {
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    for key in [OLD, NEW] {
        let digits = key.split(' ').nth(1).expect("a key");
        assert!(!said.contains(&digits[..12]), "a key is shown: {said}");
    }
    said
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), fs::read(&path).expect("a file"))),
        }
    }
    found.sort();
    found
}

fn is_anywhere(folder: &Path, what: &[u8]) -> bool {
    let mut files = files(folder).into_iter();
    files.any(|(_, bytes)| bytes.windows(what.len()).any(|window| window == what))
}

async fn end(mut edge: Edge) {
    edge.terminate();
    assert_eq!(edge.ended().await, Some(0));
}

#[tokio::test]
async fn answers_lie_encrypted_and_keys_are_rotated_without_a_stop() {
    let props = Props::with(&[OLD]).await;
    let edge = props.start().await;
    let ask = Ask::chat("what no other tenant may read?");
    let first = edge.client.fetch(ask.clone()).await;
    assert_eq!(first.reflex(), "MISS");
    edge.recorded(1, 0).await;
    edge.written().await;
    let hit = edge.client.fetch(ask.clone()).await;
    assert_eq!((hit.reflex(), &hit.body), (HIT, &first.body));
    let answer = &first.body[first.body.len() / 2..];
    let answer = &answer[..answer.len().min(24)];
    assert!(!is_anywhere(&props.data(), answer));

    // The new key goes first, the old one stays until nothing is under it.
    props.write(&[NEW, OLD], 0o600);
    edge.hang_up("applied").await;
    let no_old = |metrics: &reflex_tests::metrics::Metrics| {
        metrics.sum("reflex_segments_of_old_keys", &[]) == 0.0
    };
    edge.until("nothing under the old key", no_old).await;
    assert_eq!(edge.client.fetch(ask.clone()).await.body, first.body);
    props.write(&[NEW], 0o600);
    edge.hang_up("applied").await;
    assert_eq!(edge.client.fetch(ask.clone()).await.reflex(), HIT);

    // What cannot be used changes nothing.
    for (keys, mode) in [(&[OLD][..], 0o600), (&[NEW], 0o644), (&["nonsense"], 0o600)] {
        props.write(keys, mode);
        edge.hang_up("refused").await;
        assert_eq!(edge.client.fetch(ask.clone()).await.reflex(), HIT);
    }
    for key in [OLD, NEW] {
        let digits = key.split(' ').nth(1).expect("a key");
        assert!(!edge.log().contains(&digits[..12]), "{}", edge.log());
        assert!(!edge.metrics_text().await.contains(&digits[..12]));
    }
    end(edge).await;

    props.write(&[NEW], 0o600);
    let (code, said) = props.store("check").await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = props.store("stats").await;
    assert!(code == Some(0) && said.contains(" 2026-11: "), "{said}");
    assert_eq!(props.store("compact").await.0, Some(0));
    let edge = props.start().await;
    let again = edge.client.fetch(ask).await;
    assert_eq!((again.reflex(), &again.body), (HIT, &first.body));
    assert_eq!(props.upstream.call_count(), 1);
    assert!(!is_anywhere(&props.data(), answer));
    end(edge).await;
}

#[tokio::test]
async fn a_start_without_the_right_key_is_refused_in_one_line() {
    let props = Props::with(&[OLD]).await;
    let edge = props.start().await;
    edge.client.fetch(Ask::chat("kept?")).await;
    edge.recorded(1, 0).await;
    edge.written().await;
    end(edge).await;
    assert!(
        props
            .refusal(false)
            .await
            .contains("is encrypted, and no key is given")
    );
    props.write(&[NEW], 0o600);
    assert!(
        props
            .refusal(true)
            .await
            .contains("is encrypted with the key")
    );
    props.write(&[OLD], 0o604);
    assert!(props.refusal(true).await.contains("encryption_key_file: "));
    props.write(&[], 0o600);
    assert!(props.refusal(true).await.contains("it has no key"));
    fs::remove_file(props.file()).expect("there");
    assert!(props.refusal(true).await.contains("encryption_key_file: "));
}

#[tokio::test]
async fn a_folder_that_is_not_encrypted_is_encrypted_by_compacting_it() {
    let props = Props::with(&[OLD]).await;
    let plan = Plan::new(&props.upstream.url()).data_dir(&props.data());
    let edge = plan.start().await;
    let first = edge.client.fetch(Ask::chat("kept?")).await;
    edge.recorded(1, 0).await;
    edge.written().await;
    end(edge).await;
    assert!(props.refusal(true).await.contains("store compact"));
    let answer = &first.body[first.body.len() / 2..];
    let answer = &answer[..answer.len().min(24)];
    assert!(is_anywhere(&props.data(), answer));
    let (code, said) = props.store("compact").await;
    assert_eq!(code, Some(0), "{said}");
    assert!(!is_anywhere(&props.data(), answer));
    let edge = props.start().await;
    let again = edge.client.fetch(Ask::chat("kept?")).await;
    assert_eq!((again.reflex(), &again.body), (HIT, &first.body));
    end(edge).await;
}
