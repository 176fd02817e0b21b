//! Why a record could not be written.

use super::folder::OpenError;
use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why a record could not be written. The caller goes on without the disk.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// Bytes of reclaimed segments that still have readers. Trying again costs nothing.
    Pinned(u64),
    /// The disk is in trouble. Do not try again at once.
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl StoreError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }

    /// The same of a store that is being opened.
    pub(crate) fn into_open_error(self) -> OpenError {
        match self {
            Self::Pinned(_) => OpenError::Quota(self.to_string()),
            Self::Io {
                doing,
                path,
                source,
            } => OpenError::Io {
                doing,
                path,
                source,
            },
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(bytes) => {
                write!(f, "quota used up: slow readers still hold {bytes} bytes")
            }
            Self::Io {
                doing,
                path,
                source,
            } => write!(f, "cannot {doing} {}: {source}", path.display()),
        }
    }
}

impl From<StoreError> for io::Error {
    fn from(error: StoreError) -> Self {
        let kind = match &error {
            StoreError::Pinned(_) => io::ErrorKind::QuotaExceeded,
            StoreError::Io { source, .. } => source.kind(),
        };
        Self::new(kind, error.to_string())
    }
}
