//! Runs another program with a time limit.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// How often a running program is looked at. The programs waited for here take seconds.
const LOOK: Duration = Duration::from_millis(50);

/// Runs `command` and waits for it at most `limit`; then it is killed.
///
/// # Errors
///
/// A line that names the program and says whether it could not be started, failed, or took too
/// long. Its own messages go where the command's stderr goes.
pub fn run_bounded(command: &mut Command, limit: Duration) -> Result<(), String> {
    let name = line_of(command);
    let mut child = command
        .spawn()
        .map_err(|error| format!("`{name}` cannot be started: {error}"))?;
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("`{name}` failed ({status})")),
            Ok(None) if Instant::now() < deadline => thread::sleep(LOOK),
            Ok(None) => {
                // It may have ended just now; either way nothing is left running.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("`{name}` took longer than {} s", limit.as_secs()));
            }
            Err(error) => return Err(format!("`{name}` cannot be waited for: {error}")),
        }
    }
}

/// The command as a person would type it.
pub(crate) fn line_of(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
