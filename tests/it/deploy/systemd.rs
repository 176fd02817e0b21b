//! systemd's judgement of its units.

use std::fs;

use reflex_tests::edge;

use super::*;

const UNITS: [&str; 2] = [
    "deploy/systemd/reflex-edge.service",
    "envoy/deploy/reflex-edge.service",
];
const SOCKET: &str = "deploy/systemd/reflex-edge.socket";

/// The most exposure that `systemd-analyze security` may find, in tenths; 100 is a unit without any
/// protection. Two of them are for a successor, a child of the main process, that tells systemd that it is the main
/// process from now on.
const EXPOSURE_MAX: u8 = 16;

/// The unit in a folder of its own, with the program of the tests: none is installed here.
fn laid_out(unit: &str) -> tempfile::TempDir {
    let text = file(unit);
    let installed = "/usr/local/bin/reflex-edge";
    assert!(text.contains(installed), "{text}");
    let text = text.replace(installed, &edge::binary().to_string_lossy());
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("reflex-edge.service"), text).expect("a unit");
    let socket = folder.path().join("reflex-edge.socket");
    fs::write(socket, file(SOCKET)).expect("a unit");
    folder
}

async fn has_systemd() -> bool {
    let version = Command::new("systemd-analyze").arg("--version").output();
    let is_there = version.await.is_ok_and(|output| output.status.success());
    if !is_there {
        let how = "install systemd (on Debian: `apt-get install systemd`)";
        reflex_skip::skip("systemd's judgement of the units", how);
    }
    is_there
}

#[tokio::test]
async fn systemd_takes_the_units_of_the_daemon() {
    if !has_systemd().await {
        return;
    }
    for unit in UNITS {
        let folder = laid_out(unit);
        let path = |name: &str| folder.path().join(name);
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]);
        verify.arg(path("reflex-edge.service"));
        if unit == UNITS[0] {
            verify.arg(path("reflex-edge.socket"));
        }
        let output = run(&mut verify).await;
        // It reads other units of the machine too; its messages about those do not count.
        let said = String::from_utf8_lossy(&output.stderr);
        let ours: Vec<&str> = said
            .lines()
            .filter(|it| it.contains("reflex-edge"))
            .collect();
        assert!(ours.is_empty(), "{unit}:\n{}", ours.join("\n"));
    }
}

#[tokio::test]
async fn systemd_finds_the_units_little_exposed() {
    if !has_systemd().await {
        return;
    }
    for unit in UNITS {
        let folder = laid_out(unit);
        let mut judge = Command::new("systemd-analyze");
        judge.args(["security", "--offline=true", "--no-pager"]);
        judge.arg(format!("--threshold={EXPOSURE_MAX}"));
        let said = succeeds(judge.arg(folder.path().join("reflex-edge.service"))).await;
        assert!(said.contains("Overall exposure level"), "{unit}: {said}");
    }
}

/// A socket that is neither `--listen` nor `--admin` would end the daemon at its start.
#[tokio::test]
async fn the_sockets_are_where_the_daemon_listens_by_default() {
    let sockets = file(SOCKET);
    let listens = |line: &str| Some(line.strip_prefix("ListenStream=")?.to_owned());
    let sockets: Vec<String> = sockets.lines().filter_map(listens).collect();
    let defaults = edge::run(&["config", "default"]).await;
    let defaults = String::from_utf8(defaults.stdout).expect("text");
    let value = |key: &str| {
        let line = defaults.lines().find_map(|line| {
            line.trim_start_matches('#')
                .strip_prefix(key)?
                .strip_prefix(" = ")
        });
        line.map(|value| value.trim_matches('"').to_owned())
    };
    assert_eq!(
        sockets.into_iter().map(Some).collect::<Vec<_>>(),
        [value("listen"), value("admin")]
    );
}
