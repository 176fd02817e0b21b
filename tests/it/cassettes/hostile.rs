//! A folder that is no cassette is refused with one line that names the file.

use super::player::Player;
use super::{cassette, files};
use reflex_tests::client::Ask;
use reflex_tests::edge::run;
use reflex_tests::upstream::Upstream;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

async fn check_refused(folder: &Path, name: &str) {
    let text = folder.to_str().expect("text");
    for command in [
        &["replay"][..],
        &["record", "--upstream", "http://127.0.0.1:9"],
        &["auto", "--upstream", "http://127.0.0.1:9"],
    ] {
        let flags = ["--cassette", text, "--listen", "127.0.0.1:0"];
        let output = run(&[command, &flags].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(name), "{said}");
    }
}

#[tokio::test]
async fn hostile_cassettes_are_refused_by_name() {
    const NAME: &str = "0001-a-01234567.json";
    let folder = cassette();
    let path = folder.path().join(NAME);
    symlink("/etc/passwd", &path).expect("a link");
    check_refused(folder.path(), NAME).await;
    fs::remove_file(&path).expect("removed");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("a pipe");
    check_refused(folder.path(), NAME).await;
    fs::remove_file(&path).expect("removed");
    let file = fs::File::create(&path).expect("a file");
    file.set_len(1 << 33).expect("a huge file without blocks");
    check_refused(folder.path(), NAME).await;
    for broken in ["", "{", "[]", "{\"cassette\": 7}", "\u{0}"] {
        fs::write(&path, broken).expect("a file");
        check_refused(folder.path(), NAME).await;
    }
    assert!(
        path.exists(),
        "`record` removes no file that is none of a cassette's"
    );
    fs::remove_file(&path).expect("removed");
    fs::write(
        folder.path().join("cassette.toml"),
        "version = 1\n[[redact]]\nall = 1",
    )
    .expect("a file");
    check_refused(folder.path(), "cassette.toml").await;
}

/// Neither a path nor a name of a file leads out of the folder.
#[tokio::test]
async fn paths_of_requests_stay_in_the_folder() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let url = upstream.url();
    let flags = ["--upstream", url.as_str(), "--all"];
    let player = Player::start("record", folder.path(), &flags).await;
    for path in ["/../../tmp/out", "/%2e%2e/%2e%2e/out", "/v1/..%2fout"] {
        player.client.fetch(Ask::get(path)).await;
    }
    let (_, said) = player.ends().await;
    let outside = folder.path().parent().expect("a parent").join("out");
    assert!(!outside.exists(), "{said}");
    let names: Vec<String> = files(folder.path()).into_keys().collect();
    assert!(names.iter().all(|name| !name.contains("..")), "{names:?}");
}

/// What a killed recording leaves are whole files.
#[tokio::test]
async fn a_killed_recording_leaves_whole_files() {
    let upstream = Upstream::start().await;
    let folder = cassette();
    let player = Player::record(folder.path(), &upstream.url()).await;
    let before = player.client.fetch(Ask::chat("whole")).await;
    let mut stream = player.client.send(Ask::stream("half").mock("gated")).await;
    upstream.release(1);
    stream.until("assistant").await;
    // Dropping it is a kill.
    drop(player);
    drop(stream);
    let player = Player::replay(folder.path(), &["--ci"]).await;
    assert_eq!(
        player.client.fetch(Ask::chat("whole")).await.body,
        before.body
    );
    let (code, said) = player.ends().await;
    assert_eq!(code, Some(0), "{said}");
}
