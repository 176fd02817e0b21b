//! TLS on both sides: a client of a daemon, and TLS in front of a provider. The provider's certificate, for `provider.test`, `localhost` and 127.0.0.1, is
//! signed by a CA of the tests alone: a program that is to trust it gets [`CA`] as `SSL_CERT_FILE`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client};

use crate::raw::Raw;
use crate::within;

/// The file of the CA's certificate.
pub const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tls/ca.pem");

/// The files of a certificate and its key.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    /// That of the provider, which [`CA`] has signed.
    pub fn of_provider() -> Self {
        let file = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join("tls").join(name);
        Self {
            cert: file("cert.pem"),
            key: file("key.pem"),
        }
    }

    fn read(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        let key = PrivateKeyDer::from_pem_file(&self.key).expect("a key in PEM");
        (certificates(&self.cert), key)
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let all = CertificateDer::pem_file_iter(file).expect("a file");
    all.map(|one| one.expect("a certificate in PEM")).collect()
}

fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca) {
        roots.add(certificate).expect("a CA");
    }
    roots
}

/// A client that trusts this CA, shows this certificate, and offers these protocols, such as `h2`.
///
/// # Panics
///
/// If a file is no such thing.
pub fn trusting(ca: Option<&Path>, own: Option<&Pair>, protocols: &[&str]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(ca.map_or_else(RootCertStore::empty, roots));
    let mut config = match own.map(Pair::read) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a pair"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}

/// A connection to the server at `https://ADDRESS`.
///
/// # Errors
///
/// The server speaks no TLS, has another certificate, or closes the connection.
///
/// # Panics
///
/// If it does not answer.
pub async fn connect(
    url: &str,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let address = url.trim_start_matches("https://");
    let address: SocketAddr = address.parse().expect("an address");
    connect_on(TcpStream::connect(address).await?, config).await
}

/// The same on a connection that is there.
///
/// # Errors
///
/// As [`connect`].
///
/// # Panics
///
/// As [`connect`].
pub async fn connect_on(
    stream: TcpStream,
    config: ClientConfig,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let name = ServerName::IpAddress(stream.peer_addr()?.ip().into());
    let connector = TlsConnector::from(Arc::new(config));
    within("a handshake", connector.connect(name, stream)).await
}

/// Takes TLS off connections of clients with a certificate that this CA has signed.
///
/// # Panics
///
/// If a file is no such thing.
pub fn acceptor_for(clients: &Path, protocols: &[&str]) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(roots(clients));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let (chain, key) = Pair::of_provider().read();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_client_cert_verifier(verifier.build().expect("a CA"))
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}

/// Takes TLS off connections, and offers these protocols, such as `h2`.
///
/// # Panics
///
/// If the certificate of the tests is not one.
pub fn acceptor(protocols: &[&str]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/cert.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/key.pem"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.expect("PEM")], key.expect("PEM"))
        .expect("a certificate and its key");
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}

/// A listener that speaks TLS and hands on what is inside to `provider`.
pub async fn in_front_of(provider: SocketAddr, protocols: &[&str]) -> Raw {
    accepting(provider, acceptor(protocols)).await
}

/// The same with an acceptor.
pub async fn accepting(provider: SocketAddr, acceptor: TlsAcceptor) -> Raw {
    Raw::start(move |_, stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut inside) = accept(&acceptor, stream).await else {
                return;
            };
            if let Ok(mut provider) = TcpStream::connect(provider).await {
                let _ = copy_bidirectional(&mut inside, &mut provider).await;
            }
        }
    })
    .await
}

async fn accept(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    acceptor.accept(stream).await
}
