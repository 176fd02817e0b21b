//! Which program a connection is from, as far as the system tells: for the audit log.

use axum::http::Request;
use hyper::body::Incoming;
use hyper::service::Service;
use std::fmt;
use std::net::IpAddr;
use std::pin::Pin;
use tokio::net::{TcpStream, UnixStream};

/// The other end of a connection. An extension of each request of operators and edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// From this address.
    Tcp(IpAddr),
    /// A process of this user.
    Unix { uid: u32 },
    /// The system does not tell.
    Unknown,
}

impl Peer {
    pub(crate) fn of_tcp(stream: &TcpStream) -> Self {
        stream
            .peer_addr()
            .map_or(Self::Unknown, |address| Self::Tcp(address.ip()))
    }

    pub(crate) fn of_unix(stream: &UnixStream) -> Self {
        let uid = |peer: tokio::net::unix::UCred| Self::Unix { uid: peer.uid() };
        stream.peer_cred().map_or(Self::Unknown, uid)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix { uid } => write!(f, "uid {uid}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A service whose requests know their connection's peer. Its futures are boxed, because those of routers cannot
/// be moved.
#[derive(Clone, Debug)]
pub(crate) struct FromPeer<S> {
    pub(crate) service: S,
    pub(crate) peer: Peer,
}

impl<S: Service<Request<Incoming>>> Service<Request<Incoming>> for FromPeer<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<S::Future>>;

    fn call(&self, mut request: Request<Incoming>) -> Pin<Box<S::Future>> {
        request.extensions_mut().insert(self.peer);
        Box::pin(self.service.call(request))
    }
}
