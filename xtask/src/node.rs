//! JavaScript packages of the tests, each set of them in a folder of its own under `target/`, exactly
//! those of its `package-lock.json`.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use reflex_guest_build::run_bounded;

use crate::workspace::say;

/// What the packages need of Node.js, as their packages state it.
const MAJOR_MIN: u32 = 20;

/// At most some 150 packages, 100 MB.
const INSTALL_TIME_MAX: Duration = Duration::from_secs(600);

/// What npm makes a folder of. The lock has a checksum of each package, and no addresses.
const FILES: [&str; 3] = [".npmrc", "package.json", "package-lock.json"];

/// Says in the folder what it was made of; written last.
const STAMP: &str = "made-of.txt";

/// Makes the folder of the clients, as [`packages_of`] does; none where this machine has no
/// Node.js, and then a line says what is not tested and how to have it.
///
/// # Errors
///
/// There is a Node.js, and the packages cannot be had; the text says why.
pub(crate) fn set_up() -> Result<Option<PathBuf>> {
    let packages = packages_of("tests/js", &FILES, "js")?;
    let said = packages.map_err(|why| say(&format!("JavaScript clients: skipped: {why}")));
    Ok(said.ok())
}

/// Gets a Node.js in which WebAssembly can wait for promises (`WebAssembly.Suspending`), unless the
/// one in the search path is one. Components with async functions need it. Where npm has none for
/// this machine, nothing is got.
///
/// # Errors
///
/// As of [`packages_of`].
pub(crate) fn set_up_suspending() -> Result<()> {
    let can_suspend = Command::new("node")
        .args(["-e", "process.exit('Suspending' in WebAssembly ? 0 : 1)"])
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_suspend {
        let got = packages_of("tests/hosts", &FILES, "hosts")?;
        if let Err(why) = got {
            say(&format!(
                "Node.js with WebAssembly.Suspending: skipped: {why}"
            ));
        }
    }
    Ok(())
}

/// Has npm make the folder of that name under `target/` of these files in `source`, [`FILES`]
/// among them, unless it is there and made of the same, and returns it; or why this machine can't.
///
/// # Errors
///
/// There is a Node.js, and the packages cannot be had; the text says why.
pub(crate) fn packages_of(
    source: &str,
    files: &[&str],
    name: &str,
) -> Result<Result<PathBuf, String>> {
    let version = match version() {
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
    npm.args(["ci", "--ignore-scripts", "--no-progress"])
        .current_dir(&folder)
        .stdin(Stdio::null());
    run_bounded(&mut npm, INSTALL_TIME_MAX)
        .map_err(|why| anyhow!("{why}; is the package registry of npm reachable from here?"))?;
    fs::write(folder.join(STAMP), made_of).with_context(failed)?;
    Ok(Ok(folder))
}

/// What `node` and `npm` in the search path call themselves, or why they are of no use.
fn version() -> Result<String, String> {
    let how = format!(
        "get Node.js {MAJOR_MIN} or newer with npm (on Debian: `apt-get install nodejs npm`) and \
         have `node` and `npm` in PATH"
    );
    let ask = |program: &str| {
        let path = env::var_os("PATH").unwrap_or_default();
        if !env::split_paths(&path).any(|folder| folder.join(program).is_file()) {
            return Err(format!("{program} is missing: {how}"));
        }
        let output = Command::new(program)
            .arg("--version")
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
