//! `reflex-edge record`, `replay` or `auto` as a child process.

use reflex_tests::client::Client;
use reflex_tests::edge::binary;
use reflex_tests::within;
use rustix::process::{Pid, Signal, kill_process};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// A cassette that answers.
pub(super) struct Player {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub(super) url: String,
    pub(super) client: Client,
}

impl Player {
    pub(super) async fn record(folder: &Path, upstream: &str) -> Self {
        Self::start("record", folder, &["--upstream", upstream]).await
    }

    pub(super) async fn replay(folder: &Path, flags: &[&str]) -> Self {
        Self::start("replay", folder, flags).await
    }

    pub(super) async fn auto(folder: &Path, upstream: &str, flags: &[&str]) -> Self {
        let flags = [&["--upstream", upstream], flags].concat();
        Self::start("auto", folder, &flags).await
    }

    pub(super) async fn start(command: &str, folder: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .arg(command)
            .arg("--cassette")
            .arg(folder)
            .args(["--listen", "127.0.0.1:0"])
            .args(flags)
            .env("NO_PROXY", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("reflex-edge can be started");
        let mut stdout = BufReader::new(child.stdout.take().expect("its stdout"));
        let mut line = String::new();
        within("the address of a cassette", stdout.read_line(&mut line))
            .await
            .expect("text");
        let url = line.trim().strip_prefix("listening on ");
        let url = url
            .unwrap_or_else(|| panic!("{command}: {line}"))
            .to_owned();
        Self {
            child,
            stdout,
            client: Client::new(&url),
            url,
        }
    }

    /// Ends it; its exit code and its report.
    pub(super) async fn ends(mut self) -> (Option<i32>, String) {
        let id = self.child.id().expect("it runs");
        let id = Pid::from_raw(id.cast_signed()).expect("an id");
        kill_process(id, Signal::TERM).expect("a signal");
        let mut said = String::new();
        within("the report", self.stdout.read_to_string(&mut said))
            .await
            .expect("text");
        let status = within("the end of a cassette", self.child.wait()).await;
        (status.expect("a status").code(), said)
    }
}
