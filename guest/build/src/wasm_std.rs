//! Three ways to a standard library for `wasm32-unknown-unknown`, tried in this order:
//!
//! 1. it is installed beside the compiler;
//! 2. `rustup target add` installs it, where rustup's server can be reached;
//! 3. Debian's `rustc-web`, `cargo-web` and `rust-web-src` bring the library's source, from which
//!    cargo builds it (one to two minutes, once), where a Debian mirror can be reached.
//!
//! [`WasmStd::find`] only looks; [`WasmStd::install`] may change the machine, and says so first.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::debian::install as install_debian;
use crate::wait::run_bounded;
use crate::workspace;

/// The environment variable that allows one way only: `installed`, `rustup` or `debian`.
pub const OVERRIDE: &str = "REFLEX_WASM_STD";

/// The target of every guest.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// rustup downloads some 20 MB. If its server cannot be reached it may try for a long time, and the
/// next way should be tried.
const RUSTUP_TIME_MAX: Duration = Duration::from_secs(120);

/// The oldest compiler that builds the workspace; `rust-version` in `Cargo.toml` says the same.
const RUSTC_MINOR_MIN: u32 = 95;

/// Debian's packages: compiler, cargo, and the source of the standard library with the crates
/// that it is built from.
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// Debian's compiler and cargo, named by path because rustup's come first in `PATH`.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
pub(crate) const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// The required source: the crate itself, and the folder of its dependencies.
const DEBIAN_SOURCE: [&str; 2] = [
    "/usr/lib/rustlib/src/rust/library/std/Cargo.toml",
    "/usr/lib/rustlib/src/rust/library/vendor",
];

/// A standard library for wasm that is ready to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WasmStd {
    /// It lies beside the compiler in `PATH`.
    Installed,
    /// It is built from Debian's source by Debian's compiler, and linked by `linker`.
    Debian {
        /// The `rust-lld` or `wasm-ld` to link with: Debian's compiler brings none.
        linker: PathBuf,
    },
}

/// The ways that the user allows by [`OVERRIDE`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Allowed {
    Any,
    Installed,
    Rustup,
    Debian,
}

impl WasmStd {
    /// Looks for a standard library and installs nothing.
    ///
    /// # Errors
    ///
    /// None was found; the line says which command installs one.
    pub fn find() -> Result<Self, String> {
        let missing =
            "the wasm32-unknown-unknown standard library is missing: run `cargo xtask wasm`";
        match Allowed::from_env()? {
            Allowed::Any => installed()
                .or_else(|_| debian())
                .map_err(|_| missing.into()),
            Allowed::Installed | Allowed::Rustup => {
                installed().map_err(|why| format!("{missing} ({OVERRIDE} rules others out; {why})"))
            }
            Allowed::Debian => {
                debian().map_err(|why| format!("{missing} ({OVERRIDE} rules others out; {why})"))
            }
        }
    }

    /// Finds a standard library, or installs one. `say` gets a line before each step that takes
    /// time or changes the machine, and a line at the end that names the way taken.
    ///
    /// # Errors
    ///
    /// No way worked; the text gives each way's reason on a line of its own.
    pub fn install(say: &dyn Fn(&str)) -> Result<Self, String> {
        let allowed = Allowed::from_env()?;
        let ways: [(Allowed, &str, Way); 3] = [
            (Allowed::Installed, "already installed", &|_| installed()),
            (Allowed::Rustup, "rustup target add", &with_rustup),
            (Allowed::Debian, "Debian's packages", &with_debian),
        ];
        let mut reasons = String::new();
        for (way, name, attempt) in ways {
            if allowed != Allowed::Any && allowed != way {
                continue;
            }
            match attempt(say) {
                Ok(found) => {
                    say(&format!("wasm standard library: {name}{}", found.place()));
                    return Ok(found);
                }
                Err(why) => {
                    if way != Allowed::Installed {
                        say(&format!("wasm standard library: not by {name}: {why}"));
                    }
                    reasons.push_str(&format!("\n  {name}: {why}"));
                }
            }
        }
        Err(format!(
            "no way to a standard library for {TARGET} worked:{reasons}"
        ))
    }

    /// Where it is, for the line that says which way was taken.
    fn place(&self) -> String {
        match self {
            Self::Installed => {
                target_libdir().map_or(String::new(), |path| format!(" ({})", path.display()))
            }
            Self::Debian { .. } => format!(" ({DEBIAN_RUSTC} builds it from source, once)"),
        }
    }
}

