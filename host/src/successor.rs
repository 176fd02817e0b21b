//! The successor: this program once more, as it is on disk by now, with the same arguments. It takes over from
//! this process.

use std::env;
use std::io;
use std::process::{Command, Stdio};
use std::thread;

/// Sockets of systemd. They were for this process, and come to the successor with all others.
const FOR_THIS_PROCESS: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Starts it. The log says what became of it, if it ends first.
pub(crate) fn start() -> io::Result<()> {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_else(|| "reflex-edge".into());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    for name in FOR_THIS_PROCESS {
        command.env_remove(name);
    }
    let mut successor = command.spawn()?;
    let pid = successor.id();
    tracing::info!(pid, "SIGUSR2: a successor starts");
    // Not waited for when this process ends.
    let reap = move || match successor.wait() {
        Ok(status) => tracing::warn!(pid, %status, "the successor has ended"),
        Err(error) => tracing::warn!(pid, %error, "the successor has ended"),
    };
    thread::Builder::new()
        .name("successor".into())
        .spawn(reap)
        .map(drop)
}
