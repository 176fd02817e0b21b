//! Listening sockets that the daemon was started with: socket activation, as systemd does it
//! (`LISTEN_FDS`, `LISTEN_PID`; sd_listen_fds(3)).
//!
//! The parent keeps the sockets open, so clients that connect while no daemon runs wait in the
//! socket's backlog instead of being refused: a restart fails no new connection.

use listenfd::ListenFd;
use std::net::{SocketAddr, TcpListener};

/// Upper bound of inherited sockets. The daemon listens at two TCP addresses.
pub const INHERITED_MAX: usize = 8;

/// The inherited sockets that no address has claimed yet.
#[derive(Debug, Default)]
pub struct Inherited(Vec<TcpListener>);

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
        sockets
            .map(Self)
            .map_err(|error| format!("LISTEN_FDS: {error}"))
    }

    /// The socket that listens at `address`, if one was inherited.
    pub(crate) fn claim(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let listens = |socket: &TcpListener| socket.local_addr().is_ok_and(|it| it == address);
        let index = self.0.iter().position(listens)?;
        Some(self.0.swap_remove(index))
    }

    /// Checks that each socket was claimed.
    ///
    /// # Errors
    ///
    /// One line that names an address at which nothing would answer: its clients would hang.
    pub(crate) fn all_claimed(&self) -> Result<(), String> {
        match self.0.first().map(TcpListener::local_addr) {
            None => Ok(()),
            Some(Ok(address)) => Err(format!(
                "LISTEN_FDS: the socket at {address} is neither --listen nor --admin"
            )),
            Some(Err(error)) => Err(format!("LISTEN_FDS: {error}")),
        }
    }
}
