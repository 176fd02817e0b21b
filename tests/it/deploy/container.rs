//! The image, without an engine: its file is read, its own lines lay out its files, and the daemon runs as it
//! would in there: another user, no capabilities, and nothing to write to but its volume.

use std::collections::HashMap;
use std::io::BufRead as _;
use std::os::unix::fs::PermissionsExt as _;

use reflex_tests::client::{Ask, Client};
use reflex_tests::upstream::Upstream;
use reflex_tests::{edge, envoy};
use rustix::process::{Pid, Signal, kill_process};

use super::*;

const FILE: &str = "deploy/Containerfile";

/// The instructions of a stage, each with its words.
type Stage = Vec<(String, String)>;

/// The stages of the file. Lines that go on are one instruction.
fn stages() -> Vec<Stage> {
    let mut stages: Vec<Stage> = Vec::new();
    let mut whole = String::new();
    for line in file(FILE).lines().map(str::trim) {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            whole.push_str(part);
            continue;
        }
        whole.push_str(line);
        let (name, words) = whole.split_once(' ').expect("an instruction with words");
        if name == "FROM" {
            stages.push(Vec::new());
        }
        let stage = stages.last_mut().expect("FROM comes first");
        stage.push((name.to_owned(), words.trim().to_owned()));
        whole.clear();
    }
    assert_eq!(stages.len(), 2, "a stage that builds, and the image");
    stages
}

fn of<'s>(stage: &'s Stage, name: &str) -> Vec<&'s str> {
    let named = stage.iter().filter(|(it, _)| it == name);
    named.map(|(_, words)| words.as_str()).collect()
}

fn one<'s>(stage: &'s Stage, name: &str) -> &'s str {
    let [words] = of(stage, name)[..] else {
        panic!("not one {name}");
    };
    words
}

#[tokio::test]
async fn hadolint_finds_nothing_in_the_file() {
    if let Some(hadolint) = tool("hadolint", "what hadolint says of the image") {
        succeeds(Command::new(hadolint).arg(FILE)).await;
    }
}

#[test]
fn the_image_is_built_with_the_compiler_of_the_repository() {
    let stages = stages();
    let toolchain = file("rust-toolchain.toml");
    let channel = toolchain
        .lines()
        .find_map(|line| line.strip_prefix("channel = "));
    let channel = channel.expect("a channel").trim_matches('"');
    let from = one(&stages[0], "FROM");
    assert!(from.contains(&format!("/rust:{channel}-")), "{from}");
}

#[test]
fn the_image_runs_as_a_user_without_rights() {
    let stages = stages();
    let image = &stages[1];
    let (user, group) = one(image, "USER").split_once(':').expect("user and group");
    for id in [user, group] {
        assert!(id.parse::<u32>().is_ok_and(|id| id > 0), "{id}");
    }
    // Its volume belongs to the same.
    let run = of(&stages[0], "RUN").join(" ");
    let made = format!("install -d -m 0700 -o {user} -g {group} /out/data");
    assert!(run.contains(&made), "{run}");
    assert_eq!(one(image, "VOLUME"), "/data");
    for (name, _) in image {
        assert_ne!(name, "RUN", "there is no shell");
    }
}

/// What the file's own lines make, in a folder in place of `/out`. The programs are those of the tests.
async fn laid_out(folder: &Path) {
    let stages = stages();
    let run = of(&stages[0], "RUN");
    let (build, install) = run
        .iter()
        .find_map(|words| {
            words
                .split_once("&&")
                .filter(|(it, _)| it.contains("xtask"))
        })
        .expect("the build");
    assert_eq!(build.trim(), "cargo xtask build");
    let programs = install.matches("target/dist/").count();
    assert_eq!(programs, 1, "{install}");
    let filter = envoy::filter();
    let wasm = filter.parent().expect("a folder").to_string_lossy();
    let mut install = install
        .replace("target/dist/reflex-edge", &edge::binary().to_string_lossy())
        .replace("target/wasm", &wasm)
        .replace("/out/", &format!("{}/", folder.display()));
    if !rustix::process::geteuid().is_root() {
        install = install.replace("-o 65532 -g 65532 ", "");
    }
    succeeds(Command::new("sh").args(["-e", "-c", &install])).await;
}

#[tokio::test]
async fn the_lines_of_the_file_lay_out_what_the_image_starts() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    laid_out(folder.path()).await;
    let stages = stages();
    let image = &stages[1];
    let inside = |path: &str| folder.path().join(path.trim_start_matches('/'));
    let words = |text: &str| -> Vec<String> {
        let list = text.find('[').map(|at| &text[at..]).expect("a list");
        serde_json::from_str(list).expect("a list of words")
    };
    let entry = words(one(image, "ENTRYPOINT"));
    let check = words(one(image, "HEALTHCHECK"));
    assert_eq!(entry[0], check[0]);
    for arguments in [words(one(image, "CMD")), check[1..].to_vec()] {
        let mut help = Command::new(inside(&entry[0]));
        succeeds(help.args(arguments).arg("--help")).await;
    }
    for path in [
        "usr/share/reflex-edge/reflex-envoy.core.wasm",
        "usr/share/reflex-edge/envoy.yaml",
        "usr/share/doc/reflex-edge/LICENSE-MIT",
        "data",
    ] {
        assert!(inside(path).exists(), "{path}");
    }
}

