//! SIGUSR2: the daemon starts its successor itself, and tells systemd.

use std::os::unix::net::UnixDatagram;

use reflex_tests::PATIENCE;
use reflex_tests::client::Ask;
use reflex_tests::edge::Plan;
use reflex_tests::upstream::Upstream;
use rustix::process::{Pid, Signal, kill_process};

use super::HIT;

/// A process that is not a child of the test's. It is stopped when this is dropped.
struct Stranger(Pid);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::TERM);
    }
}

#[tokio::test]
async fn a_signal_starts_a_successor_that_systemd_learns_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).expect("a socket");
    systemd.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let upstream = Upstream::start().await;
    let plan = Plan::new(&upstream.url())
        .takes_over()
        .inherits_sockets()
        .environment("NOTIFY_SOCKET", path.to_str().expect("text"));
    let mut edge = plan.start().await;
    let first = edge.client.fetch(Ask::chat("kept")).await;
    edge.recorded(1, 0).await;

    edge.signal(Signal::USR2);
    let told = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 256];
        let length = systemd.recv(&mut bytes).expect("word of the successor");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    });
    let told = told.await.expect("no panic");
    let pid = told.lines().find_map(|line| line.strip_prefix("MAINPID="));
    let pid = pid.and_then(|pid| Pid::from_raw(pid.parse().ok()?));
    let successor = Stranger(pid.expect("a process"));
    assert_eq!(edge.ended().await, Some(0), "{}", edge.log());

    edge.ready().await;
    let again = edge.client.fetch(Ask::chat("kept")).await;
    assert_eq!(
        (again.reflex(), &again.body),
        (HIT, &first.body),
        "{}",
        edge.log()
    );
    assert_eq!(upstream.call_count(), 1);
    drop(successor);
}

#[tokio::test]
async fn a_successor_that_cannot_run_changes_nothing() {
    let upstream = Upstream::start().await;
    let edge = Plan::new(&upstream.url()).takes_over().start().await;
    let first = edge.client.fetch(Ask::chat("kept")).await;
    edge.recorded(1, 0).await;
    // By the next start, an operator has made a mistake.
    std::fs::write(edge.config_file(), "take_over = true\nunknown = 1\n").expect("a file");
    edge.signal(Signal::USR2);
    edge.logged("the successor has ended").await;
    let again = edge.client.fetch(Ask::chat("kept")).await;
    assert_eq!((again.reflex(), &again.body), (HIT, &first.body));
}
