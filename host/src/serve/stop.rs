//! How listeners and connections are told to stop.

use tokio::sync::watch;

/// What becomes of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// This process ends: connections without a request close at once, so that it ends soon.
    Closes,
    /// Another process answers at the same addresses already. So that no request meets a closed
    /// connection, each HTTP/1.x connection closes behind its next response, which says so.
    HandsOver,
}

/// Tells it, once.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<Option<Stop>>);

/// Is told.
#[derive(Clone, Debug)]
pub(crate) struct Stopped(watch::Receiver<Option<Stop>>);

pub(crate) fn channel() -> (Stopper, Stopped) {
    let (sender, receiver) = watch::channel(None);
    (Stopper(sender), Stopped(receiver))
}

impl Stopper {
    /// The first word counts.
    pub(crate) fn stop(&self, how: Stop) {
        self.0.send_if_modified(|told| {
            let is_first = told.is_none();
            told.get_or_insert(how);
            is_first
        });
    }
}

impl Stopped {
    /// Whether it was told. One load, so each response may ask.
    pub(crate) fn is_told(&self) -> bool {
        !matches!(self.0.has_changed(), Ok(false))
    }

    /// Waits until it is told. A stopper that is gone can only mean the end.
    pub(crate) async fn wait(&self) -> Stop {
        let mut receiver = self.0.clone();
        let told = receiver.wait_for(Option::is_some).await;
        told.ok().and_then(|told| *told).unwrap_or(Stop::Closes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_word_counts_for_all_whenever_they_ask() {
        let (stopper, stopped) = channel();
        let early = stopped.clone();
        assert!(!stopped.is_told());
        let waits = tokio::spawn(async move { early.wait().await });
        stopper.stop(Stop::HandsOver);
        stopper.stop(Stop::Closes);
        assert_eq!(waits.await.expect("no panic"), Stop::HandsOver);
        let late = stopped.clone();
        assert!(stopped.is_told() && late.is_told());
        assert_eq!(late.wait().await, Stop::HandsOver);
        assert!(late.is_told(), "also after it has waited");
        drop(stopper);
        assert_eq!(late.wait().await, Stop::HandsOver);
        let (stopper, stopped) = channel();
        drop(stopper);
        assert!(stopped.is_told());
        assert_eq!(stopped.wait().await, Stop::Closes);
    }
}
