//! TLS for `mqtts://`: rustls with ring. The broker's certificate must be signed by `ca_file` or, without it, by one
//! of the system's authorities, and must name the host of `broker`; there is no way to switch that off.
//!
//! What is wrong with a certificate is said in words, with what would be right: most often it is found by somebody who
//! has never seen one from inside.

use super::ClientError;
use super::files::{fault, public, secret};
use crate::mqtt::Access;
use rumqttc::TlsConfiguration;
use rumqttc::tokio_rustls::rustls::crypto::ring;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rumqttc::tokio_rustls::rustls::sign::{CertifiedKey, SingleCertAndKey};
use rumqttc::tokio_rustls::rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, OtherError, RootCertStore,
};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How to speak TLS with one broker.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    ca_file: Option<PathBuf>,
    client_cert_file: Option<PathBuf>,
    host: String,
}

impl Tls {
    pub(super) fn new(access: &Access) -> Result<Self, ClientError> {
        Ok(Self {
            config: Arc::new(configuration(access)?),
            ca_file: access.ca_file.clone(),
            client_cert_file: access.client_cert_file.clone(),
            host: access.broker.host().to_owned(),
        })
    }

    /// Why there is no TLS, or no more: one line.
    pub(super) fn explain(&self, error: &io::Error) -> String {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(fault)) => self.of_broker(fault),
            Some(Error::AlertReceived(alert)) => self.alert(*alert),
            Some(Error::InvalidMessage(_)) => {
                "what answers there does not speak TLS; without TLS it is mqtt://, as a rule on port 1883".into()
            }
            Some(error) => format!("TLS: {error}"),
            None if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                let wants = match self.client_cert_file {
                    None => ", or the broker wants a client certificate",
                    Some(_) => "",
                };
                format!(
                    "the connection was closed during the TLS handshake; perhaps what answers there does not speak TLS{wants}"
                )
            }
            None => error.to_string(),
        }
    }

    /// If TLS is what is wrong with a connection that was already made: in TLS 1.3 the broker looks at a client's certificate
    /// after the client is through.
    pub(super) fn explain_later(&self, error: &io::Error) -> Option<String> {
        let inner = error.get_ref()?.downcast_ref::<Error>()?;
        // An end without close_notify is an end like any other.
        matches!(inner, Error::AlertReceived(_) | Error::InvalidCertificate(_)).then(|| self.explain(error))
    }

    fn of_broker(&self, fault: &CertificateError) -> String {
        let authorities = match &self.ca_file {
            Some(path) => format!("ca_file = {path:?}"),
            None => "this system's certificate authorities".to_owned(),
        };
        match fault {
            CertificateError::ExpiredContext { time, not_after } => format!(
                "the broker's certificate expired at {}; this device's clock says {}. If the clock is right, the broker \
                 needs a new one",
                date(*not_after),
                date(*time)
            ),
            CertificateError::NotValidYetContext { time, not_before } => format!(
                "the broker's certificate is valid from {} on, but this device's clock says {}; if that is wrong, set the \
                 clock",
                date(*not_before),
                date(*time)
            ),
            CertificateError::UnknownIssuer => match self.ca_file {
                Some(_) => format!("the broker's certificate is not signed by {authorities}"),
                None => format!(
                    "the broker's certificate is not signed by any of {authorities}; if the plant has an authority of its \
                     own, name its file in ca_file"
                ),
            },
            CertificateError::BadSignature => format!(
                "the broker's certificate names an authority of {authorities}, but is not signed with its key; perhaps that \
                 is an older authority of the same name"
            ),
            CertificateError::NotValidForNameContext { presented, .. } if presented.is_empty() => format!(
                "the broker's certificate names no host (it has no subjectAltName; a common name does not count), so it is \
                 not one for {:?}",
                self.host
            ),
            CertificateError::NotValidForNameContext { presented, .. } => {
                let names: Vec<_> = presented.iter().map(|name| plain(name)).collect();
                format!("the broker's certificate is for {}, not for {:?}", names.join(", "), self.host)
            }
            CertificateError::InvalidPurposeContext { .. } | CertificateError::InvalidPurpose => {
                "the broker's certificate is not for servers (extendedKeyUsage without serverAuth)".into()
            }
            CertificateError::Other(OtherError(other)) if other.to_string().contains("CaUsedAsEndEntity") => {
                "the broker shows an authority's certificate (CA:TRUE) as its own; it needs one that the authority signed"
                    .into()
            }
            other => format!("the broker's certificate cannot be trusted: {other}"),
        }
    }

    fn alert(&self, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        let what = match alert {
            Alert::CertificateExpired => "expired",
            Alert::CertificateRevoked => "revoked",
            Alert::UnknownCA => "not signed by an authority that it knows",
            Alert::BadCertificate | Alert::CertificateUnknown | Alert::UnsupportedCertificate | Alert::AccessDenied => {
                "not one that it takes"
            }
            Alert::DecryptError => "not signed as it says",
            Alert::CertificateRequired | Alert::HandshakeFailure if self.client_cert_file.is_none() => {
                return "the broker wants a client certificate: add client_cert_file and client_key_file".into();
            }
            Alert::CertificateRequired => "not one that it asked for",
            Alert::ProtocolVersion => return "the broker speaks neither TLS 1.2 nor TLS 1.3".into(),
            Alert::UnrecognisedName => return format!("the broker does not know itself by the name {:?}", self.host),
            other => return format!("the broker ended TLS: {other:?}"),
        };
        match &self.client_cert_file {
            Some(path) => format!("the broker refuses client_cert_file = {path:?}: {what}"),
            None => format!("the broker refuses this client's certificate, which it has not: {what}"),
        }
    }
}

/// `DnsName("a")` as `a`.
fn plain(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    format!("{:?}", inner.trim_matches('"'))
}

fn date(time: UnixTime) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_secs(time.as_secs()));
    time.map_or("a time beyond all clocks".into(), |time| humantime::format_rfc3339_seconds(time).to_string())
}

fn configuration(access: &Access) -> Result<ClientConfig, ClientError> {
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
        let private = PrivateKeyDer::from_pem_slice(&secret("client_key_file", key)?)
            .map_err(|error| fault("client_key_file", key, format!("no private key in PEM ({error})")))?;
        let both = CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
            let reason = format!("does not go with client_cert_file = {certificate:?} ({error})");
            fault("client_key_file", key, reason)
        })?;
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(both));
    }
    Ok(tls)
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
    let pem = public(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(fault(key, path, "no certificate in PEM (-----BEGIN CERTIFICATE-----)".into())),
        Err(error) => Err(fault(key, path, error.to_string())),
    }
}
