//! A Valkey of a test's own, on a Unix socket in a folder of its own.

use redis::{Cmd, Connection};
use reflex_tests::within;
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often is looked whether it answers: it does not say so.
const LOOK: Duration = Duration::from_millis(5);

/// It is killed when this is dropped.
pub(super) struct Engine {
    program: std::ffi::OsString,
    child: Child,
    folder: tempfile::TempDir,
}

impl Engine {
    /// None, and the test is skipped, if this machine has no engine.
    pub(super) async fn start() -> Option<Self> {
        let Some(program) = env::var_os("REFLEX_ENGINE").filter(|path| !path.is_empty()) else {
            let how = "run `cargo xtask test` where the Python package index is reachable";
            reflex_skip::skip("the fleet on a real Valkey", how);
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let child = spawn(&program, folder.path());
        let engine = Self {
            program,
            child,
            folder,
        };
        engine.answers().await;
        Some(engine)
    }

    pub(super) fn url(&self) -> String {
        format!(
            "unix://{}",
            self.folder.path().join("engine.sock").display()
        )
    }

    async fn answers(&self) {
        within("an engine that answers", async {
            loop {
                let ping = self
                    .connection()
                    .map(|mut line| redis::cmd("PING").exec(&mut line));
                if matches!(ping, Some(Ok(()))) {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await;
    }

    fn connection(&self) -> Option<Connection> {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_connection().ok()
    }

    /// The reply to a command.
    pub(super) fn say<T: redis::FromRedisValue>(&self, command: &Cmd) -> T {
        let mut line = self.connection().expect("a connection");
        command.query(&mut line).expect("a reply")
    }

    /// The names of all values that have an end: the entries, beats and rosters.
    pub(super) fn names(&self) -> Vec<String> {
        let mut all = redis::cmd("KEYS");
        all.arg("*");
        self.say(&all)
    }

    pub(super) fn get(&self, name: &str) -> Vec<u8> {
        let mut get = redis::cmd("GET");
        get.arg(name);
        self.say(&get)
    }

    /// Writes a value, whose end stays as it was.
    pub(super) fn set(&self, name: &str, bytes: &[u8]) {
        let mut set = redis::cmd("SET");
        set.arg(name).arg(bytes).arg("KEEPTTL");
        self.say::<()>(&set);
    }

    pub(super) fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without a word.
    pub(super) fn kill(&mut self) {
        self.child.kill().expect("a running engine");
        self.child.wait().expect("its end");
    }

    /// Starts it again in the same folder.
    pub(super) async fn start_again(&mut self) {
        self.child = spawn(&self.program, self.folder.path());
        self.answers().await;
    }

    /// What it would start with after a restart from now on.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        self.say::<()>(&redis::cmd("SAVE"));
        fs::read(self.folder.path().join("dump.rdb")).expect("a snapshot")
    }

    /// Has it start with an earlier snapshot.
    pub(super) fn restore(&self, snapshot: &[u8]) {
        fs::write(self.folder.path().join("dump.rdb"), snapshot).expect("a snapshot");
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("a running engine");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &std::ffi::OsStr, folder: &Path) -> Child {
    let _ = fs::remove_file(folder.join("engine.sock"));
    Command::new(program)
        .args(["--port", "0", "--unixsocket", "engine.sock"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the engine can be started")
}

/// A file that only its owner reads.
pub(super) fn write_secret(path: &Path, secret: &str) {
    let file = File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path);
    let written = file.and_then(|mut file| file.write_all(secret.as_bytes()));
    written.expect("a file of a secret");
}
