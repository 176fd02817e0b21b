//! Installing Debian's packages, where that is possible and was asked for.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::wait::run_bounded;

/// apt-get downloads some 200 MB in the worst case, a compiler.
const TIME_MAX: Duration = Duration::from_secs(900);

/// Installs `packages` with apt-get, for at most 15 minutes each of its two steps. `say` gets a line
/// before the machine is changed.
///
/// # Errors
///
/// apt-get is missing, this process is not root's, or apt-get failed. The text says which, and in
/// the second case the command to run.
pub fn install(packages: &[&str], say: &dyn Fn(&str)) -> Result<(), String> {
    let names = packages.join(" ");
    let apt = Path::new("/usr/bin/apt-get");
    if !apt.exists() {
        return Err(format!("{} is missing", apt.display()));
    }
    if !fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Err(format!(
            "as root, run `apt-get install --no-install-recommends {names}`"
        ));
    }
    say(&format!(
        "installing Debian's {names}, for at most {} s",
        TIME_MAX.as_secs()
    ));
    // The lists may be missing or old; if the update fails, the old ones may suffice.
    if let Err(why) = run_bounded(apt_get().arg("update"), TIME_MAX) {
        say(&format!(
            "going on with the package lists as they are: {why}"
        ));
    }
    let install = ["install", "--yes", "--no-install-recommends"];
    run_bounded(apt_get().args(install).args(packages), TIME_MAX)
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-qq").env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt-get may be at work, such as that of unattended upgrades.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    // Its output is useful only if it fails, and stdout may belong to our caller.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
