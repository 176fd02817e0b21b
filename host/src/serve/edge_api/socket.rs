//! The Unix socket that edges connect to: its permissions, and replacing one that was left behind.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::net::UnixListener;

/// A bound socket. Its file is removed when this is dropped, unless another process has it.
#[derive(Debug)]
pub(crate) struct Socket {
    /// The listener; taken once.
    pub(crate) listener: Option<UnixListener>,
    pub(crate) path: PathBuf,
    /// Which file is ours: by the time of our end, another process may have taken the name.
    file: FileId,
    /// Whether the file goes with this process.
    is_ours: AtomicBool,
}

/// The device and the inode of a file.
type FileId = (u64, u64);

impl Socket {
    /// Binds a socket whose `mode` says which users can connect.
    ///
    /// # Errors
    ///
    /// Another process listens there, the name belongs to a file that is no socket, or the system
    /// refuses. The existing file is left as it was.
    pub(crate) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
        make_way(path)?;
        // Bound under another name, so that no client can connect before the mode is set. The
        // rename also replaces a socket that a killed process has left.
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let bound = UnixListener::bind(&draft).and_then(|listener| {
            fs::set_permissions(&draft, fs::Permissions::from_mode(mode))?;
            let file = file_id(&draft)?;
            fs::rename(&draft, path)?;
            Ok((listener, file))
        });
        if bound.is_err() {
            // It may not even be there.
            let _ = fs::remove_file(&draft);
        }
        let (listener, file) = bound?;
        Ok(Self {
            listener: Some(listener),
            path: path.to_owned(),
            file,
            is_ours: AtomicBool::new(true),
        })
    }

    /// A socket that another process has bound, and has handed over. Its file stays until this one
    /// [owns](Self::own) it.
    ///
    /// # Errors
    ///
    /// The file is gone, or the system refuses.
    pub(crate) fn adopt(listener: StdListener, path: &Path, mode: u32) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(Self {
            listener: Some(listener),
            path: path.to_owned(),
            file: file_id(path)?,
            is_ours: AtomicBool::new(false),
        })
    }

    /// The file is this process's, which removes it at its end.
    pub(crate) fn own(&self) {
        self.is_ours.store(true, Relaxed);
    }

    /// The file is another process's from now on.
    pub(crate) fn leave(&self) {
        self.is_ours.store(false, Relaxed);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.is_ours.load(Relaxed) {
            return;
        }
        let is_ours = file_id(&self.path).is_ok_and(|file| file == self.file);
        let removed = is_ours.then(|| fs::remove_file(&self.path));
        if !matches!(removed, Some(Ok(()))) {
            tracing::debug!("the socket was gone already");
        }
    }
}

fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Checks that the name is free, or that of a socket without a listener.
fn make_way(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("the path is a file that is not a socket"));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there",
        )),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_and_gone_at_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("edge.sock");
        let socket = Socket::bind(&path, 0o600).expect("bound");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = Socket::bind(&path, 0o600).expect_err("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
        let left = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("edge.sock");
        // The standard library's listener leaves its file behind.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists());
        drop(Socket::bind(&path, 0o600).expect("replaced"));
        fs::write(&path, "mine").expect("a file");
        assert!(Socket::bind(&path, 0o600).is_err());
        assert_eq!(fs::read_to_string(&path).expect("still there"), "mine");
    }
}
