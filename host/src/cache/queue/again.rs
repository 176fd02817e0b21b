//! Entries from memory that are to be written after all.

use super::{CacheKey, Entry, Full, OPERATION_BYTES, Queue, What, lock};

impl Queue {
    /// Puts an entry in that was in memory alone, unless something newer is on its way. `entry` looks again
    /// whether it still is in memory, and gives its checksum; no operation comes while it is called.
    ///
    /// # Errors
    ///
    /// The queue is full. This does not wait, because its caller may be the thread that makes room.
    pub(in crate::cache) fn store_again(
        &self,
        key: &CacheKey,
        entry: impl FnOnce() -> Option<(Entry, u64)>,
    ) -> Result<(), Full> {
        let mut state = lock(&self.state);
        if self.pending.pin().get(key.as_bytes()).is_some() {
            return Ok(());
        }
        let Some((entry, body_checksum)) = entry() else {
            return Ok(());
        };
        let bytes = OPERATION_BYTES + entry.record_bytes();
        if state.bytes > 0 && state.bytes + bytes > self.bytes_max {
            return Err(Full);
        }
        let what = What::Store {
            entry,
            body_checksum,
        };
        self.push(&mut state, key, what);
        Ok(())
    }
}
