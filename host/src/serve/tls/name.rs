//! What is read of a certificate: the name that a client has by it, and when it expires.

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Any, Decode as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// `commonName` of X.520.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The name: the first URI among the alternative names, such as a SPIFFE ID; else the first DNS name
/// there; else the first common name. It begins with its kind, so that no kind can pose as another. None
/// if the certificate has none of them, or one that no header could hold.
pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<HeaderValue> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let text = match alternative(&certificate)? {
        Some(name) => name,
        None => common(&certificate)?,
    };
    HeaderValue::from_bytes(text.as_bytes()).ok()
}

/// A URI or a DNS name. The outer option is none if the certificate is broken.
fn alternative(certificate: &Certificate) -> Option<Option<String>> {
    let found = certificate.tbs_certificate.get::<SubjectAltName>().ok()?;
    let names = found.map(|(_, names)| names.0).unwrap_or_default();
    let is_named = |name: &&str| !name.trim().is_empty();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()).filter(is_named),
        _ => None,
    });
    let mut hosts = names.iter().filter_map(|name| match name {
        GeneralName::DnsName(host) => Some(host.as_str()).filter(is_named),
        _ => None,
    });
    Some(match (uris.next(), hosts.next()) {
        (Some(uri), _) => Some(format!("uri:{uri}")),
        (None, Some(host)) => Some(format!("dns:{}", host.to_ascii_lowercase())),
        (None, None) => None,
    })
}

fn common(certificate: &Certificate) -> Option<String> {
    let parts = &certificate.tbs_certificate.subject.0;
    let mut all = parts.iter().flat_map(|part| part.0.iter());
    let found = all.find(|part| part.oid == COMMON_NAME)?;
    let name = text(&found.value)?;
    (!name.trim().is_empty()).then(|| format!("cn:{name}"))
}

fn text(value: &Any) -> Option<&str> {
    let utf8 = value.decode_as::<Utf8StringRef<'_>>().map(|it| it.as_str());
    let printable = || {
        let text = value.decode_as::<PrintableStringRef<'_>>();
        text.map(|it| it.as_str())
    };
    let ascii = || value.decode_as::<Ia5StringRef<'_>>().map(|it| it.as_str());
    utf8.or_else(|_| printable()).or_else(|_| ascii()).ok()
}

/// When a certificate expires, in seconds since 1970.
pub(crate) fn expiry(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let end = certificate.tbs_certificate.validity.not_after;
    Some(end.to_unix_duration().as_secs())
}
