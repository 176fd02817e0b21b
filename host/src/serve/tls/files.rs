//! The files of TLS: certificates, keys and CAs in PEM.
//!
//! A message names a file and its setting, and shows nothing of what is in it: a key may stand where a
//! certificate belongs.

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All public CAs together have a quarter of a MiB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a file held when it was read.
pub(crate) struct Contents {
    setting: &'static str,
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Contents {
    /// Reads the file that a setting names.
    ///
    /// # Errors
    ///
    /// One line that names both.
    pub(crate) fn read(setting: &'static str, path: &Path) -> Result<Self, String> {
        let mut contents = Self {
            setting,
            path: path.to_owned(),
            bytes: Vec::new(),
        };
        let bytes = &mut contents.bytes;
        let read =
            File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(bytes));
        match read {
            Ok(_) if contents.bytes.len() as u64 > FILE_BYTES_MAX => {
                let why = format!("over the limit of {} MiB", FILE_BYTES_MAX >> 20);
                Err(contents.refused(why))
            }
            Ok(_) => Ok(contents),
            Err(error) => Err(contents.refused(error)),
        }
    }

    fn refused(&self, why: impl fmt::Display) -> String {
        format!("{} {}: {why}", self.setting, self.path.display())
    }

    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.bytes).collect();
        match all {
            Ok(all) if !all.is_empty() => Ok(all),
            _ => Err(self.refused("no certificate in PEM")),
        }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        let why = "no private key in PEM that is not encrypted";
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| self.refused(why))
    }

    /// The certificates as CAs that are trusted.
    ///
    /// # Errors
    ///
    /// One of them is no CA's, or there is none.
    pub(crate) fn add_to(&self, roots: &mut RootCertStore) -> Result<(), String> {
        for certificate in self.certificates()? {
            roots
                .add(certificate)
                .map_err(|_| self.refused("a certificate that cannot be read"))?;
        }
        Ok(())
    }
}

/// A certificate with its chain, and its key.
///
/// # Errors
///
/// One line: a file is no such thing, or the key belongs to another certificate.
pub(crate) fn pair(certificate: &Contents, key: &Contents) -> Result<Arc<CertifiedKey>, String> {
    let chain = certificate.certificates()?;
    let made = CertifiedKey::from_der(chain, key.key()?, &provider());
    made.map(Arc::new).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            let path = certificate.path.display();
            key.refused(format!("not the key of the certificate in {path}"))
        }
        Error::InvalidCertificate(_) => certificate.refused("a certificate that cannot be read"),
        _ => key.refused("a private key that cannot be used"),
    })
}

/// The CAs of the system, or well-known ones if it has none, and those of `more`.
///
/// # Errors
///
/// One line: the file has no CAs.
pub(crate) fn trusted(more: Option<&Contents>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Systems carry certificates that no library reads any more; the others count.
    let (valid, _) = roots.add_parsable_certificates(found.certs);
    if valid == 0 {
        tracing::info!("no system trust store: using the built-in one");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    if let Some(more) = more {
        more.add_to(&mut roots)?;
    }
    Ok(roots)
}

/// The one crypto provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Tells one state of files from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(blake3::Hash);

impl Digest {
    /// Of what was read, in this order.
    pub(crate) fn of<'c>(all: impl IntoIterator<Item = &'c Contents>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for contents in all {
            hasher.update(&(contents.bytes.len() as u64).to_le_bytes());
            hasher.update(&contents.bytes);
        }
        Self(hasher.finalize())
    }

    /// Of files that could not be read.
    pub(crate) fn of_error(message: &str) -> Self {
        Self(blake3::hash(message.as_bytes()))
    }
}
