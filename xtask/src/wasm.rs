//! The standard library for wasm, and the guests that are built with it.

use anyhow::{Error, Result};
use reflex_guest_build::WasmStd;

use crate::workspace::say;

/// The guests that make components. Those of the tests are built by the tests' build script.
pub(crate) const COMPONENTS: [&str; 1] = ["reflex-middleware"];

/// Sees to a standard library for wasm, by whatever way works on this machine.
pub(crate) fn set_up() -> Result<()> {
    WasmStd::install(&say).map(drop).map_err(Error::msg)
}

/// Builds the components and says where they are.
pub(crate) fn guests() -> Result<()> {
    set_up()?;
    for package in COMPONENTS {
        let component = reflex_guest_build::component(package).map_err(Error::msg)?;
        println!("{}", component.display());
    }
    Ok(())
}
