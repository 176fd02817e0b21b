//! TLS in front of a provider. Its certificate, for `provider.test`, `localhost` and 127.0.0.1, is
//! signed by a CA of the tests alone: a program that is to trust it gets [`CA`] as `SSL_CERT_FILE`.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::raw::Raw;

/// The file of the CA's certificate.
pub const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tls/ca.pem");

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
    let acceptor = acceptor(protocols);
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
