//! Hot restarts: a second Envoy takes the sockets of the first, which answers what it has, and ends a
//! moment later.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{Envoy, EnvoyPlan};

/// Which of several Envoys it is, as Envoy's hot restart counts them.
#[derive(Debug)]
pub(super) enum Place {
    /// Several run at once, and none of them is ever replaced by a newer one.
    Alone,
    /// It can be followed by another one.
    First,
    /// It follows one with this base id, which listens here.
    Second { base_id: String, listen: SocketAddr },
}

/// Where an Envoy writes its base id, by which its successor finds it.
const BASE_ID_FILE: &str = "base-id";

/// What both are told: the first one has so many seconds from the second one's start on, and asks its
/// clients at once to connect anew. Each has figures of its own.
const TERMS: [&str; 7] = [
    "--skip-hot-restart-parent-stats",
    "--parent-shutdown-time-s",
    "10",
    "--drain-time-s",
    "1",
    "--drain-strategy",
    "immediate",
];

impl Place {
    /// Where the listener has to be. Without an answer, it may be anywhere.
    pub(super) fn listen(&self) -> Option<SocketAddr> {
        match self {
            Self::Alone | Self::First => None,
            Self::Second { listen, .. } => Some(*listen),
        }
    }

    /// The flags for it.
    pub(super) fn arguments(&self, folder: &Path) -> Vec<String> {
        let file = folder.join(BASE_ID_FILE).display().to_string();
        let place = match self {
            Self::Alone => return texts(&["--disable-hot-restart", "--use-dynamic-base-id"]),
            Self::First => texts(&["--use-dynamic-base-id", "--base-id-path", &file]),
            Self::Second { base_id, .. } => texts(&["--restart-epoch", "1", "--base-id", base_id]),
        };
        [place, texts(&TERMS)].concat()
    }
}

fn texts(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(ToString::to_string).collect()
}

impl EnvoyPlan {
    /// As one that another one can [follow](Self::start_after).
    pub fn restartable(mut self) -> Self {
        self.place = Place::First;
        self
    }

    /// Starts it in the place of a [restartable](Self::restartable) one, with its sockets. That one
    /// takes no new connections from then on, has no admin interface, and ends by itself.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn start_after(mut self, first: &Envoy) -> Envoy {
        let base_id = fs::read_to_string(first.folder.path().join(BASE_ID_FILE));
        let listen = first.url.trim_start_matches("http://").parse();
        self.place = Place::Second {
            base_id: base_id.expect("a restartable Envoy").trim().into(),
            listen: listen.expect("an address"),
        };
        self.start().await
    }
}
