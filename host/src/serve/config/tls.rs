//! Certificates: which settings go together.

use super::draft::Draft;
use super::table::Values;
use super::words::TenantFrom;
use std::path::PathBuf;

/// The header in which the daemon itself names a client by its certificate. It is taken out of what
/// clients send, and the provider never gets it.
pub const CLIENT_CERTIFICATE: &str = "x-reflex-client-certificate";

/// The files of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its CA, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
    /// The CAs of clients' certificates. With it, each client needs one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client's certificate names its tenant, and so has to have a name.
    pub names_tenants: bool,
    /// The settings that name the files.
    pub settings: TlsSettings,
}

/// How settings are called, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsSettings {
    /// Of the certificate.
    pub cert: &'static str,
    /// Of the key.
    pub key: &'static str,
    /// Of the CAs of clients.
    pub client_ca: &'static str,
}

const CLIENTS: TlsSettings = TlsSettings {
    cert: "tls_cert",
    key: "tls_key",
    client_ca: "tls_client_ca",
};

const OPERATORS: TlsSettings = TlsSettings {
    cert: "admin_tls_cert",
    key: "admin_tls_key",
    // There is no such setting: operators have a token.
    client_ca: "",
};

/// The files of TLS towards the provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderTlsFiles {
    /// CAs that are trusted beside the system's.
    pub ca: Option<PathBuf>,
    /// The daemon's own certificate and its key.
    pub pair: Option<(PathBuf, PathBuf)>,
}

impl Values {
    /// The header that names the tenant: one of a gateway's, or our own.
    pub(crate) fn tenant_header(&self) -> Option<String> {
        match self.tenant_from.means {
            TenantFrom::ClientCertificate => Some(CLIENT_CERTIFICATE.to_owned()),
            TenantFrom::Credential => self.tenant_header.clone(),
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsFiles> {
        let (cert, key) = self.tls_cert.clone().zip(self.tls_key.clone())?;
        Some(TlsFiles {
            cert,
            key,
            client_ca: self.tls_client_ca.clone(),
            names_tenants: self.tenant_from.means == TenantFrom::ClientCertificate,
            settings: CLIENTS,
        })
    }

    pub(crate) fn admin_tls(&self) -> Option<TlsFiles> {
        let pair = self.admin_tls_cert.clone();
        let (cert, key) = pair.zip(self.admin_tls_key.clone())?;
        Some(TlsFiles {
            cert,
            key,
            client_ca: None,
            names_tenants: false,
            settings: OPERATORS,
        })
    }

    pub(crate) fn provider_tls(&self) -> ProviderTlsFiles {
        let pair = self.upstream_cert.clone();
        ProviderTlsFiles {
            ca: self.upstream_ca.clone(),
            pair: pair.zip(self.upstream_key.clone()),
        }
    }
}

impl Draft {
    /// Certificates have keys, and what needs one of them has it.
    pub(super) fn check_tls(&mut self) {
        let values = self.values.clone();
        let from_certificate = values.tenant_from.means == TenantFrom::ClientCertificate;
        let pairs = [
            ("tls_cert", &values.tls_cert, "tls_key", &values.tls_key),
            (
                "admin_tls_cert",
                &values.admin_tls_cert,
                "admin_tls_key",
                &values.admin_tls_key,
            ),
            (
                "upstream_cert",
                &values.upstream_cert,
                "upstream_key",
                &values.upstream_key,
            ),
        ];
        for (cert, has_cert, key, has_key) in pairs {
            match (has_cert, has_key) {
                (Some(_), None) => self.refuse(cert, format!("{cert} needs {key}")),
                (None, Some(_)) => self.refuse(key, format!("{key} needs {cert}")),
                _ => {}
            }
        }
        if values.tls_client_ca.is_some() && values.tls_cert.is_none() {
            self.refuse("tls_client_ca", "tls_client_ca needs tls_cert".into());
        }
        if from_certificate && values.tls_client_ca.is_none() {
            let why = "`client-certificate` needs tls_client_ca";
            self.refuse("tenant_from", why.into());
        }
        if from_certificate && values.tenant_header.is_some() {
            let why = "tenant_header does not go with tenant_from = \"client-certificate\"";
            self.refuse("tenant_header", why.into());
        }
    }
}
