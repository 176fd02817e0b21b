//! Who waits for a leader's answer.

use super::Fills;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The followers of one leader.
#[derive(Debug, Default)]
pub(crate) struct Audience {
    count: AtomicUsize,
    left: Notify,
}

impl Audience {
    /// Whether a follower waits.
    pub(crate) fn is_there(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Resolves when the last follower is gone.
    pub(crate) async fn gone(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            // From here on no leaving goes unnoticed.
            left.as_mut().enable();
            if !self.is_there() {
                return;
            }
            left.await;
        }
    }
}

/// Counts a follower, until dropped.
pub(super) struct Waiter {
    fills: Arc<Fills>,
    /// Of a leader here.
    audience: Option<Arc<Audience>>,
}

impl Waiter {
    pub(super) fn new(fills: &Arc<Fills>, audience: Option<&Arc<Audience>>) -> Self {
        fills.waiting.fetch_add(1, Ordering::Relaxed);
        if let Some(audience) = audience {
            audience.count.fetch_add(1, Ordering::SeqCst);
        }
        Self {
            fills: Arc::clone(fills),
            audience: audience.cloned(),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.fills.waiting.fetch_sub(1, Ordering::Relaxed);
        if let Some(audience) = &self.audience {
            audience.count.fetch_sub(1, Ordering::SeqCst);
            audience.left.notify_waiters();
        }
    }
}
