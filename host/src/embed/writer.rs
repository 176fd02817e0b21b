//! An answer that comes piece by piece.

use crate::cache::{Entry, InsertError};
use crate::embed::{Cache, InsertOptions};
use reflex_llm::Key;
use std::fmt;
use std::io;

/// Collects an answer and stores it when it is [finished](Self::finish). Dropped before, it stores
/// nothing: a cut answer is never stored.
///
/// The answer is collected in memory, up to
/// [`entry_bytes_max`](crate::embed::Builder::entry_bytes_max).
///
/// ```
/// use reflex_host::{Cache, Key, Tenant};
/// use std::io::Write as _;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cache = Cache::builder("").in_memory();
/// let key = Key::for_prompt(&Tenant::of_group("research"), "Count to three.");
///
/// let mut writer = cache.writer(&key);
/// writer.write_all(b"One, ")?;
/// drop(writer);
/// assert!(cache.lookup(&key).is_none());
///
/// let mut writer = cache.writer(&key);
/// for piece in ["One, ", "two, ", "three."] {
///     writer.write_all(piece.as_bytes())?;
/// }
/// writer.finish()?;
/// assert!(cache.lookup(&key).is_some());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is stored before `finish`"]
pub struct EntryWriter {
    cache: Cache,
    key: Key,
    options: InsertOptions,
    /// Never longer than an entry may be.
    payload: Vec<u8>,
    is_too_large: bool,
}

impl EntryWriter {
    pub(crate) fn new(cache: Cache, key: Key, options: InsertOptions) -> Self {
        let since = options.since.unwrap_or_else(|| cache.mark());
        let options = options.since(since);
        Self {
            cache,
            key,
            options,
            payload: Vec::new(),
            is_too_large: false,
        }
    }

    /// The bytes written so far.
    pub fn len(&self) -> usize {
        self.payload.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Stores the answer.
    ///
    /// # Errors
    ///
    /// The answer is too large, also if a write has failed with that before; or it was removed or
    /// purged since the writer was made. Nothing was stored.
    pub fn finish(self) -> Result<Entry, InsertError> {
        self.check()?;
        self.cache
            .insert_with(&self.key, &self.payload, &self.options)
    }

    /// As [`finish`](Self::finish), for async callers: see
    /// [`Cache::insert_async`](crate::embed::Cache::insert_async).
    ///
    /// # Errors
    ///
    /// As of [`finish`](Self::finish).
    pub async fn finish_async(self) -> Result<Entry, InsertError> {
        self.check()?;
        let stored = self
            .cache
            .insert_with_async(&self.key, &self.payload, &self.options);
        stored.await
    }

    fn check(&self) -> Result<(), InsertError> {
        match self.is_too_large {
            true => Err(InsertError::PayloadTooLarge(self.cache.entry_bytes_max())),
            false => Ok(()),
        }
    }
}

impl io::Write for EntryWriter {
    /// Takes all of it, or nothing.
    ///
    /// # Errors
    ///
    /// `FileTooLarge`: the answer is longer than an entry may be. It cannot be stored any more, and
    /// the collected bytes are dropped.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.cache.entry_bytes_max();
        if self.is_too_large || (self.payload.len() + bytes.len()) as u64 > most {
            self.is_too_large = true;
            self.payload = Vec::new();
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                InsertError::PayloadTooLarge(most),
            ));
        }
        self.payload.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows the length, not the content.
impl fmt::Debug for EntryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryWriter")
            .field("bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}
