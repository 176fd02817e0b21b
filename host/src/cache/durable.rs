//! Async callers that wait until something is durable: a thread waits for the disk in their place.
//!
//! ```text
//! wait_until_durable_async ─► durable already ─► at once
//!                                └ not yet ─► noted, with its ticket ─► the thread wakes it
//! ```
//!
//! Operations become durable in the order in which they were stored, so one thread is enough. It
//! starts with the first wait, and ends when no wait is left.

use super::queue::Ticket;
use super::{Cache, Shared, lock};
use crate::sync::{Mutex, thread};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};

/// Callers that may wait at the same time. Further callers do not wait, as when the disk hangs.
const WAITS_MAX: usize = 16_384;

/// The waiting callers.
#[derive(Debug, Default)]
pub(super) struct DurableWaits(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    /// In the order of their tickets, except for some that came at the same time.
    waiting: VecDeque<(Ticket, Arc<Wait>)>,
    has_thread: bool,
}

#[derive(Debug, Default)]
struct Wait(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    is_over: bool,
    waker: Option<Waker>,
}

impl Wait {
    fn poll(&self, by: &Waker) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.is_over {
            return Poll::Ready(());
        }
        state.waker = Some(by.clone());
        Poll::Pending
    }

    fn end(&self) {
        let waker = {
            let mut state = lock(&self.0);
            state.is_over = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Cache {
    /// As [`wait_until_durable`](Self::wait_until_durable), for async callers: another thread waits
    /// for the disk, at most a second. Works in any async runtime.
    pub async fn wait_until_durable_async(&self) {
        if !self.has_to_be_durable() {
            return;
        }
        let last = self.shared.queue.last();
        if let Some(wait) = self.shared.begin_wait(last) {
            poll_fn(|context| wait.poll(context.waker())).await;
        }
    }
}

impl Shared {
    /// `None` if no wait is needed, or no thread can be started.
    fn begin_wait(self: &Arc<Self>, ticket: Ticket) -> Option<Arc<Wait>> {
        if self.queue.is_synced(ticket) {
            return None;
        }
        let mut waits = lock(&self.durable_waits.0);
        if waits.waiting.len() >= WAITS_MAX {
            return None;
        }
        if !waits.has_thread {
            let shared = Arc::clone(self);
            let builder = thread::Builder::new().name("reflex-durable".into());
            builder.spawn(move || shared.wait_for_others()).ok()?;
            waits.has_thread = true;
        }
        let wait = Arc::<Wait>::default();
        waits.waiting.push_back((ticket, Arc::clone(&wait)));
        Some(wait)
    }

    /// What the thread does.
    fn wait_for_others(&self) {
        loop {
            let first = {
                let mut waits = lock(&self.durable_waits.0);
                match waits.waiting.pop_front() {
                    Some(first) => first,
                    None => {
                        waits.has_thread = false;
                        return;
                    }
                }
            };
            let (ticket, wait) = first;
            // Until it is synced or the wait times out; the caller goes on in both cases.
            self.wait_for_ticket(ticket);
            wait.end();
        }
    }
}
