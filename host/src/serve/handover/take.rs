//! The new daemon's side: asks for the sockets, says when it answers there, and takes what the old one still
//! stores.

use super::message::{self, Answer, HELLO, RELEASED, REMOVED, STORED, StoredHead, TAKE};
use super::notify;
use crate::cache::{Cache, CacheKey, Folder, InsertError, METADATA_BYTES_MAX, Mark, NewEntry};
use crate::serve::inherited::Handed;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// How long the old daemon may take to offer its sockets: it does so at once, unless it hangs or another
/// daemon is just taking over.
const OFFER_MAX: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 30 });
/// How long a folder may be in use by a process that offers nothing: one that is just starting, or ending.
const ASK_MAX: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 10 });
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// How long opening the folder may take once the old daemon has ended.
const FREE_MAX: Duration = Duration::from_secs(60);
/// A folder that comes is noticed at once, and one that fails after this time.
const LOOK: Duration = Duration::from_millis(250);
/// How long the old daemon may take to give its folder back: it writes 32 MiB at most, and syncs.
const RELEASE_MAX: Duration = Duration::from_secs(60);

/// A daemon that hands over.
#[derive(Debug)]
pub(crate) struct Predecessor {
    stream: UnixStream,
    pid: u32,
}

/// Asks the daemon that has the folder for its sockets. `None` if none has it.
///
/// # Errors
///
/// One line that names the folder: the daemon there refuses, hangs, or hands over to none.
pub(crate) async fn ask(data_dir: &Path) -> Result<Option<(Predecessor, Handed)>, String> {
    let path = super::path_in(data_dir);
    let named = |why: String| format!("--take-over: {}: {why}", path.display());
    let deadline = Instant::now() + ASK_MAX;
    loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                let answer = timeout(OFFER_MAX, said_hello(&stream)).await;
                let hangs =
                    "the daemon there hangs, or another one is taking over; stop one of them";
                let answer = answer.map_err(|_| named(hangs.into()))?;
                match answer.map_err(|error| named(error.to_string()))? {
                    Some(Answer::Offer(offered, sockets)) => {
                        let handed = Handed {
                            sockets: offered.roles.into_iter().zip(sockets).collect(),
                            edge_path: offered.edge_path,
                        };
                        let pid = offered.pid;
                        tracing::info!(pid, "a daemon hands over its sockets");
                        return Ok(Some((Predecessor { stream, pid }, handed)));
                    }
                    Some(Answer::Refused(why)) => {
                        return Err(named(format!("the daemon there refuses: {why}")));
                    }
                    // Another daemon has taken over from it: ask that one.
                    None => {}
                }
            }
            // None is there, or only the file of one that is dead.
            Err(error) if is_absent(&error) => {
                if !Cache::is_folder_in_use(data_dir) {
                    return Ok(None);
                }
            }
            Err(error) => return Err(named(error.to_string())),
        }
        if Instant::now() > deadline {
            let why = "a process has the data folder and hands over to none: it runs without \
                       take_over, or hangs";
            return Err(named(why.into()));
        }
        sleep(ASK_AGAIN).await;
    }
}

fn is_absent(error: &io::Error) -> bool {
    // The last one: no socket has so long a path.
    use io::ErrorKind::{ConnectionRefused, InvalidInput, NotFound};
    matches!(error.kind(), NotFound | ConnectionRefused | InvalidInput)
}

