//! The locks, counters and threads of the cache: the standard library's, or, with `cfg(shuttle)`,
//! shuttle's, with which `tests/shuttle` tries one order of events after another.

#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};

use std::sync::PoisonError;

/// Locks a value that every statement under its lock leaves consistent: a panic there is a bug, but
/// the others can go on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
