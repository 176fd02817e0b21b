//! The sockets at which `run`'s clients and operators connect. They belong to us and are lent to the
//! daemon, so that clients wait instead of being refused while one daemon takes over from another.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};

/// The first descriptor that a program takes over; sd_listen_fds(3).
const FIRST: i32 = 3;

pub(crate) struct Sockets {
    clients: TcpListener,
    admin: TcpListener,
}

impl Sockets {
    /// Listens at both addresses.
    ///
    /// # Errors
    ///
    /// An address is taken or not of this machine; the text names the flag.
    pub(crate) fn listen(clients: SocketAddr, admin: SocketAddr) -> Result<Self> {
        Ok(Self {
            clients: listen("--listen", clients)?,
            admin: listen("--admin", admin)?,
        })
    }

    /// Has the daemon that this command starts answer at both addresses.
    ///
    /// # Errors
    ///
    /// The sockets cannot be duplicated: there are no descriptors left.
    pub(crate) fn lend(&self, serve: &mut Command) -> Result<()> {
        let mut descriptors = Vec::new();
        for (flag, socket) in [("--listen", &self.clients), ("--admin", &self.admin)] {
            let address = socket.local_addr()?.to_string();
            serve.args([flag, &address]);
            descriptors.push(OwnedFd::from(socket.try_clone()?));
        }
        serve
            .env("LISTEN_FDS", descriptors.len().to_string())
            // Of systemd, if it started us: it is not the daemon's.
            .env_remove("LISTEN_PID");
        let mappings = (FIRST..)
            .zip(descriptors)
            .map(|(child_fd, parent_fd)| FdMapping {
                parent_fd,
                child_fd,
            });
        serve
            .fd_mappings(mappings.collect())
            .context("sockets cannot be handed to the daemon")?;
        Ok(())
    }
}

/// A socket that listens at this address, its port resolved.
pub(crate) fn listen(flag: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .with_context(|| format!("{address} cannot be listened on; pass {flag} with another one"))
}
