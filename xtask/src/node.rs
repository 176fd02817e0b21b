//! Node.js, and the tests' JavaScript packages: each set in a folder of its own under `target/`,
//! exactly as its `package-lock.json` says.
//!
//! The Node.js in the search path is used if it is new enough. Otherwise pip gets one.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use reflex_guest_build::run_bounded;
use reflex_skip::Skips;

use crate::python;
use crate::workspace::say;

/// The Node.js that the packages need, as they state it.
const MAJOR_MIN: u32 = 20;

/// At most some 150 packages, 100 MB.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// The files from which npm makes a folder. The lock has a checksum of each package, and no
/// addresses.
const FILES: [&str; 3] = [".npmrc", "package.json", "package-lock.json"];

/// A file in the folder that names its sources; written last.
const STAMP: &str = "made-of.txt";

/// The packages that pip installs without a Node.js.
const NODE_WHEELS: &str = "tests/node/requirements.txt";

/// Makes the folder of the clients, as [`packages_of`] does; none where they are skipped.
///
/// # Errors
///
/// The packages cannot be installed, or Node.js is missing and skips are refused; the text says
/// why.
pub(crate) fn set_up(skips: Skips) -> Result<Option<PathBuf>> {
    match packages_of("tests/js", &FILES, "js")? {
        Ok(packages) => Ok(Some(packages)),
        Err(why) => {
            skips.skip("JavaScript clients", &why).map_err(Error::msg)?;
            Ok(None)
        }
    }
}

/// Installs a Node.js in which WebAssembly can wait for promises (`WebAssembly.Suspending`), unless
/// the current one can. Components with async functions need it. If npm has none for this machine,
/// it is skipped.
///
/// # Errors
///
/// As of [`set_up`].
pub(crate) fn set_up_suspending(skips: Skips) -> Result<()> {
    let can_suspend = command("node")?
        .args(["-e", "process.exit('Suspending' in WebAssembly ? 0 : 1)"])
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_suspend && let Err(why) = packages_of("tests/hosts", &FILES, "hosts")? {
        let part = "Node.js with WebAssembly.Suspending";
        skips.skip(part, &why).map_err(Error::msg)?;
    }
    Ok(())
}

/// Has npm make the folder of that name under `target/` from these files in `source`, [`FILES`]
/// among them, unless it exists and was made from the same. Returns the folder, or why this machine
/// cannot.
///
/// # Errors
///
/// Node.js exists, but the packages cannot be installed; or pip fails. The text says why.
pub(crate) fn packages_of(
    source: &str,
    files: &[&str],
    name: &str,
) -> Result<Result<PathBuf, String>> {
    let path = match search_path()? {
        Ok(path) => path,
        Err(why) => return Ok(Err(why)),
    };
    let version = match version_in(&path) {
        Ok(version) => version,
        Err(why) => return Ok(Err(why)),
    };
    let source = reflex_guest_build::workspace().join(source);
    let folder = reflex_guest_build::target_dir().join(name);
    let mut made_of = version.clone();
    for name in files {
        let path = source.join(name);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        made_of.push('\n');
        made_of.push_str(&text);
    }
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|old| old == made_of) {
        return Ok(Ok(folder));
    }
    say(&format!(
        "JavaScript packages: making {} (Node.js {version})",
        folder.display()
    ));
    let failed = || format!("{} cannot be made anew", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(failed)?;
    }
    fs::create_dir_all(&folder).with_context(failed)?;
    for name in files {
        fs::copy(source.join(name), folder.join(name)).with_context(failed)?;
    }
    let mut npm = Command::new("npm");
    // No package runs anything while it is installed.
    npm.env("PATH", path)
        .args(["ci", "--ignore-scripts", "--no-progress"])
        .current_dir(&folder)
        .stdin(Stdio::null());
    run_bounded(&mut npm, INSTALL_TIME_MAX)
        .map_err(|why| anyhow!("{why}; is the package registry of npm reachable from here?"))?;
    fs::write(folder.join(STAMP), made_of).with_context(failed)?;
    Ok(Ok(folder))
}

/// A program of Node.js', found as [`search_path`] says.
///
/// # Errors
///
/// As of [`search_path`].
pub(crate) fn command(program: &str) -> Result<Command> {
    let mut command = Command::new(program);
    if let Ok(path) = search_path()?
        && env::var_os("PATH").as_ref() != Some(&path)
    {
        command.env("PATH", path);
    }
    Ok(command)
}

/// The search path in which `node` and `npm` are new enough: this process's, or with pip's folder
/// in front. The inner error says why none is.
///
/// # Errors
///
/// pip has a wheel for this machine, and fails.
pub(crate) fn search_path() -> Result<Result<OsString, String>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let Err(why) = version_in(&path) else {
        return Ok(Ok(path));
    };
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Ok(Err(why));
    }
    let python = python::environment_of(NODE_WHEELS, "node")
        .with_context(|| format!("{why}; nor has pip one"))?;
    let folder = python.parent().unwrap_or(&python).to_owned();
    let folders = [folder].into_iter().chain(env::split_paths(&path));
    Ok(Ok(env::join_paths(folders)?))
}

/// The versions of `node` and `npm` in this search path, or why they cannot be used.
fn version_in(path: &OsStr) -> Result<String, String> {
    let how = format!(
        "get Node.js {MAJOR_MIN} or newer with npm (on Debian: `apt-get install nodejs npm`) and \
         have `node` and `npm` in PATH"
    );
    let ask = |program: &str| {
        if !env::split_paths(path).any(|folder| folder.join(program).is_file()) {
            return Err(format!("{program} is missing: {how}"));
        }
        let output = Command::new(program)
            .arg("--version")
            .env("PATH", path)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{program} cannot be run ({error}): {how}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let node = ask("node")?;
    let major = node
        .strip_prefix('v')
        .and_then(|rest| rest.split('.').next())
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < MAJOR_MIN) {
        return Err(format!("node is `{node}`: {how}"));
    }
    Ok(format!("{node}, npm {}", ask("npm")?))
}
