//! Logs once for each API what its answers reveal of their requests.

use reflex_llm::{Api, Rejected, Revealed};
use std::sync::{Mutex, PoisonError};

/// What this process has logged.
static REVEALED: Mutex<Revealed> = Mutex::new(Revealed::new());

/// Notes an answer that is not kept.
pub(crate) fn note(api: Api, reason: Rejected) {
    // Nearly all answers that are not kept have another reason, and need no lock.
    if reason != Rejected::ProviderWork {
        return;
    }
    let mut revealed = REVEALED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(revelation) = revealed.note(api, reason) {
        tracing::warn!("{revelation}");
    }
}
