//! Listening sockets that the daemon did not bind: those that it was started with, by socket activation as
//! systemd does it (`LISTEN_FDS`, `LISTEN_PID`; sd_listen_fds(3)), and those of a daemon that hands over.
//!
//! The parent keeps the sockets open, so clients that connect while no daemon runs wait in the
//! socket's backlog instead of being refused: a restart fails no new connection.

use listenfd::ListenFd;
use serde::{Deserialize, Serialize};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Upper bound of inherited sockets. The daemon listens at two TCP addresses.
pub const INHERITED_MAX: usize = 8;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Clients.
    Listen,
    /// Operators.
    Admin,
    /// Edges: the only Unix socket.
    Edge,
}

impl Role {
    /// The flag with its address.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Listen => "--listen",
            Self::Admin => "--admin",
            Self::Edge => "--edge-socket",
        }
    }
}

/// The sockets of a daemon that hands over.
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub(crate) sockets: Vec<(Role, OwnedFd)>,
    /// Where its edges connect.
    pub(crate) edge_path: Option<PathBuf>,
}

/// The inherited sockets that no address has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited {
    started_with: Vec<TcpListener>,
    handed: Handed,
}

impl Inherited {
    /// Takes the sockets that the environment of this process names. Without `LISTEN_FDS`, or with
    /// the `LISTEN_PID` of another process, there are none.
    ///
    /// # Errors
    ///
    /// One line: a descriptor is no TCP socket, or there are more than [`INHERITED_MAX`].
    pub fn of_environment() -> Result<Self, String> {
        let mut named = ListenFd::from_env();
        if named.len() > INHERITED_MAX {
            return Err(format!(
                "LISTEN_FDS: {} sockets, at most {INHERITED_MAX} are taken",
                named.len()
            ));
        }
        let indices = 0..named.len();
        let socket = |index| named.take_tcp_listener(index).transpose();
        let sockets: Result<Vec<_>, _> = indices.filter_map(socket).collect();
        let started_with = sockets.map_err(|error| format!("LISTEN_FDS: {error}"))?;
        Ok(Self {
            started_with,
            handed: Handed::default(),
        })
    }

    /// Adds the sockets of a daemon that hands over.
    pub(crate) fn add(&mut self, handed: Handed) {
        self.handed = handed;
    }

    /// The socket that listens at `address`, if one was inherited. With port 0, any port of a daemon that
    /// hands over will do.
    pub(crate) fn claim(&mut self, role: Role, address: SocketAddr) -> Option<TcpListener> {
        let listens = |socket: &TcpListener| socket.local_addr().is_ok_and(|it| it == address);
        if let Some(index) = self.started_with.iter().position(listens) {
            return Some(self.started_with.swap_remove(index));
        }
        let socket = TcpListener::from(self.handed.take(role)?);
        let at = socket.local_addr().ok()?;
        let is_it = at.ip() == address.ip() && (address.port() == 0 || at.port() == address.port());
        is_it.then_some(socket)
    }

    /// The socket of edges, if a daemon that hands over listens at this path.
    pub(crate) fn claim_edge(&mut self, path: &Path) -> Option<UnixListener> {
        let is_it = self.handed.edge_path.as_deref() == Some(path);
        let socket = is_it.then(|| self.handed.take(Role::Edge))??;
        let socket = UnixListener::from(socket);
        socket.local_addr().ok().map(|_| socket)
    }

    /// Checks that each socket that the daemon was started with was claimed. One of a daemon that hands over
    /// need not be: it listens no longer, as the configuration says.
    ///
    /// # Errors
    ///
    /// One line that names an address at which nothing would answer: its clients would hang.
    pub(crate) fn all_claimed(&self) -> Result<(), String> {
        match self.started_with.first().map(TcpListener::local_addr) {
            None => Ok(()),
            Some(Ok(address)) => Err(format!(
                "LISTEN_FDS: the socket at {address} is neither --listen nor --admin"
            )),
            Some(Err(error)) => Err(format!("LISTEN_FDS: {error}")),
        }
    }
}

impl Handed {
    fn take(&mut self, role: Role) -> Option<OwnedFd> {
        let index = self.sockets.iter().position(|(it, _)| *it == role)?;
        Some(self.sockets.swap_remove(index).1)
    }
}
