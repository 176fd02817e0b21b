//! `tests/compose`, the tool by which the tests compose components.
//!
//! It is a workspace of its own: within ours, it would make cargo choose other features of
//! wasmtime's dependencies, and compile wasmtime once more.

use std::path::PathBuf;

use anyhow::Result;

use crate::workspace::{cargo, step};

/// Builds the tool and says where it is.
pub(crate) fn set_up() -> Result<PathBuf> {
    let target = reflex_guest_build::target_dir().join("compose");
    let build = [
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        "tests/compose/Cargo.toml",
    ];
    // Its build folder lies within this checkout's, so that both are removed together.
    step(
        cargo(&build)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_BUILD_BUILD_DIR", target.join("build")),
    )?;
    Ok(target.join("release/reflex-compose"))
}
