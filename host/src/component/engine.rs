//! The common parts of our engines: an epoch that advances, loading a component, and why one does
//! not fit.

use crate::component::limits::EPOCH_TICK;
use rustix::time::{ClockId, clock_gettime};
use std::fmt;
use std::time::Duration;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

/// Why a component cannot be used at all. The text is one line that says what is wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// This machine cannot run guests as configured.
    Engine(String),
    /// The bytes are not a WebAssembly component, or use features that are off.
    NotAComponent(String),
    /// It imports something that the host does not offer, or lacks the export to call.
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

/// Compiles a component (its binary form), and checks that the linker has its imports and that it
/// passes `fit`.
pub(crate) fn load<T: 'static, Pre>(
    engine: wasmtime::Result<Engine>,
    component: &[u8],
    linker: fn(&Engine) -> wasmtime::Result<Linker<T>>,
    fit: fn(InstancePre<T>) -> wasmtime::Result<Pre>,
) -> Result<Pre, LoadError> {
    let engine = engine.map_err(|error| LoadError::Engine(one_line(&error)))?;
    let component = Component::from_binary(&engine, component)
        .map_err(|error| LoadError::NotAComponent(one_line(&error)))?;
    linker(&engine)
        .and_then(|linker| linker.instantiate_pre(&component))
        .and_then(fit)
        .map_err(|error| LoadError::Mismatch(one_line(&error)))
}

/// Advances the engine's epoch for as long as it lives, so that guests can be made to yield or to
/// end.
pub(crate) fn tick_epoch(engine: &Engine) -> wasmtime::Result<()> {
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

/// The CPU time of this thread so far. On a busy machine that is less than the time passed.
pub(crate) fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // The clock begins at zero and has no more than a second in its nanoseconds.
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// An error and its causes on one line: wasmtime's own text spans many.
pub(crate) fn one_line(error: &wasmtime::Error) -> String {
    let text = format!("{error:#}");
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
