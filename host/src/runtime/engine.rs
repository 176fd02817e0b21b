//! What all engines of ours have in common: an epoch that advances, and why a component does not
//! fit.

use super::limits::EPOCH_TICK;
use std::fmt;
use wasmtime::Engine;

/// Why a component cannot be used at all. The text is one line that says what is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// This machine cannot run guests as configured.
    Engine(String),
    /// The bytes are not a WebAssembly component, or use features that are off.
    NotAComponent(String),
    /// It imports something that is not offered, or does not export what it is to be called by.
    Mismatch(String),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(reason) => write!(f, "cannot set up the WebAssembly engine: {reason}"),
            Self::NotAComponent(reason) => {
                write!(f, "not a usable WebAssembly component: {reason}")
            }
            Self::Mismatch(reason) => write!(f, "not a component for this host: {reason}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Advances the engine's epoch for as long as it lives, so that guests can be made to yield or to
/// end.
pub(super) fn tick_epoch(engine: &Engine) -> wasmtime::Result<()> {
    let weak = engine.weak();
    std::thread::Builder::new()
        .name("guest-epoch".into())
        .spawn(move || {
            while let Some(engine) = weak.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(EPOCH_TICK);
            }
        })?;
    Ok(())
}

/// An error and its causes on one line: wasmtime's own text spans many.
pub(super) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
