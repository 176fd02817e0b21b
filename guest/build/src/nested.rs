//! The cargo inside cargo: one guest crate, for wasm, from within a build script or `xtask`.
//!
//! The outer cargo holds the lock of its build folder while a build script runs, so the inner one
//! gets folders of its own. It gets none of the outer environment, which describes another crate
//! for another target, and under `cargo clippy` names a wrapper that emits no code.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::wait::line_of;
use crate::wasm_std::{DEBIAN_CARGO, DEBIAN_RUSTC, TARGET, WasmStd};
use crate::{target_dir, workspace};

/// The same for every guest, so that Debian's way builds the standard library once.
///
/// The stack is 64 KiB: with the default of 1 MiB the pooling allocator costs more than it saves.
const RUSTFLAGS: [&str; 4] = [
    "-C",
    "link-arg=-zstack-size=65536",
    "-C",
    "target-feature=+simd128",
];

/// The profile of the workspace that guests are built in.
const PROFILE: &str = "wasm";

/// Of the variables that [`concerns_cargo`], those that the inner cargo gets: where files and
/// network are, and how to share the processors.
const KEPT: [&str; 7] = [
    "CARGO_HOME",
    "CARGO_HTTP_",
    "CARGO_MAKEFLAGS",
    "CARGO_NET_",
    "CARGO_REGISTR",
    "CARGO_SOURCE_",
    "CARGO_TERM_",
];

/// Builds `package` and returns the path of its core module.
pub(crate) fn build(wasm_std: &WasmStd, package: &str) -> Result<PathBuf, String> {
    let folder = match wasm_std {
        WasmStd::Installed => "guests",
        WasmStd::Debian { .. } => "guests-debian",
    };
    let target = target_dir().join(folder);
    let build = build_dir(folder);

    let mut command = cargo(wasm_std);
    command
        .args([
            "build",
            "--target",
            TARGET,
            "--profile",
            PROFILE,
            "--package",
            package,
        ])
        .env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", &target)
        .env("CARGO_BUILD_BUILD_DIR", build)
        .current_dir(workspace())
        .stdin(Stdio::null())
        // A build script's stdout is read by the outer cargo.
        .stdout(Stdio::null());
    let line = line_of(&command);
    let status = command
        .status()
        .map_err(|error| format!("`{line}` cannot be started: {error}"))?;
    if !status.success() {
        return Err(format!(
            "`{line}` failed ({status}); its messages stand above"
        ));
    }
    let file = format!("{}.wasm", package.replace('-', "_"));
    Ok(target.join(TARGET).join(PROFILE).join(file))
}

fn cargo(wasm_std: &WasmStd) -> Command {
    let clean = |program: OsString| {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if concerns_cargo(&name.to_string_lossy()) {
                command.env_remove(name);
            }
        }
        command
    };
    match wasm_std {
        WasmStd::Installed => clean(env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
        WasmStd::Debian { linker } => {
            let mut command = clean(DEBIAN_CARGO.into());
            command
                .env("RUSTC", DEBIAN_RUSTC)
                // `build-std` is unstable, and Debian's compiler is a stable one.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker)
                .arg("-Zbuild-std=std,panic_abort");
            command
        }
    }
}

/// Whether a variable of the environment configures cargo or rustc, or is set by cargo for build
/// scripts. `RUSTUP_TOOLCHAIN` stays, so that the inner cargo is the same.
fn concerns_cargo(name: &str) -> bool {
    let exact = [
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "TARGET",
    ];
    let prefixes = ["CARGO_", "CLIPPY_", "DEP_", "RUSTC", "RUSTDOC", "RUSTFLAGS"];
    !KEPT.iter().any(|kept| name.starts_with(kept))
        && (exact.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix)))
}

/// Intermediate output goes into a folder inside the outer cargo's. Cargo fills in the braces,
/// which say the same as `.cargo/config.toml`.
fn build_dir(folder: &str) -> PathBuf {
    let outer = env::var_os("CARGO_BUILD_BUILD_DIR")
        .unwrap_or_else(|| "{cargo-cache-home}/reflex-edge-build/{workspace-path-hash}".into());
    PathBuf::from(outer).join(folder)
}

#[cfg(test)]
mod tests {
    use super::concerns_cargo;

    #[test]
    fn the_inner_cargo_hears_nothing_of_the_outer_build() {
        let check = |name, dropped| assert_eq!(concerns_cargo(name), dropped, "{name}");
        check("CARGO_ENCODED_RUSTFLAGS", true);
        check("CARGO_TARGET_DIR", true);
        check("CARGO_BUILD_TARGET", true);
        check("CARGO_PROFILE_RELEASE_LTO", true);
        check("RUSTC", true);
        check("RUSTC_WORKSPACE_WRAPPER", true);
        check("RUSTFLAGS", true);
        check("CLIPPY_ARGS", true);
        check("TARGET", true);
        check("CARGO_HOME", false);
        check("CARGO_MAKEFLAGS", false);
        check("CARGO_NET_OFFLINE", false);
        check("RUSTUP_TOOLCHAIN", false);
        check("PATH", false);
    }
}
