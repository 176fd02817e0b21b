//! The time that a guest uses itself, as opposed to the machine.
//!
//! Three kinds of time pass while a guest works on a request:
//!
//! - The CPU time of its thread counts. On a busy machine, a guest that is ready and not run uses
//!   nothing up.
//! - Its own sleeps count as well; otherwise a guest could sleep forever.
//! - Waiting for the host, which waits for the client, the provider or the disk, does not count
//!   ([`Progress::wait`]). Neither does the host's work for it, such as reading a request of a
//!   million frames ([`Progress::host`]).

use crate::component::engine::thread_time;
use crate::component::progress::Progress;
use futures_util::task::AtomicWaker;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A guest's work on one request, which ends when its time is up. The epoch makes a computing guest
/// yield, which leads here.
pub(crate) struct Metered<'a, F> {
    work: Pin<&'a mut F>,
    progress: &'a Progress,
    /// The time left.
    left: Duration,
    alarm: Arc<Alarm>,
    asleep: Option<Asleep>,
}

/// A guest that waits for nothing that the host does.
struct Asleep {
    since: Instant,
    /// Until its time is up.
    _until: Pin<Box<Sleep>>,
}

/// Notes when the work was woken.
#[derive(Default)]
struct Alarm {
    task: AtomicWaker,
    woken: Mutex<Option<Instant>>,
}

impl<'a, F> Metered<'a, F> {
    pub(crate) fn new(work: Pin<&'a mut F>, progress: &'a Progress, most: Duration) -> Self {
        Self {
            work,
            progress,
            left: most,
            alarm: Arc::default(),
            asleep: None,
        }
    }
}

impl<F: Future> Future for Metered<'_, F> {
    /// Nothing if its time is up.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let woken = this.alarm.reset(cx.waker());
        if let Some(Asleep { since, .. }) = this.asleep.take() {
            // After the wake, the delay is the machine's.
            let slept = woken.unwrap_or_else(Instant::now) - since;
            this.left = this.left.saturating_sub(slept);
            if this.left.is_zero() && woken.is_none() {
                return Poll::Ready(None);
            }
        }
        let waker = Waker::from(Arc::clone(&this.alarm));
        let (began, host_began) = (thread_time(), this.progress.host_time());
        let polled = this.work.as_mut().poll(&mut Context::from_waker(&waker));
        if let Poll::Ready(output) = polled {
            return Poll::Ready(Some(output));
        }
        let host = this.progress.host_time().saturating_sub(host_began);
        let used = thread_time().saturating_sub(began).saturating_sub(host);
        this.left = this.left.saturating_sub(used);
        if this.left.is_zero() {
            return Poll::Ready(None);
        }
        // A yield has woken it already.
        if this.progress.is_waiting() || this.alarm.has_rung() {
            return Poll::Pending;
        }
        let since = Instant::now();
        let mut until = Box::pin(tokio::time::sleep_until(since + this.left));
        if until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        this.asleep = Some(Asleep {
            since,
            _until: until,
        });
        Poll::Pending
    }
}

impl Alarm {
    /// Makes the next wake reach this task; returns when the last one came, if any.
    fn reset(&self, task: &Waker) -> Option<Instant> {
        self.task.register(task);
        self.lock().take()
    }

    fn has_rung(&self) -> bool {
        self.lock().is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        // Nothing that runs under this lock can panic half-way through a change.
        self.woken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.lock().get_or_insert_with(Instant::now);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, poll_fn};
    use std::pin::pin;

    const MOST: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_millis(250);

    async fn metered<T>(progress: &Arc<Progress>, work: impl Future<Output = T>) -> Option<T> {
        let work = pin!(work);
        let metered = Metered::new(work, progress, MOST);
        let ended = tokio::time::timeout(Duration::from_secs(60), metered).await;
        ended.expect("it has an end")
    }

    /// A thread that the machine does not run uses no time.
    #[tokio::test]
    async fn a_machine_that_is_busy_uses_up_nothing() {
        let mut polls = 0;
        let held_up = poll_fn(|cx| {
            polls += 1;
            std::thread::sleep(LONG);
            cx.waker().wake_by_ref();
            match polls {
                3 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        });
        assert_eq!(metered(&Arc::default(), held_up).await, Some(()));
    }

    /// It is ready to go on while its thread does something else.
    #[tokio::test]
    async fn a_guest_that_is_not_run_uses_up_nothing() {
        let mut is_ready = false;
        let woken = poll_fn(|cx| {
            if is_ready {
                return Poll::Ready(());
            }
            is_ready = true;
            let waker = cx.waker().clone();
            tokio::spawn(async move {
                waker.wake();
                std::thread::sleep(LONG);
            });
            Poll::Pending
        });
        assert_eq!(metered(&Arc::default(), woken).await, Some(()));
    }

    #[tokio::test]
    async fn a_guest_that_computes_without_end_is_stopped() {
        let computes = poll_fn(|cx| {
            let began = thread_time();
            while thread_time() - began < Duration::from_millis(1) {
                std::hint::spin_loop();
            }
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert_eq!(metered(&Arc::default(), computes).await, None);
    }

    #[tokio::test]
    async fn a_guest_that_sleeps_without_end_is_stopped() {
        assert_eq!(metered(&Arc::default(), pending::<()>()).await, None);
        let naps = async {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert_eq!(metered::<()>(&Arc::default(), naps).await, None);
    }

    /// A request of half a million frames took the guest a second, all of it the host's.
    #[tokio::test]
    async fn what_the_host_computes_for_it_does_not_count() {
        let progress = Arc::<Progress>::default();
        let computes = async {
            let began = thread_time();
            while thread_time() - began < 3 * MOST {
                tokio::task::yield_now().await;
            }
        };
        let read = metered(&progress, progress.host(computes)).await;
        assert_eq!(read, Some(()));
    }

    #[tokio::test]
    async fn what_it_waits_for_the_host_does_not_count() {
        let progress = Arc::<Progress>::default();
        let waits = async {
            for _ in 0..3 {
                let waiting = progress.wait();
                tokio::time::sleep(2 * MOST).await;
                drop(waiting);
                tokio::task::yield_now().await;
            }
        };
        assert_eq!(metered(&progress, waits).await, Some(()));
        // Afterwards its time is its own again.
        let sleeps = async {
            drop(progress.wait());
            pending::<()>().await;
        };
        assert_eq!(metered(&progress, sleeps).await, None);
    }
}
