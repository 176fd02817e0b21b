//! The standard library for wasm, and the guests that are built with it.

use std::path::PathBuf;

use anyhow::{Error, Result};
use reflex_guest_build::WasmStd;

use crate::workspace::say;

/// The guests that make components. The tests' build script builds the tests' guests.
pub(crate) const COMPONENTS: [&str; 3] = ["reflex-middleware", "reflex-policy", "reflex-keyvalue"];

/// Envoy's filter, a core module.
const FILTER: &str = "reflex-envoy";

/// The same filter for the tests, which panics when told to.
const PANICKING_FILTER: &str = "reflex-test-envoy";

/// Sees to a standard library for wasm, by whatever way works on this machine.
pub(crate) fn set_up() -> Result<()> {
    WasmStd::install(&say).map(drop).map_err(Error::msg)
}

/// Envoy calls what it finds. The filter's end of a request is `proxy_on_delete`, which comes right
/// after.
const HIDDEN: [&str; 1] = ["proxy_on_done"];

/// Builds the filter.
pub(crate) fn filter() -> Result<PathBuf> {
    reflex_guest_build::core_module(FILTER, &HIDDEN).map_err(Error::msg)
}

/// Builds the filter of the tests.
pub(crate) fn panicking_filter() -> Result<PathBuf> {
    reflex_guest_build::core_module(PANICKING_FILTER, &HIDDEN).map_err(Error::msg)
}

/// Builds the components and the filter, and says where they are.
pub(crate) fn guests() -> Result<()> {
    set_up()?;
    for package in COMPONENTS {
        let component = reflex_guest_build::component(package).map_err(Error::msg)?;
        println!("{}", component.display());
    }
    println!("{}", filter()?.display());
    Ok(())
}
