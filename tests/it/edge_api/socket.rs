//! The socket itself: its owner, a socket left behind by a killed daemon, and its end.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;

use reflex_tests::edge::{Plan, run};
use reflex_tests::unix::Unix;
use reflex_tests::within;
use tokio::net::UnixStream;

use super::{both, check_found, check_miss, check_stored, daemon, get, path, put};

#[track_caller]
fn check_mode(socket: &Path, mode: u32) {
    let metadata = fs::symlink_metadata(socket).expect("a socket");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, mode);
}

/// Starts a second daemon that will be refused, and returns what it said.
async fn refused(socket: &Path, data_dir: &Path) -> String {
    let socket = socket.to_str().expect("a path");
    let data_dir = data_dir.to_str().expect("a path");
    let admin = "127.0.0.1:0";
    let arguments = [
        "--admin",
        admin,
        "--edge-socket",
        socket,
        "--data-dir",
        data_dir,
    ];
    let output = run(&[&["serve"], &arguments[..]].concat()).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    said
}

#[tokio::test]
async fn the_socket_is_its_owners_unless_the_operator_says_otherwise() {
    let daemon = daemon().await;
    check_mode(&daemon.socket(), 0o600);
    let shared = Plan::daemon()
        .config("edge_socket_mode = \"0660\"")
        .start()
        .await;
    check_mode(&shared.socket(), 0o660);
    for daemon in [daemon, shared] {
        let folder = daemon.socket();
        let folder = folder.parent().expect("a folder");
        let sockets = fs::read_dir(folder).expect("a folder").filter(|entry| {
            let kind = entry.as_ref().ok().and_then(|entry| entry.file_type().ok());
            kind.is_some_and(|kind| kind.is_socket())
        });
        assert_eq!(sockets.count(), 1);
    }
}

#[tokio::test]
async fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let daemon = daemon().await;
    let folder = tempfile::tempdir().expect("a folder");
    let unix = Unix::http1(&daemon.socket());
    check_stored(&unix.fetch(put(&path(1), "{}")).await);

    let said = refused(&daemon.socket(), &folder.path().join("data")).await;
    assert!(said.contains("--edge-socket"), "{said}");
    assert!(said.contains("another process"), "{said}");
    let socket = folder.path().join("edge.sock");
    let said = refused(&socket, &daemon.data_dir()).await;
    assert!(said.contains("--data-dir"), "{said}");
    assert!(!socket.exists());
    let said = refused(&daemon.socket(), &daemon.data_dir()).await;
    assert!(said.contains("--data-dir"), "{said}");

    check_found(&unix.fetch(get(&path(1))).await, b"{}");
}

#[tokio::test]
async fn what_is_no_socket_or_cannot_be_one_is_refused_and_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let data_dir = folder.path().join("data");
    let file = folder.path().join("a file");
    fs::write(&file, "mine").expect("a file");
    for path in [
        file.clone(),
        folder.path().to_owned(),
        folder.path().join("nowhere/edge.sock"),
        folder.path().join("long".repeat(40)),
    ] {
        let said = refused(&path, &data_dir).await;
        assert!(said.contains("--edge-socket"), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).expect("still there"), "mine");
}

#[tokio::test]
async fn a_socket_that_was_left_behind_is_replaced_and_a_used_one_is_removed() {
    let mut daemon = daemon().await;
    let socket = daemon.socket();
    daemon.kill().await;
    assert!(socket.exists());
    let mut daemon = daemon.start_again().await;
    check_mode(&socket, 0o600);
    check_miss(&Unix::http1(&socket).fetch(get(&path(1))).await);

    daemon.terminate();
    assert_eq!(daemon.ended().await, Some(0), "{}", daemon.log());
    assert!(!socket.exists());
    // The same from a program that is no daemon of ours.
    drop(UnixListener::bind(&socket).expect("a socket"));
    let daemon = daemon.start_again().await;
    check_miss(&Unix::http1(&socket).fetch(get(&path(1))).await);
    drop(daemon);
}

/// Waits until the daemon accepts no connections any more.
async fn closed(socket: &Path) {
    let closed = async {
        while UnixStream::connect(socket).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    within("the end of listening", closed).await;
}

#[tokio::test]
async fn sigterm_lets_a_running_put_end() {
    let mut daemon = daemon().await;
    let socket = daemon.socket();
    for turn in [0, 1] {
        let unix = match turn {
            0 => Unix::http1(&socket),
            _ => Unix::http2(&socket).await,
        };
        let part = vec![b'x'; 64 << 10];
        let (feed, sent) = unix.begin(put(&path(turn), ""));
        // More than sockets hold: then the daemon has begun to read.
        for _ in 0..64 {
            assert!(feed.send(part.clone()).await);
        }
        daemon.terminate();
        closed(&socket).await;
        for _ in 0..16 {
            assert!(feed.send(part.clone()).await);
        }
        drop(feed);
        check_stored(&sent.answer().await.expect("an answer"));
        assert_eq!(daemon.ended().await, Some(0), "{}", daemon.log());
        assert!(!socket.exists());

        daemon = daemon.start_again().await;
        let found = Unix::http1(&socket).fetch(get(&path(turn))).await;
        check_found(&found, &part.repeat(80));
    }
}

#[tokio::test]
async fn sigterm_ends_a_daemon_with_idle_connections() {
    let mut daemon = daemon().await;
    let [one, two] = both(&daemon.socket()).await;
    check_miss(&one.fetch(get(&path(1))).await);
    check_miss(&two.fetch(get(&path(1))).await);
    // A connection that has sent nothing yet.
    let silent = UnixStream::connect(daemon.socket()).await;
    daemon.terminate();
    assert_eq!(daemon.ended().await, Some(0), "{}", daemon.log());
    drop(silent);
}

/// A daemon that ended removed the socket of its successor.
#[tokio::test]
async fn the_next_ones_socket_is_left_alone() {
    let mut old = daemon().await;
    let socket = old.socket();
    let unix = Unix::http1(&socket);
    let (feed, sent) = unix.begin(put(&path(1), ""));
    for _ in 0..64 {
        assert!(feed.send(vec![b'x'; 64 << 10]).await);
    }
    old.terminate();
    closed(&socket).await;
    let new = Plan::daemon().socket(&socket).start().await;
    drop(feed);
    check_stored(&sent.answer().await.expect("an answer"));
    assert_eq!(old.ended().await, Some(0), "{}", old.log());

    check_mode(&socket, 0o600);
    check_miss(&unix.fetch(get(&path(1))).await);
    drop(new);
}
