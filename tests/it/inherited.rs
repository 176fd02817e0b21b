//! Sockets that the daemon is started with: socket activation.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::process::{Command, Output};

use reflex_tests::client::Ask;
use reflex_tests::edge::{Plan, binary};
use reflex_tests::inherited::{address, hand_over, socket};
use reflex_tests::raw_client::{RawClient, http1};
use reflex_tests::upstream::Upstream;

/// The socket is not the daemon's, so a client that comes between two daemons is only later.
#[tokio::test]
async fn a_client_that_connects_during_a_restart_is_answered() {
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url()).inherits_sockets();
    let mut edge = plan.start().await;
    let first = edge.client.fetch(Ask::chat("kept")).await;
    edge.recorded(1, 0).await;
    let (url, admin) = (edge.url.clone(), edge.admin_url.clone());

    for _ in 0..3 {
        edge.terminate();
        assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
        let mut client = RawClient::connect(&url).await;
        client.send(http1(&Ask::chat("kept"))).await;
        edge = edge.start_again().await;
        let (head, body) = client.answer().await;
        assert!(head.contains("HIT_L1_EXACT"), "{head}");
        assert_eq!(body, first.body);
        assert_eq!((&edge.url, &edge.admin_url), (&url, &admin));
    }
}

fn started_with(descriptors: Vec<OwnedFd>, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(binary());
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .args(["--upstream", "http://127.0.0.1:9", "--admin", "127.0.0.1:0"])
        .args(arguments);
    hand_over(&mut command, descriptors);
    command.output().expect("reflex-edge can be started")
}

fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why), "{said}");
}

/// Its clients would wait for ever.
#[test]
fn a_socket_that_is_nobodys_is_refused() {
    let stray = socket();
    let known = socket();
    let at = address(&known).to_string();
    let both = vec![known.into(), stray.try_clone().expect("a copy").into()];
    let output = started_with(both, &["--listen", &at]);
    refused(
        &output,
        &format!(
            "the socket at {} is neither --listen nor --admin",
            address(&stray)
        ),
    );
}

#[test]
fn a_descriptor_that_is_no_socket_is_refused() {
    let file = File::open("/dev/null").expect("a file");
    let output = started_with(vec![file.into()], &["--listen", "127.0.0.1:0"]);
    refused(&output, "LISTEN_FDS: ");
}

#[test]
fn more_sockets_than_the_daemon_has_addresses_are_refused() {
    let sockets = (0..9).map(|_| socket().into()).collect();
    let output = started_with(sockets, &["--listen", "127.0.0.1:0"]);
    refused(&output, "9 sockets, at most 8 are taken");
}

/// The variables were meant for a parent of ours, which did not remove them.
#[tokio::test]
async fn sockets_of_another_process_are_left_alone() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url())
        .environment("LISTEN_FDS", "1")
        .environment("LISTEN_PID", "1")
        .start()
        .await;
    let answer = edge.client.fetch(Ask::chat("hello")).await;
    assert_eq!(answer.status, 200);
}