async fn said_hello(stream: &UnixStream) -> io::Result<Option<Answer>> {
    let mut hello = &HELLO[..];
    while !hello.is_empty() {
        stream.writable().await?;
        match stream.try_write(hello) {
            Ok(written) => hello = &hello[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // It closes before it reads: another daemon has taken over.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    message::receive(stream).await
}

impl Predecessor {
    /// Says that this daemon answers, waits for the folder, and takes what the old daemon stores until that
    /// ends.
    pub(crate) async fn take(mut self, cache: Cache) {
        let pid = self.pid;
        let taken = async {
            self.stream.write_u8(TAKE).await?;
            notify::is_main();
            let mut from = BufReader::new(&mut self.stream);
            match timeout(RELEASE_MAX, from.read_u8()).await {
                Ok(Ok(RELEASED)) => cache.folder_is_free(),
                Ok(Ok(_)) => return Err(io::ErrorKind::InvalidData.into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(io::Error::other("it does not give the data folder back")),
            }
            tracing::info!(
                pid,
                "the daemon before this one has given the data folder back"
            );
            inherit(&mut from, &cache).await
        };
        if let Err(error) = taken.await {
            // If it has ended, the folder is free.
            cache.folder_is_free();
            tracing::warn!(pid, %error, "the daemon before this one did not end in order");
        }
        if timeout(FREE_MAX, settled(&cache)).await.is_err() {
            let why = "this daemon answers from memory, and uses the data folder once it is free";
            tracing::warn!(pid, why);
            cache.expects_no_folder();
        }
    }
}

/// Waits until the folder is in use, or comes no sooner than any other disk in trouble.
pub(super) async fn settled(cache: &Cache) {
    while cache.folder() != Folder::Settled {
        let waiting = cache.clone();
        // The end of the process waits for this thread, so not for long.
        let waited = tokio::task::spawn_blocking(move || waiting.wait_for_folder(LOOK));
        // It panics only by a bug of ours.
        let _ = waited.await;
    }
}

/// Takes entries until the old daemon ends.
async fn inherit(from: &mut BufReader<&mut UnixStream>, cache: &Cache) -> io::Result<()> {
    loop {
        match from.read_u8().await {
            Ok(STORED) => take_entry(from, cache).await?,
            Ok(REMOVED) => {
                let mut key = [0; 32];
                from.read_exact(&mut key).await?;
                let cache = cache.clone();
                let remove = move || cache.remove(&CacheKey::from_bytes(key));
                tokio::task::spawn_blocking(remove).await?;
            }
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

async fn take_entry(from: &mut BufReader<&mut UnixStream>, cache: &Cache) -> io::Result<()> {
    let mut head = [0; StoredHead::BYTES];
    from.read_exact(&mut head).await?;
    let head = StoredHead::decode(&head).ok_or(io::ErrorKind::InvalidData)?;
    let (metadata_bytes, payload_bytes) = (
        u64::from(head.metadata_bytes),
        u64::from(head.payload_bytes),
    );
    if metadata_bytes > METADATA_BYTES_MAX as u64 || payload_bytes > cache.entry_bytes_max() {
        // Longer than this configuration keeps.
        let mut rest = from.take(metadata_bytes + payload_bytes);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
        return Ok(());
    }
    let mut metadata = vec![0; head.metadata_bytes as usize];
    let mut payload = vec![0; head.payload_bytes as usize];
    from.read_exact(&mut metadata).await?;
    from.read_exact(&mut payload).await?;
    let cache = cache.clone();
    // It may wait for the disk.
    let stored = tokio::task::spawn_blocking(move || store(&cache, &head, &metadata, &payload));
    if let Err(error) = stored.await? {
        tracing::debug!(%error, "an entry of the daemon before this one is not stored");
    }
    Ok(())
}

fn store(
    cache: &Cache,
    head: &StoredHead,
    metadata: &[u8],
    payload: &[u8],
) -> Result<(), InsertError> {
    let now_ms = head.stored_at_ms;
    let here = cache.peek(&head.key, now_ms);
    if here.is_some_and(|here| here.stored_at_ms() >= now_ms) {
        return Ok(());
    }
    let new = NewEntry {
        key: &head.key,
        tenant: &head.tenant,
        metadata,
        payload,
        now_ms,
        ttl_ms: head.expires_at_ms.map(|at| at.saturating_sub(now_ms)),
    };
    // The old daemon has looked at its own purges. Of this one's, each is newer than the request.
    cache.insert_since(new, Mark::at(0)).map(|_| ())
}
