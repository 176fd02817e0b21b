//! The programs that `run` starts: their first lines, their failures, and their orderly end.
//!
//! They stay in our process group, so that a terminal's Ctrl-C reaches them even if we are
//! killed; all but Envoy, which cuts its requests on such a signal and is asked to let them end
//! first. A signal that reaches only us is passed on.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};

/// The daemon lets running requests end for 30 s; a little longer, and it is stuck.
const STOP_TIME_MAX: Duration = Duration::from_secs(40);

/// How often children are checked. A user does not notice a twentieth of a second.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// A program of ours that runs. Dropping it kills it: nothing outlives us.
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// Starts a program. Its stdout is read for [`Running::said`], and shown as it comes.
    pub(crate) fn start(name: &'static str, command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{name} cannot be started"))?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| anyhow!("{name} has no stdout"))?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || forward(name, BufReader::new(stdout).lines(), &sender));
        Ok(Self { name, child, lines })
    }

    /// Waits for a line that begins with `prefix`, at most for `limit`, and returns the rest of
    /// it. `None` if the user wants to stop, which `stop` says.
    pub(crate) fn said(
        &mut self,
        prefix: &str,
        limit: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<Option<String>> {
        let deadline = Instant::now() + limit;
        while !stop() {
            match self.lines.recv_timeout(LOOK) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(prefix) {
                        return Ok(Some(rest.to_owned()));
                    }
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(self.ended(status));
                }
                Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let seconds = limit.as_secs();
                    return Err(anyhow!("{} did not start within {seconds} s", self.name));
                }
            }
        }
        Ok(None)
    }

    /// An error if the program has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.ended(status)),
        }
    }

    /// Asks the program to stop, and waits until it has. Kills it if it does not, or once `hurry`
    /// says that the user has asked a second time.
    pub(crate) fn stop(mut self, hurry: impl Fn() -> bool) -> Result<()> {
        if let Ok(None) = self.child.try_wait() {
            // The program may have ended by itself; ignore that.
            let _ = kill_process(self.pid()?, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIME_MAX;
        while self.child.try_wait()?.is_none() {
            if hurry() || Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                return Err(anyhow!(
                    "{} did not stop by itself and was killed",
                    self.name
                ));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("{} has no process id", self.name))
    }

    fn ended(&self, status: ExitStatus) -> anyhow::Error {
        anyhow!("{} ended ({status})", self.name)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both do nothing if it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(name: &str, lines: Lines<BufReader<ChildStdout>>, sender: &mpsc::Sender<String>) {
    for line in lines.map_while(Result::ok) {
        println!("{name}: {line}");
        // The receiver may be gone; then lines are only shown.
        let _ = sender.send(line);
    }
}
