//! TLS towards the provider: which CAs it trusts, and the daemon's own certificate.

use crate::serve::config::{Provider, ProviderTlsFiles};
use crate::serve::tls::{Contents, Digest, name, pair, provider, trusted};
use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;
use std::path::Path;
use std::sync::Arc;

/// Settings of TLS, by the protocols offered to the peer.
pub(crate) struct ProviderTls {
    pub(super) any: Arc<ClientConfig>,
    pub(super) http1: Arc<ClientConfig>,
    /// For a proxy on the way, which learns nothing of the daemon's own certificate.
    pub(super) proxy: Arc<ClientConfig>,
    digest: Digest,
    /// Of the daemon's own certificate, in seconds since 1970.
    pub(crate) expiry: Option<u64>,
}

/// What the files hold.
struct Files {
    ca: Option<Contents>,
    pair: Option<(Contents, Contents)>,
}

impl Files {
    fn read(files: &ProviderTlsFiles) -> Result<Self, String> {
        let of = |setting, path: &Path| Contents::read(setting, path);
        let ca = files.ca.as_deref().map(|path| of("upstream_ca", path));
        let pair = files.pair.as_ref();
        let pair = pair.map(|(cert, key)| {
            let cert = of("upstream_cert", cert)?;
            Ok::<_, String>((cert, of("upstream_key", key)?))
        });
        Ok(Self {
            ca: ca.transpose()?,
            pair: pair.transpose()?,
        })
    }

    fn digest(&self) -> Digest {
        let pair = self.pair.iter().flat_map(|(cert, key)| [cert, key]);
        Digest::of(self.ca.iter().chain(pair))
    }
}

impl ProviderTls {
    /// Reads the files of all providers, the same ones once.
    ///
    /// # Errors
    ///
    /// All mistakes, one a line.
    pub(crate) fn read_all(providers: &[Provider]) -> Result<Vec<Arc<Self>>, String> {
        let mut read: Vec<(&ProviderTlsFiles, Result<Arc<Self>, String>)> = Vec::new();
        for Provider { tls: files, .. } in providers {
            let known = read.iter().find(|(known, _)| *known == files);
            let tls = match known {
                Some((_, tls)) => tls.clone(),
                None => Self::read(files).map(Arc::new),
            };
            read.push((files, tls));
        }
        let mut errors: Vec<String> = Vec::new();
        let mut all = Vec::new();
        for (_, tls) in read {
            match tls {
                Ok(tls) => all.push(tls),
                Err(error) if errors.contains(&error) => {}
                Err(error) => errors.push(error),
            }
        }
        match errors.is_empty() {
            true => Ok(all),
            false => Err(errors.join("\n")),
        }
    }

    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One line that names a file and what is wrong with it.
    pub(crate) fn read(files: &ProviderTlsFiles) -> Result<Self, String> {
        let files = Files::read(files)?;
        let own = files.pair.as_ref().map(|(cert, key)| pair(cert, key));
        let own = own.transpose()?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(trusted(files.ca.as_ref())?);
        let mut proxy = builder.with_no_client_auth();
        proxy.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http1 = proxy.clone();
        let expiry = own.as_ref().and_then(|own| name::expiry(own.cert.first()?));
        if let Some(own) = own {
            http1.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(own));
        }
        let mut any = http1.clone();
        any.alpn_protocols.insert(0, b"h2".to_vec());
        Ok(Self {
            any: any.into(),
            http1: http1.into(),
            proxy: proxy.into(),
            digest: files.digest(),
            expiry,
        })
    }

    /// The state of the files that new connections use.
    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    /// The state of the files now.
    pub(crate) fn digest_now(files: &ProviderTlsFiles) -> Digest {
        let read = Files::read(files);
        read.map_or_else(|error| Digest::of_error(&error), |files| files.digest())
    }
}
