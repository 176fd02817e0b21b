//! The collector to which the tests have spans sent: Rotel, a program that a Python package brings.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Error, Result, bail};
use reflex_skip::Skips;

use crate::python;

/// Prints the folder of the package, which itself need not run.
const FOLDER: &str =
    "import importlib.util as util; print(util.find_spec('rotel').submodule_search_locations[0])";

/// Installs the collector and returns its program; none where it is skipped. There are wheels for some
/// systems and versions of Python only.
///
/// # Errors
///
/// It cannot be installed, and skips are refused; the text says why.
pub(crate) fn set_up(skips: Skips) -> Result<Option<PathBuf>> {
    let python = python::environment_of("tests/collector/requirements.txt", "collector");
    match python.and_then(|python| program(&python)) {
        Ok(program) => Ok(Some(program)),
        Err(why) => {
            let part = "spans at a real collector";
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
    let program = Path::new(folder.trim()).join("rotel-agent");
    if !program.is_file() {
        bail!("the package rotel has no program in `{}`", folder.trim());
    }
    Ok(program)
}
