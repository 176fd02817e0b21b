//! The workspace as a place to run commands in: cargo, its paths, and steps with a duration.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// The whole workspace, not only packages with binaries: the requested packages decide the features
/// of wasmtime, which should be compiled once for these and the tests.
pub(crate) const BINARIES: [&str; 3] = ["--workspace", "--bins", "--lib"];

/// The same features for the programs that `run` starts, without tests and benchmarks.
pub(crate) const PROGRAMS: [&str; 5] = [
    "--workspace",
    "--bin",
    "reflex-edge",
    "--bin",
    "demo-provider",
];

/// Prefixes of the variables that the outer cargo sets about this program. Some build scripts read
/// them, and would run again with each cargo called from here.
const ABOUT_US: [&str; 4] = [
    "CARGO_BIN_",
    "CARGO_CRATE_",
    "CARGO_MANIFEST_",
    "CARGO_PKG_",
];

/// The cargo that runs us, in the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if ABOUT_US.iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command
        .args(arguments)
        .current_dir(reflex_guest_build::workspace());
    command
}

/// The same for what is measured: our packages are compiled as they are shipped, whatever a
/// developer's configuration of cargo says for the sake of shorter builds.
pub(crate) fn cargo_optimised(arguments: &[&str]) -> Command {
    let mut command = cargo(arguments);
    for package in ["reflex-host", "reflex-llm", "reflex-it"] {
        let setting = format!("profile.dist.package.{package}.opt-level=3");
        command.arg("--config").arg(setting);
    }
    command.env("CARGO_INCREMENTAL", "0");
    command
}

/// Where cargo leaves the release binary of that name.
pub(crate) fn binary(name: &str) -> PathBuf {
    folder_of(RELEASE).join(name)
}

/// The profile of all that is run here.
pub(crate) const RELEASE: &str = "release";

/// Where cargo leaves the binaries of a profile.
pub(crate) fn folder_of(profile: &str) -> PathBuf {
    reflex_guest_build::target_dir().join(profile)
}

/// The process of the step under way; 0 is none.
static STEP: AtomicU32 = AtomicU32::new(0);

/// Asks the step under way to stop, for a user who stops us. A terminal's Ctrl-C reaches it as well,
/// but a signal for us alone does not.
pub(crate) fn stop_step() {
    let step = i32::try_from(STEP.load(Ordering::Relaxed)).ok();
    if let Some(step) = step.and_then(Pid::from_raw) {
        // It may just have ended by itself; ignore that.
        let _ = kill_process(step, Signal::TERM);
    }
}

/// Runs a command that a check or a build consists of, and prints how long it took.
pub(crate) fn step(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    say(&line);
    let start = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    STEP.store(child.id(), Ordering::Relaxed);
    let status = child.wait();
    STEP.store(0, Ordering::Relaxed);
    let status = status.with_context(|| format!("`{line}` cannot be waited for"))?;
    let seconds = start.elapsed().as_secs_f32();
    if !status.success() {
        bail!("`{line}` failed after {seconds:.1} s ({status})");
    }
    say(&format!("done in {seconds:.1} s: {line}"));
    Ok(())
}

/// Prints a line of ours, marked to differ from those of the programs that we run.
pub(crate) fn say(line: &str) {
    eprintln!("==> {line}");
}

/// The command as a person would type it.
fn line_of(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let mut line = program
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