/// Nothing that the build reads is kept out of it.
#[test]
fn what_the_build_reads_is_not_ignored() {
    let ignored = file(".dockerignore");
    let ignored: Vec<&str> = ignored.lines().filter(|it| !it.starts_with('#')).collect();
    for needed in [
        "Cargo.lock",
        "host",
        "llm",
        "guest",
        "envoy",
        "wit",
        "xtask",
        "tests",
        "LICENSE-MIT",
    ] {
        assert!(!ignored.contains(&needed), "{needed}");
        assert!(root().join(needed).exists(), "{needed}");
    }
}

/// The environment that the image sets.
fn environment(image: &Stage) -> HashMap<String, String> {
    let words = one(image, "ENV").split_whitespace();
    let pairs = words.map(|word| word.split_once('=').expect("NAME=VALUE"));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The daemon as the image runs it. Its root is read-only, `/data` is a folder of its own.
#[tokio::test]
async fn the_daemon_writes_to_its_volume_alone() {
    let namespaces = ["--mount", "--propagation", "private"];
    let able = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .output();
    let able = able.await.is_ok_and(|output| output.status.success());
    let has_user = Command::new("setpriv")
        .arg("--version")
        .output()
        .await
        .is_ok();
    if !able || !has_user {
        let how = "it takes root, `unshare` and `setpriv` (on Debian: package util-linux)";
        reflex_skip::skip("the daemon with a read-only root", how);
        return;
    }
    let upstream = Upstream::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [program, data] = ["reflex-edge", "data"].map(|name| folder.path().join(name));
    fs::copy(edge::binary(), &program).expect("a copy");
    fs::create_dir(&data).expect("a folder");
    for path in [folder.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    std::os::unix::fs::chown(&data, Some(65532), Some(65532)).expect("an owner");
    // The root file system, and that of temporary files where it is another one.
    let script = r#"
        set -e
        mount --bind "$DATA" "$DATA"
        mount --bind / /
        mount -o remount,bind,ro /
        if mountpoint -q /tmp; then mount -o remount,bind,ro /tmp; fi
        cd "$DATA"
        exec setpriv --reuid 65532 --regid 65532 --clear-groups --no-new-privs \
            --bounding-set=-all --inh-caps=-all "$PROGRAM" serve --upstream "$UPSTREAM"
    "#;
    let mut environment = environment(&stages()[1]);
    assert_eq!(environment["REFLEX_EDGE_LISTEN"], "0.0.0.0:8080");
    // The ports of the image may be taken on this machine.
    environment.insert("REFLEX_EDGE_LISTEN".into(), "127.0.0.1:0".into());
    environment.insert("REFLEX_EDGE_ADMIN".into(), "127.0.0.1:0".into());
    assert_eq!(environment["REFLEX_EDGE_DATA_DIR"], "/data");
    environment.insert("REFLEX_EDGE_DATA_DIR".into(), data.display().to_string());
    let log = folder.path().join("stderr.txt");
    let mut child = std::process::Command::new("unshare")
        .args(namespaces)
        .args(["sh", "-c", script])
        .env("DATA", &data)
        .env("PROGRAM", &program)
        .env("UPSTREAM", upstream.url())
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).expect("a log"))
        .spawn()
        .expect("unshare can be started");
    let stdout = child.stdout.take().expect("a stdout of its own");
    let mut lines = std::io::BufReader::new(stdout).lines();
    let mut said = |beginning: &str| {
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        let log = fs::read_to_string(&log).unwrap_or_default();
        let rest = line.strip_prefix(beginning);
        rest.unwrap_or_else(|| panic!("`{line}`: {log}")).to_owned()
    };
    let url = said("listening on ");
    let admin = said("admin on ");
    let client = Client::new(&url);
    for status in ["MISS", "HIT_L1_EXACT"] {
        let answer = client.fetch(Ask::chat("read-only")).await;
        assert_eq!((answer.status.as_u16(), answer.reflex()), (200, status));
        let look = async {
            let stored = Client::new(&admin);
            while stored.fetch(Ask::get("/health")).await.json()["entries"] == 0 {}
        };
        within("an entry", look).await;
    }
    let health = Client::new(&admin).fetch(Ask::get("/health")).await.json();
    assert_eq!(health["status"], "green", "{health}");
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    kill_process(id.expect("a process"), Signal::TERM).expect("a process that takes signals");
    let ended = tokio::task::spawn_blocking(move || child.wait()).await;
    let status = ended.expect("no panic").expect("an exit status");
    assert!(status.success(), "{status}");
}
