//! Handovers that go wrong: the daemon that runs goes on.

use std::os::unix::net::UnixListener;
use std::process::{Output, Stdio};

use reflex_tests::client::Ask;
use reflex_tests::edge::{Edge, Plan, binary};
use reflex_tests::raw_client::RawClient;
use reflex_tests::upstream::Upstream;
use reflex_tests::within;
use tokio::process::{Child, Command};

use super::HIT;

/// Another daemon on the data of this one.
fn another(edge: &Edge, upstream: &Upstream, further: &[&str]) -> Child {
    let mut command = Command::new(binary());
    command
        .args(["serve", "--upstream", &upstream.url(), "--data-dir"])
        .arg(edge.data_dir())
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(further)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command.spawn().expect("reflex-edge can be started")
}

async fn output(child: Child) -> Output {
    within("the end of reflex-edge", child.wait_with_output())
        .await
        .expect("an exit status")
}

async fn refused(child: Child, why: &str) {
    let output = output(child).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(why), "{said}");
}

async fn running(plan: impl FnOnce(Plan) -> Plan) -> (Upstream, Edge) {
    let upstream = Upstream::start().await;
    let edge = plan(Plan::new(&upstream.url())).start().await;
    edge.client.fetch(Ask::chat("kept")).await;
    edge.recorded(1, 0).await;
    (upstream, edge)
}

async fn goes_on(edge: &Edge) {
    let answer = edge.client.fetch(Ask::chat("kept")).await;
    assert_eq!(answer.reflex(), HIT, "{}", edge.log());
    let health = edge.health().await;
    assert_eq!(
        (&health["status"], &health["state"]),
        (&"green".into(), &"running".into())
    );
}

#[tokio::test]
async fn a_daemon_that_ends_half_way_leaves_the_first_as_it_was() {
    let (upstream, edge) = running(Plan::takes_over).await;
    // It has the sockets when it finds that it cannot run.
    let missing = ["--take-over", "--edge-socket", "/nowhere/a.sock"];
    refused(another(&edge, &upstream, &missing), "/nowhere/a.sock").await;
    goes_on(&edge).await;
    // It is no daemon at all.
    let path = edge.data_dir().join("handover");
    let mut stranger = RawClient::connect_unix(&path).await;
    stranger
        .send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await;
    let said = stranger.rest_text().await;
    assert!(said.contains("do not speak the same protocol"), "{said}");
    let mut half = RawClient::connect_unix(&path).await;
    half.send("reflex-edge handover 1\n").await;
    half.until("roles").await;
    drop(half);
    goes_on(&edge).await;

    let (edge, mut old) = edge.hand_over().await;
    assert_eq!(old.ended().await, Some(0), "{}", old.log());
    goes_on(&edge).await;
    assert_eq!(upstream.call_count(), 1);
}

#[tokio::test]
async fn a_daemon_that_does_not_hand_over_keeps_all() {
    let (upstream, edge) = running(|plan| plan).await;
    assert!(
        !edge.data_dir().join("handover").exists(),
        "nothing is offered"
    );
    let why = "a process has the data folder and hands over to none";
    refused(another(&edge, &upstream, &["--take-over"]), why).await;
    goes_on(&edge).await;
}

#[tokio::test]
async fn without_the_setting_a_second_daemon_is_refused_as_before() {
    let (upstream, edge) = running(Plan::takes_over).await;
    refused(another(&edge, &upstream, &[]), "in use by another process").await;
    goes_on(&edge).await;
}

/// One takes over from the other.
#[tokio::test]
async fn two_that_take_over_at_once_do_so_in_turn() {
    let (upstream, mut edge) = running(Plan::takes_over).await;
    let mut both = [0, 1].map(|_| another(&edge, &upstream, &["--take-over"]));
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());
    let [one, other] = &mut both;
    let first = within("the first of them to end", async {
        tokio::select! {
            ended = one.wait() => ended,
            ended = other.wait() => ended,
        }
    });
    assert_eq!(first.await.expect("an exit status").code(), Some(0));
    let answer = edge.client.fetch(Ask::chat("kept")).await;
    assert_eq!(answer.status, 200);
    let running = both.map(|mut child| child.try_wait().expect("a status").is_none());
    assert_eq!(running.iter().filter(|it| **it).count(), 1);
}

#[tokio::test]
async fn a_socket_of_a_dead_daemon_is_no_obstacle() {
    let (_upstream, mut edge) = running(Plan::takes_over).await;
    edge.written().await;
    edge.kill().await;
    let path = edge.data_dir().join("handover");
    assert!(path.exists());
    let edge = edge.start_again().await;
    goes_on(&edge).await;
    let (edge, mut old) = edge.hand_over().await;
    assert_eq!(old.ended().await, Some(0), "{}", old.log());
    goes_on(&edge).await;
}

#[tokio::test]
async fn a_path_that_is_too_long_costs_only_the_handover() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("d".repeat(120));
    let (upstream, edge) = running(|plan| plan.takes_over().data_dir(&data)).await;
    goes_on(&edge).await;
    assert!(
        edge.log().contains("no other daemon can take over"),
        "{}",
        edge.log()
    );
    refused(another(&edge, &upstream, &["--take-over"]), "--take-over: ").await;
    goes_on(&edge).await;
}

/// Such a file is an operator's mistake, and not to be removed.
#[tokio::test]
async fn a_socket_of_another_program_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    let _other = UnixListener::bind(data.join("handover")).expect("a socket");
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).data_dir(&data).start().await;
    let answer = edge.client.fetch(Ask::chat("hello")).await;
    assert_eq!(answer.status, 200);
    assert!(data.join("handover").exists());
}
