//! Programs that the tests need from the machine. Without one, `cargo xtask test` skips its tests;
//! with `--no-skips` it installs Debian's packages where it can, before the build.

use std::env;

use anyhow::{Result, anyhow};
use reflex_guest_build::install_debian;
use reflex_skip::Skips;

use crate::workspace::say;

/// The names of a C++ compiler.
pub(crate) const CXX: [&str; 3] = ["c++", "g++", "clang++"];

/// Programs, any of which will do, with the Debian package that has one.
const PROGRAMS: [(&[&str], &str); 5] = [
    (&CXX, "g++"),
    (&["mount"], "mount"),
    (&["mkfs.ext4"], "e2fsprogs"),
    (&["systemd-analyze"], "systemd"),
    (
        &["chromium", "chromium-browser", "google-chrome"],
        "chromium",
    ),
];

/// Installs missing programs if skips are refused; otherwise does nothing.
///
/// # Errors
///
/// A program is missing and cannot be installed; the text names the packages.
pub(crate) fn set_up(skips: Skips) -> Result<()> {
    let missing = PROGRAMS.iter().filter(|(names, _)| !any_in_path(names));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if skips == Skips::Allowed || packages.is_empty() {
        return Ok(());
    }
    install_debian(&packages, &say).map_err(|why| {
        anyhow!(
            "tests need Debian's {}, or the like: {why}",
            packages.join(" ")
        )
    })
}

/// Whether the search path has a program of any of these names.
pub(crate) fn any_in_path(names: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| names.iter().any(|name| folder.join(name).is_file()))
}
