//! `tests/shuttle`: the cache with the locks and threads of a model, which tries one order of events
//! after another.

use anyhow::Result;

use crate::workspace::{cargo, step};

/// Tries a few hundred orders for each test, or as many as `REFLEX_SCHEDULES` says.
///
/// # Errors
///
/// It does not build, or an order was found that breaks a promise: the output tells which.
pub(crate) fn try_them() -> Result<()> {
    let target = reflex_guest_build::target_dir().join("shuttle");
    let test = [
        "test",
        "--release",
        "--locked",
        "--manifest-path",
        "tests/shuttle/Cargo.toml",
        "schedules::",
    ];
    step(
        cargo(&test)
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_BUILD_BUILD_DIR", target.join("build")),
    )
}
