//! nginx and Varnish, which `cargo xtask bench peers` measures beside us.

use std::path::PathBuf;

use anyhow::Result;

use crate::debian;

/// Varnish hashes a request's body by a module of the third.
const PACKAGES: [&str; 3] = ["nginx", "varnish", "varnish-modules"];

/// Unpacks them and returns the folder that has their `usr` in it.
///
/// # Errors
///
/// They cannot be had; the text says how to get them.
pub(crate) fn set_up() -> Result<PathBuf> {
    let folder = reflex_guest_build::target_dir().join("peers");
    let unpacked = debian::unpack(&PACKAGES, &folder)?;
    for program in ["nginx", "varnishd"] {
        unpacked.program(program)?;
    }
    Ok(unpacked.root)
}
