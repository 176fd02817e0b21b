//! What a connection takes of its listener, and how long it may keep it.

use std::convert::Infallible;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// The bounds of one HTTP/2 connection.
#[derive(Clone, Copy)]
pub(crate) struct StreamLimits {
    /// Requests at once.
    pub(crate) max: u32,
    /// Requests reset before they were handled. Past it the connection is closed: an attack
    /// consists of these.
    pub(crate) reset_max: usize,
}

/// A connection's place at its listener, held while its socket is open.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _open: mpsc::Sender<Infallible>,
}

impl Place {
    /// `open` is dropped with the place: its listener waits for that when it stops.
    pub(super) fn new(permit: OwnedSemaphorePermit, open: mpsc::Sender<Infallible>) -> Self {
        Self {
            _permit: permit,
            _open: open,
        }
    }
}

/// When a connection that outlives HTTP on it has to end. A request that asks for another protocol
/// carries it as an extension.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    /// Closed when the time to stop is up.
    cut: watch::Receiver<()>,
}

impl OpenConnection {
    pub(super) fn new(cut: watch::Receiver<()>) -> Self {
        Self { cut }
    }

    /// Resolves when the connection may stay open no longer.
    pub(crate) async fn cut(&self) {
        // Nothing is ever sent.
        let _ = self.cut.clone().changed().await;
    }
}
