//! The keys of an encrypted data folder: read at start and with each reload. After a rotation, a thread
//! writes again what is encrypted with another key than the first.

use super::config::Config;
use crate::cache::{Cache, EncryptionKeys};
use crate::clock::Clock;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

/// The keys of the configuration's file, if it names one.
///
/// # Errors
///
/// A line that names the setting, the file, and what is wrong.
pub(super) fn read(config: &Config) -> Result<Option<EncryptionKeys>, String> {
    let file = config.encryption_key_file.as_deref();
    let keys = file.map(EncryptionKeys::read).transpose();
    keys.map_err(|error| format!("encryption_key_file: {error}"))
}

/// The keys that the daemon runs with.
pub(super) struct Keys {
    in_use: Mutex<Option<EncryptionKeys>>,
    writing: Arc<Mutex<Writing>>,
}

/// Writing again goes on in at most one thread.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    No,
    Yes,
    /// The keys have changed since it began.
    Again,
}

impl Keys {
    pub(super) fn new(in_use: Option<EncryptionKeys>) -> Self {
        Self {
            in_use: Mutex::new(in_use),
            writing: Arc::new(Mutex::new(Writing::No)),
        }
    }

    /// Uses these keys from now on. Without any, or with the same ones, nothing happens: whether a folder is
    /// encrypted is decided at start.
    ///
    /// # Errors
    ///
    /// A line that names the setting; the keys stay as they were.
    pub(super) fn put(&self, cache: &Cache, keys: Option<EncryptionKeys>) -> Result<(), String> {
        let mut in_use = lock(&self.in_use);
        let Some(keys) = keys.filter(|keys| Some(keys) != in_use.as_ref()) else {
            return Ok(());
        };
        let put = cache.set_encryption_keys(&keys);
        put.map_err(|error| format!("encryption_key_file: {error}"))?;
        let names: Vec<_> = keys
            .names()
            .map(|(name, id)| format!("{name} ({id})"))
            .collect();
        tracing::info!(keys = names.join(", "), "the encryption keys have changed");
        *in_use = Some(keys);
        drop(in_use);
        if let Err(error) = self.write_again(cache) {
            tracing::warn!(%error, "what is under earlier keys is written again as it makes room");
        }
        Ok(())
    }

    fn write_again(&self, cache: &Cache) -> io::Result<()> {
        let mut state = lock(&self.writing);
        if *state != Writing::No {
            *state = Writing::Again;
            return Ok(());
        }
        let (writing, cache) = (Arc::clone(&self.writing), cache.clone());
        let thread = thread::Builder::new().name("reflex-reencrypt".into());
        thread.spawn(move || {
            loop {
                tell(cache.reencrypt(Clock::system().now_ms()));
                let mut state = lock(&writing);
                *state = match *state {
                    Writing::Again => Writing::Yes,
                    Writing::No | Writing::Yes => Writing::No,
                };
                if *state == Writing::No {
                    break;
                }
            }
        })?;
        *state = Writing::Yes;
        Ok(())
    }
}

fn tell(written: io::Result<u64>) {
    match written {
        Ok(0) => tracing::info!("everything is encrypted with the first key"),
        Ok(segments) => tracing::info!(segments, "not everything is encrypted with the first key"),
        Err(error) => tracing::warn!(%error, "not everything is encrypted with the first key"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
