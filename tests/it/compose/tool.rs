//! `tests/compose`, which composes components.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The component `socket` with `plug` for its imports. `folder` is for files on the way.
pub(super) fn plug(folder: &Path, socket: &Path, plug: &Path) -> PathBuf {
    let out = folder.join("composed.wasm");
    run(&[
        "plug".as_ref(),
        socket.as_os_str(),
        plug.as_os_str(),
        out.as_os_str(),
    ]);
    out
}

/// Runs the tool to its end, which must be a success.
pub(super) fn run(arguments: &[&std::ffi::OsStr]) {
    let output = Command::new(binary())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("reflex-compose can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

/// `REFLEX_COMPOSE`, or where `cargo xtask test` leaves it.
fn binary() -> PathBuf {
    let path = env::var_os("REFLEX_COMPOSE").map_or_else(
        || target().join("compose/release/reflex-compose"),
        PathBuf::from,
    );
    assert!(
        path.exists(),
        "{} is missing: run `cargo xtask test`",
        path.display()
    );
    path
}

/// Where `cargo xtask` leaves what it makes.
pub(super) fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    workspace.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
