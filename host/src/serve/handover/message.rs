//! What the two daemons say: the bytes, and nothing else.
//!
//! ```text
//! new: HELLO                         old: OFFER, length (u16), JSON; with it, the sockets (SCM_RIGHTS)
//!                                         or REFUSE, length (u16), text
//! new: TAKE                          old: RELEASED, then any number of
//!                                         STORED, head, metadata, payload   or   REMOVED, key
//! ```
//!
//! Numbers are little-endian. Both ends are of one user, who may read the data folder in any case. Lengths
//! are checked all the same.

use crate::cache::{CacheKey, Entry};
use crate::serve::inherited::Role;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The first bytes of a daemon that wants to take over. Another version of the protocol has another number.
pub(super) const HELLO: &[u8; 23] = b"reflex-edge handover 1\n";

pub(super) const OFFER: u8 = b'O';
pub(super) const REFUSE: u8 = b'N';
pub(super) const TAKE: u8 = b'T';
pub(super) const RELEASED: u8 = b'R';
pub(super) const STORED: u8 = b'S';
pub(super) const REMOVED: u8 = b'D';

/// Sockets of one daemon: of clients, operators and edges.
const SOCKETS_MAX: usize = 3;
/// An offer or a refusal, whose only long part is a path.
const ANSWER_BYTES_MAX: usize = 8 << 10;

/// What an old daemon says of itself. The sockets come in the order of the roles.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offered {
    pub(super) pid: u32,
    pub(super) roles: Vec<Role>,
    pub(super) edge_path: Option<PathBuf>,
}

/// The answer to a hello.
#[derive(Debug)]
pub(super) enum Answer {
    Offer(Offered, Vec<OwnedFd>),
    Refused(String),
}

/// An entry without its metadata and its payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredHead {
    pub(super) key: CacheKey,
    pub(super) tenant: [u8; 32],
    pub(super) stored_at_ms: u64,
    pub(super) expires_at_ms: Option<u64>,
    pub(super) metadata_bytes: u32,
    pub(super) payload_bytes: u32,
}

impl StoredHead {
    pub(super) const BYTES: usize = 32 + 32 + 8 + 8 + 4 + 4;

    pub(super) fn of(key: &CacheKey, entry: &Entry) -> Option<Self> {
        Some(Self {
            key: *key,
            tenant: entry.tenant(),
            stored_at_ms: entry.stored_at_ms(),
            expires_at_ms: entry.expires_at_ms(),
            metadata_bytes: entry.metadata().len().try_into().ok()?,
            payload_bytes: entry.payload_bytes().try_into().ok()?,
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend(self.key.as_bytes());
        bytes.extend(self.tenant);
        bytes.extend(self.stored_at_ms.to_le_bytes());
        bytes.extend(self.expires_at_ms.unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(self.metadata_bytes.to_le_bytes());
        bytes.extend(self.payload_bytes.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (key, rest) = bytes.split_first_chunk()?;
        let (tenant, rest) = rest.split_first_chunk()?;
        let (stored, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let (metadata, rest) = rest.split_first_chunk()?;
        let (payload, _) = rest.split_first_chunk()?;
        Some(Self {
            key: CacheKey::from_bytes(*key),
            tenant: *tenant,
            stored_at_ms: u64::from_le_bytes(*stored),
            expires_at_ms: Some(u64::from_le_bytes(*expires)).filter(|at| *at != u64::MAX),
            metadata_bytes: u32::from_le_bytes(*metadata),
            payload_bytes: u32::from_le_bytes(*payload),
        })
    }
}

/// Sends an offer, and the sockets with it.
pub(super) async fn send_offer(
    stream: &UnixStream,
    offered: &Offered,
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(offered).map_err(io::Error::other)?;
    send(stream, OFFER, &text, sockets).await
}

/// Sends why nothing is offered.
pub(super) async fn refuse(stream: &UnixStream, why: &str) -> io::Result<()> {
    send(stream, REFUSE, why.as_bytes(), &[]).await
}

async fn send(
    stream: &UnixStream,
    word: u8,
    text: &[u8],
    sockets: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = u16::try_from(text.len()).ok();
    let length = length.filter(|length| usize::from(*length) < ANSWER_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("the answer is too long"))?;
    let bytes = [&[word][..], &length.to_le_bytes(), text].concat();
    loop {
        stream.writable().await?;
        let sent = stream.try_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::other("more sockets than a daemon has"));
            }
            let parts = [IoSlice::new(&bytes)];
            Ok(sendmsg(
                stream.as_fd(),
                &parts,
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        });
        match sent {
            Ok(sent) if sent == bytes.len() => return Ok(()),
            // The buffer of a new connection takes it all.
            Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Receives what follows a hello; `None` if the other end closed instead. Nothing comes behind it before the
/// next word from here.
pub(super) async fn receive(stream: &UnixStream) -> io::Result<Option<Answer>> {
    let mut bytes = Vec::new();
    let mut sockets = Vec::new();
    loop {
        if let Some((word, text)) = whole(&bytes) {
            return read(word, text, sockets).map(Some);
        }
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        stream.readable().await?;
        let received = stream.try_io(Interest::READABLE, || some(stream, &mut sockets));
        match received {
            Ok(part) if part.is_empty() && bytes.is_empty() => return Ok(None),
            Ok(part) if part.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(part) => bytes.extend(part),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn some(stream: &UnixStream, sockets: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut bytes = [0; 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(stream.as_fd(), &mut parts, &mut control, flags) {
            Err(Errno::INTR) => {}
            received => break received?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    Ok(bytes[..received.bytes].to_vec())
}

/// The word and the text, once both are there.
fn whole(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (word, rest) = bytes.split_first()?;
    let (length, text) = rest.split_first_chunk()?;
    let text = text.get(..u16::from_le_bytes(*length).into())?;
    Some((*word, text))
}

fn read(word: u8, text: &[u8], sockets: Vec<OwnedFd>) -> io::Result<Answer> {
    match word {
        OFFER => {
            let offered: Offered = serde_json::from_slice(text)?;
            match offered.roles.len() == sockets.len() {
                true => Ok(Answer::Offer(offered, sockets)),
                false => Err(io::Error::other("an offer without its sockets")),
            }
        }
        REFUSE => Ok(Answer::Refused(String::from_utf8_lossy(text).into_owned())),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
