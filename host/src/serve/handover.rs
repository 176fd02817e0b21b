//! Hands the listening sockets and the data folder from one daemon to the next, so that a restart fails no
//! request and loses no entry. Both run with `take_over`.
//!
//! ```text
//! new                                             old
//! connects to DATA_DIR/handover, says hello ────►
//!                                           ◄──── its sockets
//! prepares all that can fail                      answers on, whatever becomes of the new one
//! answers at the same sockets, from memory ─────► accepts no more, writes and syncs what waits,
//!                                                 finds no entry any more, gives the folder back
//! opens the folder                          ◄──── "released"
//!                                           ◄──── what running requests store, to their end
//! ```
//!
//! The commit is the new daemon's word that it answers. Until then it may end in any way, and the old one goes
//! on. After it, an old daemon that ends in any way gives the folder back by that.

mod message;
mod notify;
mod offer;
mod take;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests;

pub(crate) use offer::{Offer, taken};
pub(crate) use take::{Predecessor, ask};

use std::path::{Path, PathBuf};

/// The name of the socket in the data folder, which only its owner can enter.
const NAME: &str = "handover";

fn path_in(data_dir: &Path) -> PathBuf {
    data_dir.join(NAME)
}
