//! Whom the uploader trusts, and what a failed handshake means.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, RootCertStore};

use super::url::Url;

/// Where Linux distributions (and others) keep the certificates of the authorities that they trust.
const USUAL_FILES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const USUAL_FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// Files and folders in PEM, as `init()` was told.
#[derive(Clone, Default)]
pub struct Trust {
    /// If given, nothing else is trusted.
    pub ca_file: Option<String>,
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR` (folders, separated by colons): if either is given, the usual places are not read.
    pub system_file: Option<String>,
    pub system_folders: Option<String>,
    /// A chain of certificates for the server to know us by, and its key.
    pub client_certificate: Option<String>,
    pub client_key: Option<String>,
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// What can be read of a folder: other files may lie there, too.
fn certificates_in(folder: &Path) -> Vec<CertificateDer<'static>> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| certificates_of(&entry.path()).unwrap_or_default())
        .collect()
}

impl Trust {
    fn roots(&self) -> Result<RootCertStore, String> {
        let mut certificates = Vec::new();
        let whence = if let Some(file) = &self.ca_file {
            certificates.extend(certificates_of(Path::new(file))?);
            file.clone()
        } else if self.system_file.is_some() || self.system_folders.is_some() {
            if let Some(file) = &self.system_file {
                certificates.extend(certificates_of(Path::new(file))?);
            }
            for folder in self.system_folders.iter().flat_map(|folders| folders.split(':')) {
                certificates.extend(certificates_in(Path::new(folder)));
            }
            "SSL_CERT_FILE and SSL_CERT_DIR".to_owned()
        } else {
            let files = USUAL_FILES
                .iter()
                .map(|file| certificates_of(Path::new(file)).unwrap_or_default());
            let folders = USUAL_FOLDERS.iter().map(|folder| certificates_in(Path::new(folder)));
            certificates = files.chain(folders).find(|found| !found.is_empty()).unwrap_or_default();
            "the usual places of the system".to_owned()
        };
        let mut roots = RootCertStore::empty();
        let (known, _) = roots.add_parsable_certificates(certificates);
        if known == 0 {
            return Err(format!("no certificate of an authority in {whence}"));
        }
        Ok(roots)
    }

    /// What connections are made with. Reads files, and has the library make what it makes at first use: to be called with
    /// the GIL, before the uploader's threads, or a fork in the middle of it would leave the child waiting for ever.
    /// Holds no lock: forked children share it.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.client_certificate {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let chain = certificates_of(Path::new(file))?;
                let key_file = self.client_key.as_ref().unwrap_or(file);
                let key = PrivateKeyDer::from_pem_file(key_file)
                    .map_err(|error| format!("client key {key_file}: {error} (encrypted keys can't be read)"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("client certificate {file}: {error}"))?
            }
        };
        config.resumption = Resumption::disabled(); // its cache has a lock; connections are kept, anyway
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let name = ServerName::try_from("warm.up").map_err(|error| error.to_string())?;
        ClientConnection::new(Arc::clone(&config), name).map_err(|error| error.to_string())?;
        Ok(config)
    }
}

/// What TLS, not the socket, found wrong.
pub fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What went wrong with the connection, for people.
pub fn explained(error: &io::Error, server: &Url) -> String {
    let Some(tls) = tls_error(error) else {
        return error.to_string();
    };
    let host = &server.host;
    match tls {
        Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => format!(
            "the certificate of {host} is not trusted: nobody known issued it (name the authority with ca_file= or MICROMEGAS_CA_FILE)"
        ),
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("the certificate is not one of {host} but of another name"),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            format!("the certificate of {host} has expired")
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            format!("the certificate of {host} is not valid yet")
        }
        Error::InvalidMessage(_) => format!("{} does not speak TLS (is it a port for http://?)", server.place()),
        Error::AlertReceived(alert) => format!("{} ended the TLS handshake: {alert:?}", server.place()),
        other => format!("TLS with {}: {other}", server.place()),
    }
}