type Way<'a> = &'a dyn Fn(&dyn Fn(&str)) -> Result<WasmStd, String>;

impl Allowed {
    fn from_env() -> Result<Self, String> {
        match env::var(OVERRIDE).as_deref() {
            Err(_) | Ok("") => Ok(Self::Any),
            Ok("installed") => Ok(Self::Installed),
            Ok("rustup") => Ok(Self::Rustup),
            Ok("debian") => Ok(Self::Debian),
            Ok(other) => Err(format!(
                "{OVERRIDE}={other} is none of installed, rustup, debian"
            )),
        }
    }
}

/// Way 1.
fn installed() -> Result<WasmStd, String> {
    let folder = target_libdir().ok_or("`rustc` cannot be run")?;
    let is_std = |name: &str| name.starts_with("libstd-") && name.ends_with(".rlib");
    fs::read_dir(&folder)
        .ok()
        .and_then(|mut entries| {
            entries.find(|entry| {
                entry
                    .as_ref()
                    .is_ok_and(|entry| is_std(&entry.file_name().to_string_lossy()))
            })
        })
        .map(|_| WasmStd::Installed)
        .ok_or_else(|| format!("{} holds no libstd", folder.display()))
}

/// Way 2.
fn with_rustup(say: &dyn Fn(&str)) -> Result<WasmStd, String> {
    let seconds = RUSTUP_TIME_MAX.as_secs();
    say(&format!(
        "running `rustup target add {TARGET}` for at most {seconds} s"
    ));
    let mut rustup = Command::new("rustup");
    rustup
        .args(["target", "add", TARGET])
        .current_dir(workspace())
        .stdin(Stdio::null());
    run_bounded(&mut rustup, RUSTUP_TIME_MAX)?;
    installed()
}

/// Way 3.
fn with_debian(say: &dyn Fn(&str)) -> Result<WasmStd, String> {
    let Err(absent) = debian() else {
        return debian();
    };
    install_debian(&DEBIAN_PACKAGES, say).map_err(|why| format!("{absent}; {why}"))?;
    debian()
}

/// Debian's toolchain, if installed; installs nothing.
fn debian() -> Result<WasmStd, String> {
    for path in [DEBIAN_RUSTC, DEBIAN_CARGO].iter().chain(&DEBIAN_SOURCE) {
        if !Path::new(path).exists() {
            return Err(format!("{path} is missing"));
        }
    }
    let version = output(Command::new(DEBIAN_RUSTC).arg("--version"))
        .ok_or_else(|| format!("{DEBIAN_RUSTC} cannot be run"))?;
    if minor_of(&version).is_none_or(|minor| minor < RUSTC_MINOR_MIN) {
        return Err(format!(
            "{DEBIAN_RUSTC} is {version}, older than 1.{RUSTC_MINOR_MIN}"
        ));
    }
    linker().map(|linker| WasmStd::Debian { linker })
}

/// Debian's compiler brings no linker for wasm; rustup's toolchain does, and package `lld` would.
fn linker() -> Result<PathBuf, String> {
    let sysroot = output(rustc().args(["--print", "sysroot"])).map(PathBuf::from);
    let host = output(Command::new(DEBIAN_RUSTC).args(["--print", "host-tuple"]));
    sysroot
        .zip(host)
        .map(|(sysroot, host)| sysroot.join("lib/rustlib").join(host).join("bin/rust-lld"))
        .into_iter()
        .chain([PathBuf::from("/usr/bin/wasm-ld")])
        .find(|path| path.exists())
        .ok_or_else(|| {
            "neither rustup's rust-lld nor /usr/bin/wasm-ld (package lld) is there".into()
        })
}

fn target_libdir() -> Option<PathBuf> {
    output(rustc().args(["--print", "target-libdir", "--target", TARGET])).map(PathBuf::from)
}

/// The compiler in `PATH`, run where `rust-toolchain.toml` chooses which.
fn rustc() -> Command {
    let mut command = Command::new("rustc");
    command.current_dir(workspace());
    command
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// `rustc 1.96.0 (…)` → 96.
fn minor_of(version: &str) -> Option<u32> {
    version
        .strip_prefix("rustc 1.")?
        .split('.')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::minor_of;

    #[test]
    fn the_minor_version_is_read_from_what_rustc_prints() {
        let check = |version, minor| assert_eq!(minor_of(version), minor);
        check(
            "rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)",
            Some(96),
        );
        check("rustc 1.63.0", Some(63));
        check("rustc 2.0.0", None);
        check("", None);
    }
}
