//! Sockets that outlive the edge which answers at them, handed over as systemd does it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::Command;

use command_fds::{CommandFdExt as _, FdMapping};

/// The first inherited descriptor; sd_listen_fds(3).
const FIRST: i32 = 3;

/// A socket on a free port of this machine.
///
/// # Panics
///
/// If there is none.
pub fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a free port")
}

/// Where it listens.
///
/// # Panics
///
/// If the system does not say.
pub fn address(socket: &TcpListener) -> SocketAddr {
    socket.local_addr().expect("an address")
}

/// Has the program that this command starts inherit these descriptors.
///
/// # Panics
///
/// If there are no descriptors left.
pub fn hand_over(command: &mut Command, descriptors: Vec<OwnedFd>) {
    command
        .env("LISTEN_FDS", descriptors.len().to_string())
        .env_remove("LISTEN_PID");
    let mappings = (FIRST..).zip(descriptors);
    let mapping = |(child_fd, parent_fd)| FdMapping {
        parent_fd,
        child_fd,
    };
    command
        .fd_mappings(mappings.map(mapping).collect())
        .expect("descriptors of different numbers");
}
