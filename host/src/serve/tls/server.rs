//! The TLS of a listener: its certificate, which clients it admits, and their handshakes.

use super::files::{Contents, Digest, pair, provider};
use super::{Side, name};
use crate::clock::Clock;
use crate::serve::config::{Config, TlsFiles};
use crate::serve::metrics::Metrics;
use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig,
    SignatureScheme,
};
use std::fmt;
use std::io;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The TLS of one listener.
pub(crate) struct Tls {
    side: Side,
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    metrics: Arc<Metrics>,
}

/// What a listener's files mean.
pub(crate) struct Loaded {
    config: Arc<ServerConfig>,
    digest: Digest,
    /// In seconds since 1970.
    expiry: Option<u64>,
}

/// The listeners with TLS.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) clients: Option<Arc<Tls>>,
    pub(crate) operators: Option<Arc<Tls>>,
}

impl Listeners {
    /// Reads the files of both listeners.
    ///
    /// # Errors
    ///
    /// All mistakes, one a line.
    pub(crate) fn read(config: &Config) -> Result<[Option<Loaded>; 2], String> {
        let read = |files: &Option<TlsFiles>| files.as_ref().map(Loaded::read).transpose();
        match (read(&config.tls), read(&config.admin_tls)) {
            (Ok(clients), Ok(operators)) => Ok([clients, operators]),
            (Err(one), Err(other)) => Err(format!("{one}\n{other}")),
            (Err(error), _) | (_, Err(error)) => Err(error),
        }
    }

    pub(crate) fn new(
        config: &Config,
        [clients, operators]: [Option<Loaded>; 2],
        metrics: &Arc<Metrics>,
    ) -> Self {
        let tls = |side, files: &Option<TlsFiles>, loaded: Option<Loaded>| {
            let (files, loaded) = files.clone().zip(loaded)?;
            Some(Arc::new(Tls::new(side, files, loaded, Arc::clone(metrics))))
        };
        Self {
            clients: tls(Side::Clients, &config.tls, clients),
            operators: tls(Side::Operators, &config.admin_tls, operators),
        }
    }

    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<Tls>> {
        self.clients.iter().chain(&self.operators)
    }
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One line that names a file and what is wrong with it.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self, String> {
        let all = Files::read(files)?;
        let chain = pair(&all.cert, &all.key)?;
        let expiry = chain.cert.first().and_then(name::expiry);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &all.client_ca {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                ca.add_to(&mut roots)?;
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build();
                let verifier =
                    verifier.map_err(|error| format!("{}: {error}", files.settings.client_ca))?;
                builder.with_client_cert_verifier(match files.names_tenants {
                    true => Arc::new(Named(verifier)),
                    false => verifier,
                })
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(chain)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if all.client_ca.is_some() {
            // A resumed session is not verified again: a certificate would outlive its end.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Self {
            config: config.into(),
            digest: all.digest(),
            expiry,
        })
    }
}

/// What the files of a listener hold.
struct Files {
    cert: Contents,
    key: Contents,
    client_ca: Option<Contents>,
}

impl Files {
    fn read(files: &TlsFiles) -> Result<Self, String> {
        let ca = files.client_ca.as_deref();
        Ok(Self {
            cert: Contents::read(files.settings.cert, &files.cert)?,
            key: Contents::read(files.settings.key, &files.key)?,
            client_ca: ca
                .map(|path| Contents::read(files.settings.client_ca, path))
                .transpose()?,
        })
    }

    fn digest(&self) -> Digest {
        Digest::of([&self.cert, &self.key].into_iter().chain(&self.client_ca))
    }
}

impl Tls {
    fn new(side: Side, files: TlsFiles, loaded: Loaded, metrics: Arc<Metrics>) -> Self {
        let tls = Self {
            side,
            files,
            current: ArcSwap::from_pointee(loaded),
            metrics,
        };
        tls.metrics.tls_begun(side.name());
        tls.told(&tls.current.load());
        tls
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// The state of the files that new connections use.
    pub(crate) fn digest(&self) -> Digest {
        self.current.load().digest
    }

    /// The state of the files now.
    pub(crate) fn digest_now(&self) -> Digest {
        let read = Files::read(&self.files);
        read.map_or_else(|error| Digest::of_error(&error), |files| files.digest())
    }

    /// Reads the files again.
    ///
    /// # Errors
    ///
    /// As [`Loaded::read`].
    pub(crate) fn read_again(&self) -> Result<Loaded, String> {
        Loaded::read(&self.files)
    }

    /// Uses this for connections from now on; whether it is anything new. Sessions of the earlier one
    /// are not resumed.
    pub(crate) fn put(&self, loaded: Loaded) -> bool {
        let is_new = loaded.digest != self.digest();
        if is_new {
            self.told(&loaded);
            self.current.store(Arc::new(loaded));
        }
        is_new
    }

    /// Tells when the certificate expires.
    fn told(&self, loaded: &Loaded) {
        told_expiry(self.side, loaded.expiry, &self.metrics);
    }

    /// Agrees on TLS with a client. Counted, and not logged: any program may connect.
    ///
    /// # Errors
    ///
    /// The client speaks no TLS, or has no certificate that is admitted.
    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<Box<TlsStream<TcpStream>>> {
        let mut handshake = Handshake {
            tls: self,
            outcome: "unfinished",
        };
        let config = Arc::clone(&self.current.load().config);
        let accepted = TlsAcceptor::from(config).accept(stream).await;
        handshake.outcome = match &accepted {
            Ok(_) => "done",
            Err(error) if error.kind() == io::ErrorKind::InvalidData => "refused",
            // The client has closed the connection.
            Err(_) => "unfinished",
        };
        accepted.map(Box::new)
    }
}

/// Says when a certificate expires, as a metric, and once in the log if that time is over.
pub(crate) fn told_expiry(side: Side, expiry: Option<u64>, metrics: &Metrics) {
    metrics.certificate_expires(side.name(), expiry);
    if expiry.is_some_and(|end| end <= Clock::system().now_ms() / 1000) {
        let side = side.name();
        tracing::warn!(side, "the certificate has expired");
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("side", &self.side).finish()
    }
}

/// Counts a handshake, also one that is given up.
struct Handshake<'t> {
    tls: &'t Tls,
    outcome: &'static str,
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        let side = self.tls.side.name();
        self.tls.metrics.tls_handshake(side, self.outcome);
    }
}

/// Admits clients that the verifier admits, if their certificate has a name.
#[derive(Debug)]
struct Named(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(certificate, chain, now)?;
        match name::of(certificate) {
            Some(_) => Ok(verified),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
