//! A request that can be sent again: its head, and its body, of which what is read is kept.

use crate::exchange::body::budget::Budget;
use crate::exchange::body::lent::{Lender, NotHeld, lend};
use crate::exchange::boxed::BoxBody;
use http::Request;
use http::request::Parts;
use std::sync::Arc;

/// The request as the host holds it while a guest or a connection works on it.
pub(crate) struct Held {
    parts: Parts,
    body: Lender,
}

/// Splits a request into what the host holds and what its reader gets. At most `bytes_max` of the
/// body are kept, and no more than the budget has room for.
pub(crate) fn hold(
    request: Request<BoxBody>,
    bytes_max: u64,
    budget: &Arc<Budget>,
) -> (Held, Request<BoxBody>) {
    let (parts, body) = request.into_parts();
    let (lender, lent) = lend(body, bytes_max, budget);
    let request = Request::from_parts(parts.clone(), lent);
    let body = lender;
    (Held { parts, body }, request)
}

impl Held {
    /// The request as it came.
    ///
    /// # Errors
    ///
    /// [`NotHeld`] says why its body cannot be given again.
    pub(crate) fn take_back(self) -> Result<Request<BoxBody>, NotHeld> {
        let body = self.body.take_back()?;
        Ok(Request::from_parts(self.parts, body))
    }

    /// Has lent the body.
    #[cfg(feature = "middleware")]
    pub(crate) fn lender(&self) -> &Lender {
        &self.body
    }

    /// The head, and what was read of the body, unless that is more than `bytes_max`.
    #[cfg(feature = "middleware")]
    pub(crate) fn seen(&self, bytes_max: usize) -> Option<(&Parts, Vec<u8>)> {
        Some((&self.parts, self.body.seen(bytes_max)?))
    }
}
