//! One edge takes over from another, on the same data.

use std::path::PathBuf;

use tokio::process::Child;

use super::{Edge, LOOK, Plan, text};
use crate::within;

/// An edge from which another one has taken over. It is killed when this is dropped.
#[derive(Debug)]
pub struct Old {
    child: Child,
    log: PathBuf,
}

impl Old {
    /// Waits for its end, which comes with that of its last request, and returns its exit code.
    ///
    /// # Panics
    ///
    /// If it does not end.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the end of the old reflex-edge", self.child.wait())
            .await
            .expect("an exit status")
            .code()
    }

    /// What it and the others on its data have logged so far.
    pub fn log(&self) -> String {
        text(&self.log)
    }
}

impl Plan {
    /// Takes over from an edge on the same data, and lets another one take over.
    pub fn takes_over(mut self) -> Self {
        self.config = format!("take_over = true\n{}", self.config);
        self
    }
}

impl Edge {
    /// Starts another one that takes over, and waits until it has the data folder.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn hand_over(self) -> (Self, Old) {
        let (edge, old) = self.hand_sockets_over().await;
        edge.ready().await;
        (edge, old)
    }

    /// Waits until the log has this text.
    ///
    /// # Panics
    ///
    /// If it does not get it.
    pub async fn logged(&self, text: &str) {
        let is_told = || self.log().contains(text);
        until(text, is_told).await;
    }

    /// Starts another one, and waits until this one accepts no more.
    ///
    /// # Panics
    ///
    /// If it does not.
    pub async fn hand_sockets_over(self) -> (Self, Old) {
        let handovers = |log: &str| log.matches("another daemon takes over").count();
        let before = handovers(&self.log());
        let Self {
            child,
            log,
            mut plan,
            folder,
            ..
        } = self;
        plan.folder = Some(folder);
        let edge = plan.start().await;
        let old = Old { child, log };
        let has_told = || handovers(&old.log()) > before;
        until("the old reflex-edge to hand over", has_told).await;
        (edge, old)
    }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(LOOK).await;
        }
    };
    within(what, wait).await;
}
