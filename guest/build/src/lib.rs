//! Builds our guest crates for wasm: the middleware component that `reflex-edge` carries, the
//! guests of the tests, and core modules for hosts that load no components.
//!
//! Build scripts and `cargo xtask` both call this, so a guest is built in one way only. Nothing
//! in here installs anything unless asked by name ([`WasmStd::install`], [`install_debian`]): a
//! build script that installed system packages would be a surprise.
//!
//! One environment variable steers it: `REFLEX_WASM_STD=installed|rustup|debian` allows only
//! that way to a standard library for wasm; see [`WasmStd`].

mod debian;
mod exports;
mod nested;
mod wait;
mod wasm_std;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

pub use debian::install as install_debian;
pub use wait::run_bounded;
pub use wasm_std::{OVERRIDE, WasmStd};

/// Builds the guest crate `package` and turns it into a component.
///
/// Returns the path of the component, `<target>/wasm/<package>.wasm`. The file is rewritten only
/// when its bytes change, so that crates that embed it are not rebuilt without need.
///
/// # Errors
///
/// One line that says what to do: the standard library for wasm is missing, the crate does not
/// compile (the compiler's own messages went to stderr), or its output is no component.
pub fn component(package: &str) -> Result<PathBuf, String> {
    let module = nested::build(&WasmStd::find()?, package)?;
    let core = read(&module)?;
    let component = wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&core)
        .and_then(|encoder| encoder.encode())
        .map_err(|error| format!("{package} does not make a component: {error:#}"))?;
    publish(&format!("{package}.wasm"), &component)
}

/// Builds the guest crate `package` and leaves it the core module that it is, for hosts such as
/// Envoy that load no components. The file is `<target>/wasm/<package>.core.wasm`.
///
/// The functions of the names in `hidden` are not exported: a host that finds them calls them, and the
/// SDK of proxy-wasm exports all that there are.
///
/// # Errors
///
/// As [`component`].
pub fn core_module(package: &str, hidden: &[&str]) -> Result<PathBuf, String> {
    let module = nested::build(&WasmStd::find()?, package)?;
    let core = exports::hide(&read(&module)?, hidden)
        .map_err(|why| format!("{package} does not make a module: {why}"))?;
    publish(&format!("{package}.core.wasm"), &core)
}

/// For build scripts: builds the component of `package` and copies it into `OUT_DIR`. The crate
/// gets its path as the environment variable `variable`, and cargo learns when to run this again.
///
/// The copy matters: `OUT_DIR` exists as long as cargo's record of having run the script, whereas
/// `target/` may be deleted while that record stays.
///
/// # Errors
///
/// As [`component`].
pub fn embed(package: &str, variable: &str) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    for path in watched_paths(package) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    let built = component(package)?;
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: this is for build scripts")?;
    let copy = Path::new(&out).join(format!("{package}.wasm"));
    fs::copy(&built, &copy)
        .map_err(|error| format!("{} cannot be copied: {error}", built.display()))?;
    println!("cargo::rustc-env={variable}={}", copy.display());
    Ok(())
}

/// Everything of ours that the guest crate `package` is made from. A build script prints these
/// as `rerun-if-changed`. Paths that do not exist are left out: cargo would take one for a change
/// on every build.
pub fn watched_paths(package: &str) -> Vec<PathBuf> {
    let root = workspace();
    let mut paths: Vec<PathBuf> = [
        "Cargo.toml",
        "Cargo.lock",
        "rust-toolchain.toml",
        "guest/build/src",
        "llm/Cargo.toml",
        "llm/src",
        "wit",
    ]
    .iter()
    .map(|path| root.join(path))
    .collect();
    if let Some(folder) = folder_of(&root, package) {
        paths.extend(["Cargo.toml", "src"].map(|path| folder.join(path)));
    }
    paths.retain(|path| path.exists());
    paths
}

/// The root of the workspace that this crate was compiled in.
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Where finished files go: `CARGO_TARGET_DIR` if the user set it, else `target/` in the
/// workspace. Cargo does not tell build scripts of `--target-dir`.
pub fn target_dir() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The folder of the guest crate `package`: guests live in these places and nowhere else.
fn folder_of(root: &Path, package: &str) -> Option<PathBuf> {
    let name = format!("name = \"{package}\"");
    ["guest", "tests/guests"]
        .iter()
        .filter_map(|parent| fs::read_dir(root.join(parent)).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .chain([root.join("envoy/wasm")])
        .find(|folder| {
            fs::read_to_string(folder.join("Cargo.toml"))
                .is_ok_and(|manifest| manifest.lines().any(|line| line == name))
        })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}

/// Writes a finished file by rename: two build scripts may do so at once, and neither may see
/// half of the other's.
fn publish(name: &str, bytes: &[u8]) -> Result<PathBuf, String> {
    let folder = target_dir().join("wasm");
    let path = folder.join(name);
    if fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(path);
    }
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&draft, bytes))
        .and_then(|()| fs::rename(&draft, &path))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(path)
}
