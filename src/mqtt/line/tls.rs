//! TLS for `mqtts://`: rustls with ring. The broker's certificate must be signed by `ca_file` or, without it, by one
//! of the system's authorities, and must name the host of `broker`; there is no way to switch that off.

use super::ClientError;
use crate::mqtt::Access;
use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::rustls::crypto::ring;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rumqttc::tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;

pub(super) fn configuration(access: &Access) -> Result<TlsConfiguration, ClientError> {
    let mut tls = match &access.ca_file {
        Some(path) => with_roots(path)?,
        None => match TlsConfiguration::try_default_rustls() {
            Ok(TlsConfiguration::Rustls(tls)) => Arc::unwrap_or_clone(tls),
            Ok(_) => return Err(ClientError::SystemRoots("not for rustls".into())),
            Err(error) => return Err(ClientError::SystemRoots(error.to_string())),
        },
    };
    if let (Some(certificate), Some(key)) = (&access.client_cert_file, &access.client_key_file) {
        let chain = certificates("client_cert_file", certificate)?;
        let private = PrivateKeyDer::from_pem_slice(&read("client_key_file", key)?)
            .map_err(|error| fault("client_key_file", key, format!("no private key in PEM ({error})")))?;
        let both = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
            let reason = format!("does not go with client_cert_file = {certificate:?} ({error})");
            fault("client_key_file", key, reason)
        })?;
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(both));
    }
    Ok(TlsConfiguration::Rustls(Arc::new(tls)))
}

fn with_roots(path: &Path) -> Result<ClientConfig, ClientError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca_file", path)? {
        roots.add(certificate).map_err(|error| fault("ca_file", path, error.to_string()))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ClientError> {
    let pem = read(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(fault(key, path, "no certificate in PEM (-----BEGIN CERTIFICATE-----)".into())),
        Err(error) => Err(fault(key, path, error.to_string())),
    }
}

pub(super) fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    std::fs::read(path).map_err(|error| fault(key, path, error.to_string()))
}

fn fault(key: &'static str, path: &Path, reason: String) -> ClientError {
    ClientError::File { key, path: path.to_owned(), reason }
}
