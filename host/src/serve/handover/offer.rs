//! The old daemon's side: offers its sockets, and hands the folder over to the one that takes them.

use super::message::{self, HELLO, Offered, RELEASED, REMOVED, STORED, StoredHead, TAKE};
use super::take::settled;
use crate::cache::{Cache, CacheKey, Entry, Heir};
use crate::serve::config::Config;
use crate::serve::edge_api::socket::Socket;
use crate::serve::inherited::Role;
use crate::serve::tls::Tcp;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// Only the daemon's own user.
const MODE: u32 = 0o600;
/// A daemon that connects says hello at once.
const HELLO_MAX: Duration = Duration::from_secs(5);
/// How long the new daemon may prepare, before another one may try. Compiling a component takes a second, and
/// on a busy machine some.
const PREPARE_MAX: Duration = Duration::from_secs(120);
/// After a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
/// How long an entry may wait for the new daemon, which only has to read it. Past it, this and all later
/// ones are lost: they are answers of requests that were under way.
const SEND_MAX: Duration = Duration::from_secs(10);

/// What a daemon has to hand over.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(super) path: PathBuf,
    pub(super) sockets: Vec<(Role, OwnedFd)>,
    pub(super) edge_path: Option<PathBuf>,
}

impl Offer {
    /// The sockets of a daemon. Without descriptors left, it offers nothing, and the log says so.
    pub(crate) fn of(
        config: &Config,
        front: Option<&Tcp>,
        admin: &Tcp,
        edge: Option<&Socket>,
    ) -> Option<Self> {
        let edge = edge.and_then(|edge| Some((edge.listener.as_ref()?, &edge.path)));
        let front = front.map(|front| (Role::Listen, front.listener.as_fd()));
        let sockets = front
            .into_iter()
            .chain([(Role::Admin, admin.listener.as_fd())])
            .chain(edge.map(|(listener, _)| (Role::Edge, listener.as_fd())));
        let sockets: io::Result<_> = sockets
            .map(|(role, socket)| Ok((role, socket.try_clone_to_owned()?)))
            .collect();
        let sockets = sockets.inspect_err(|error| {
            tracing::warn!(%error, "no other daemon can take over from this one");
        });
        Some(Self {
            path: super::path_in(&config.cache.data_dir),
            sockets: sockets.ok()?,
            edge_path: edge.map(|(_, path)| path.clone()),
        })
    }

    /// Waits until another daemon has taken the sockets and answers there. If nothing can be offered, the log
    /// says why, and this never ends.
    async fn taken(self) -> Successor {
        let bound = Socket::bind(&self.path, MODE).and_then(|socket| {
            let uid = std::fs::symlink_metadata(&self.path)?.uid();
            Ok((socket, uid))
        });
        let (mut socket, uid) = match bound {
            Ok(bound) => bound,
            Err(error) => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "no other daemon can take over from this one");
                return std::future::pending().await;
            }
        };
        let Some(listener) = socket.listener.take() else {
            return std::future::pending().await;
        };
        loop {
            let taken = match listener.accept().await {
                Ok((stream, _)) => self.negotiate(stream, uid).await,
                Err(error) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    Err(error)
                }
            };
            match taken {
                Ok(successor) => {
                    // The next daemon binds its own there.
                    socket.leave();
                    return successor;
                }
                Err(error) => tracing::warn!(%error, "no other daemon has taken over"),
            }
        }
    }

    pub(super) async fn negotiate(
        &self,
        mut stream: UnixStream,
        uid: u32,
    ) -> io::Result<Successor> {
        let peer = stream.peer_cred()?.uid();
        if peer != uid {
            let why = format!("it runs as user {peer}, and this daemon as user {uid}");
            message::refuse(&stream, &why).await?;
            return Err(io::Error::other(why));
        }
        let mut hello = [0; HELLO.len()];
        timeout(HELLO_MAX, stream.read_exact(&mut hello)).await??;
        if hello != *HELLO {
            let why =
                "the two releases do not speak the same protocol; stop the running daemon first";
            message::refuse(&stream, why).await?;
            return Err(io::Error::other(why));
        }
        let offered = Offered {
            pid: std::process::id(),
            roles: self.sockets.iter().map(|(role, _)| *role).collect(),
            edge_path: self.edge_path.clone(),
        };
        let sockets: Vec<_> = self.sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
        message::send_offer(&stream, &offered, &sockets).await?;
        match timeout(PREPARE_MAX, stream.read_u8()).await {
            Ok(Ok(TAKE)) => Successor::new(stream),
            Ok(Ok(_)) => Err(io::ErrorKind::InvalidData.into()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(io::Error::other("it ended before it answered"))
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::other("it took too long to prepare")),
        }
    }
}

/// Waits until another daemon has taken what this one offers, if anything.
pub(crate) async fn taken(offer: Option<Offer>, cache: &Cache) -> Successor {
    let Some(offer) = offer else {
        return std::future::pending().await;
    };
    // What this daemon does not have yet, it cannot give.
    settled(cache).await;
    offer.taken().await
}

/// The daemon that has taken the sockets, and gets the folder.
#[derive(Debug)]
pub(crate) struct Successor(Mutex<Option<StdStream>>);

impl Successor {
    fn new(stream: UnixStream) -> io::Result<Self> {
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(SEND_MAX))?;
        Ok(Self(Mutex::new(Some(stream))))
    }

    /// Gives it the data folder. After that, this daemon's cache finds nothing.
    pub(crate) async fn inherits(self, cache: &Cache) {
        let (cache, heir) = (cache.clone(), Arc::new(self));
        match tokio::task::spawn_blocking(move || cache.release(heir)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the store could not be synced"),
            Err(error) => tracing::warn!(%error, "the data folder was not given back"),
        }
    }

    fn send(&self, parts: &[&[u8]]) {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(to) = &mut *stream else {
            return;
        };
        let sent = parts.iter().try_for_each(|part| to.write_all(part));
        if let Err(error) = sent {
            tracing::warn!(%error, "the next daemon takes no entries: those of running requests are lost");
            // Half an entry may be there.
            *stream = None;
        }
    }
}

impl Heir for Successor {
    fn released(&self) {
        self.send(&[&[RELEASED]]);
    }

    fn stores(&self, key: &CacheKey, entry: &Entry) {
        // Lengths that do not fit were never stored.
        if let Some(head) = StoredHead::of(key, entry) {
            let payload = entry.payload();
            self.send(&[&[STORED], &head.encode(), entry.metadata(), &payload]);
        }
    }

    fn removes(&self, key: &CacheKey) {
        self.send(&[&[REMOVED], key.as_bytes()]);
    }
}
