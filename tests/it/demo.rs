//! The stand-in for a provider that `cargo xtask run` starts when none is named.

use std::process::Stdio;

use reflex_tests::client::{Ask, Client};
use reflex_tests::edge::{Plan, binary};
use reflex_tests::within;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

#[tokio::test]
async fn the_demo_provider_answers_and_ends_when_told() {
    let mut demo = Command::new(binary().with_file_name("demo-provider"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the demo provider can be started");
    let mut lines = BufReader::new(demo.stdout.take().expect("its stdout")).lines();
    let line = within("its first line", lines.next_line()).await;
    let line = line.expect("a line").expect("not the end");
    let url = line
        .strip_prefix("listening on ")
        .expect("where it listens");

    let direct = Client::new(url).fetch(Ask::chat("hello")).await;
    assert_eq!(direct.json()["choices"][0]["finish_reason"], "stop");

    let edge = Plan::new(url).start().await;
    let first = edge.client.fetch(Ask::stream("hello")).await;
    let second = edge.client.fetch(Ask::stream("hello")).await;
    assert_eq!(
        (second.reflex(), &second.body),
        ("HIT_L1_EXACT", &first.body)
    );

    let pid = demo
        .id()
        .and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    kill_process(pid.expect("it runs"), Signal::TERM).expect("it can be told");
    let status = within("its end", demo.wait())
        .await
        .expect("an exit status");
    assert!(status.success(), "{status}");
}
