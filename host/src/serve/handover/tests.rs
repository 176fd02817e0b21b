//! Both sides within one process.

use super::message::{self, Answer, HELLO, RELEASED, StoredHead};
use super::offer::{Offer, taken};
use super::take::ask;
use crate::cache::{Cache, CacheKey, CacheOptions, Folder, NewEntry};
use crate::serve::inherited::{Inherited, Role};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

fn options(dir: &Path) -> CacheOptions {
    CacheOptions {
        data_dir: dir.to_owned(),
        disk_bytes_max: 64 << 20,
        entry_bytes_max: 1 << 20,
        ..CacheOptions::default()
    }
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A daemon's folder and its offer.
fn props() -> (TempDir, Cache, Offer, SocketAddr) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(&options(dir.path())).unwrap();
    let (socket, address) = socket();
    let offer = Offer {
        path: super::path_in(dir.path()),
        sockets: vec![(Role::Listen, OwnedFd::from(socket))],
        edge_path: None,
    };
    (dir, cache, offer, address)
}

/// As soon as the offer can be asked for.
async fn connect(path: &Path) -> UnixStream {
    loop {
        match UnixStream::connect(path).await {
            Ok(stream) => return stream,
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn put(cache: &Cache, key: u8, payload: &[u8]) {
    let new = NewEntry {
        key: &CacheKey::from_bytes([key; 32]),
        tenant: &[7; 32],
        metadata: b"head",
        payload,
        now_ms: 1_700_000_000_000,
        ttl_ms: Some(3_600_000),
    };
    cache.insert(new).unwrap();
}

fn payload(cache: &Cache, key: u8) -> Option<Vec<u8>> {
    let found = cache.peek(&CacheKey::from_bytes([key; 32]), 1_700_000_000_000)?;
    assert_eq!((found.metadata(), found.tenant()), (&b"head"[..], [7; 32]));
    assert_eq!(found.expires_at_ms(), Some(1_700_003_600_000));
    Some(found.payload().to_vec())
}

/// With a thread for each side: the old one waits while the new one reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_folder_and_late_entries_go_over() {
    let (dir, old, offer, address) = props();
    put(&old, 1, b"stored before");
    let at_old = old.clone();
    let old_side = tokio::spawn(async move {
        let successor = taken(Some(offer), &at_old).await;
        successor.inherits(&at_old).await;
        // Of requests that were under way.
        put(&at_old, 2, &vec![b'l'; 300_000]);
        at_old.remove(&CacheKey::from_bytes([3; 32]));
        at_old.sync().unwrap();
        drop(at_old);
    });
    drop(connect(&super::path_in(dir.path())).await);
    let (predecessor, handed) = ask(dir.path()).await.unwrap().unwrap();
    let mut inherited = Inherited::default();
    inherited.add(handed);
    let any_port = SocketAddr::new(address.ip(), 0);
    assert!(
        inherited.claim(Role::Admin, any_port).is_none(),
        "of another role"
    );
    let listener = inherited.claim(Role::Listen, any_port).unwrap();
    assert_eq!(listener.local_addr().unwrap(), address);

    let new = Cache::open_after_another(&options(dir.path())).unwrap();
    assert_eq!(new.folder(), Folder::OfAnother);
    put(&new, 3, b"stored meanwhile");
    let taking = tokio::spawn(predecessor.take(new.clone()));
    old_side.await.unwrap();
    // The end of the old process.
    drop(old);
    taking.await.unwrap();
    assert_eq!(new.folder(), Folder::Settled);
    assert_eq!(payload(&new, 1).unwrap(), b"stored before");
    assert_eq!(payload(&new, 2).unwrap(), vec![b'l'; 300_000]);
    assert_eq!(payload(&new, 3), None);
}

#[tokio::test]
async fn whoever_does_not_take_is_forgotten() {
    let (dir, cache, offer, address) = props();
    let path = super::path_in(dir.path());
    let old = cache.clone();
    let old_side = tokio::spawn(async move { taken(Some(offer), &old).await });
    // It says nothing, too little, or something else.
    for said in [&b""[..], b"reflex-edge", b"reflex-edge handover 9\n"] {
        let mut stream = connect(&path).await;
        stream.write_all(said).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer).await;
        assert!(read.is_err() || answer.is_empty() || answer[0] == message::REFUSE);
    }
    // It has the sockets, and says another word.
    for word in [None, Some(RELEASED)] {
        let mut stream = connect(&path).await;
        stream.write_all(HELLO).await.unwrap();
        let answer = message::receive(&stream).await.unwrap().unwrap();
        assert!(matches!(answer, Answer::Offer(offered, sockets)
            if offered.roles == [Role::Listen] && sockets.len() == 1));
        if let Some(word) = word {
            stream.write_u8(word).await.unwrap();
        }
    }
    assert!(!old_side.is_finished());
    let (_predecessor, mut handed) = ask(dir.path()).await.unwrap().unwrap();
    let (_, socket) = handed.sockets.pop().unwrap();
    assert_eq!(TcpListener::from(socket).local_addr().unwrap(), address);
    old_side.abort();
}

#[tokio::test]
async fn another_user_is_refused() {
    let (dir, _cache, offer, _) = props();
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let new = tokio::spawn(async move {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let _ = stream.write_all(HELLO).await;
        message::receive(&stream).await.unwrap().unwrap()
    });
    let (stream, _) = listener.accept().await.unwrap();
    let uid = stream.peer_cred().unwrap().uid();
    let error = offer.negotiate(stream, uid + 1).await.unwrap_err();
    assert!(error.to_string().contains("it runs as user"), "{error}");
    assert!(matches!(new.await.unwrap(), Answer::Refused(why) if why.contains("it runs as user")));
}

#[tokio::test]
async fn a_daemon_that_hangs_is_named() {
    let dir = tempfile::tempdir().unwrap();
    assert!(ask(dir.path()).await.unwrap().is_none(), "none is there");
    let listener = UnixListener::bind(super::path_in(dir.path())).unwrap();
    let error = ask(dir.path()).await.unwrap_err();
    assert!(
        error.contains("hangs") && error.contains("handover"),
        "{error}"
    );
    drop(listener);
    assert!(
        ask(dir.path()).await.unwrap().is_none(),
        "only its file is left"
    );
    let _owner = Cache::open(&options(dir.path())).unwrap();
    let error = ask(dir.path()).await.unwrap_err();
    assert!(error.contains("hands over to none"), "{error}");
    let long = dir.path().join("d".repeat(120));
    assert!(
        ask(&long).await.unwrap().is_none(),
        "no socket can be there"
    );
}

#[test]
fn a_head_is_read_as_it_was_written() {
    for expires_at_ms in [None, Some(0), Some(u64::MAX - 1)] {
        let head = StoredHead {
            key: CacheKey::from_bytes([1; 32]),
            tenant: [2; 32],
            stored_at_ms: 3,
            expires_at_ms,
            metadata_bytes: 4,
            payload_bytes: u32::MAX,
        };
        let bytes: [u8; StoredHead::BYTES] = head.encode().try_into().unwrap();
        assert_eq!(StoredHead::decode(&bytes), Some(head));
    }
}
