//! The audit log: one line for each change that an operator or an edge makes, with `audit` as its target.
//!
//! A line tells the caller, the change, and how much it concerned. It has neither tokens nor
//! prompts nor answers; tenants and keys are shortened, so that a line proves nothing about either.

use super::peer::Peer;
use crate::cache::Counted;

/// How a caller was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// It brought the admin token.
    Token,
    /// It could connect to the edge socket.
    Socket,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Socket => "socket",
        }
    }
}

/// Writes the line of a change that was made.
///
/// `subject` is quoted, so that a name from outside cannot begin a line of its own.
pub(crate) fn note(
    peer: Peer,
    by: By,
    action: &'static str,
    subject: &str,
    counted: Counted,
    outcome: &str,
) {
    tracing::info!(
        target: "audit",
        %peer,
        by = by.name(),
        action,
        subject = ?subject,
        entries = counted.entries,
        bytes = counted.bytes,
        outcome,
        "admin"
    );
}
