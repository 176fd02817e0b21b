//! Envoy's native module.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::workspace::{cargo, folder_of, step};

const PACKAGE: &str = "reflex-envoy-native";

/// As cargo names it.
const BUILT: &str = "libreflex_envoy_native.so";

/// As Envoy looks for it: `lib`, its `name` in Envoy's configuration, `.so`.
const FILE: &str = "libreflex_envoy.so";

/// Builds the module with this profile. Alone, and not with the workspace: its host is to have no
/// features.
pub(crate) fn module(profile: &str) -> Result<PathBuf> {
    build(profile, &[], FILE)
}

/// The same module for the tests, whose hooks panic when told to.
pub(crate) fn panicking_module(profile: &str) -> Result<PathBuf> {
    let planted = ["--features", "planted"];
    build(profile, &planted, "libreflex_envoy_panics.so")
}

fn build(profile: &str, more: &[&str], name: &str) -> Result<PathBuf> {
    let build = ["build", "--profile", profile, "--package", PACKAGE];
    step(cargo(&build).args(more))?;
    let folder = reflex_guest_build::target_dir().join("native");
    let module = folder.join(name);
    let built = folder_of(profile).join(BUILT);
    // A running Envoy has the old file mapped: a new one takes its place, and nothing is written over.
    let new = folder.join(format!("{name}.new"));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::copy(&built, &new))
        .and_then(|_| fs::rename(&new, &module))
        .with_context(|| format!("{} cannot be put at {}", built.display(), module.display()))?;
    Ok(module)
}
