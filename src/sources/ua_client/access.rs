//! Where to connect, as whom, and whom to believe: made of the configuration before each attempt, because files change.

use super::Place;
use super::config::{Config, Secret};
use crate::base::Clock;
use crate::opcua::certificate::{Application, OwnCertificate};
use crate::opcua::client::{ConnectError, Own, Pinned, ServerTrust, Target, Times, User};
use crate::opcua::trust::{PKI, Rules, TrustList};
use ::opcua::crypto::X509;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kept from one attempt to the next.
#[derive(Default)]
pub(super) struct Access {
    own: Option<OwnCertificate>,
    trust: Option<TrustList>,
}

/// Below the PKI folder: what the UA crate notes for itself.
const SCRATCH: &str = ".servers";

impl Access {
    pub(super) async fn target(
        &mut self,
        config: &Config,
        place: &Place,
    ) -> Result<(Target, Arc<dyn ServerTrust>), ConnectError> {
        let pki = place.data_dir.join(PKI);
        let security = config.security().expect("the configuration was checked");
        let own = if security.is_none() { None } else { Some(self.own(config, &pki, &place.device_name).await?) };
        let trust: Arc<dyn ServerTrust> = match &config.server_certificate {
            Some(file) => Arc::new(Pinned(certificate(file)?)),
            None => Arc::new(self.trust(&pki)?),
        };
        let target = Target {
            url: config.url.clone(),
            security,
            user: user(config)?,
            own,
            session_name: format!("{}: {}", place.device_name, config.name),
            times: Times { silence: config.silence, ..Times::default() },
        };
        Ok((target, trust))
    }

    async fn own(&mut self, config: &Config, pki: &Path, device_name: &str) -> Result<Own, ConnectError> {
        let unusable =
            |path: &Path, reason: String| ConnectError::File { path: path.into(), what: "our own certificate", reason };
        let now = Clock::real().now();
        let own = match &mut self.own {
            Some(own) => {
                // A broken one is said by the UA server; the one from before holds.
                own.look(now);
                own
            }
            slot => {
                let (folder, device_name) = (pki.to_owned(), device_name.to_owned());
                // The making of a key takes seconds on a small device.
                let opened = tokio::task::spawn_blocking(move || {
                    OwnCertificate::open(&folder, Application::of_device(&device_name, None), now)
                });
                let opened = opened.await.map_err(|error| unusable(pki, error.to_string()))?;
                slot.insert(opened.map_err(|error| unusable(pki, error.to_string()))?)
            }
        };
        let (certificate, key) = own.files();
        Ok(Own {
            application_name: device_name.to_owned(),
            application_uri: own.identity().application_uri.clone(),
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            scratch: pki.join(SCRATCH).join(config.name.replace('/', "_")),
        })
    }

    fn trust(&mut self, pki: &Path) -> Result<TrustList, ConnectError> {
        if let Some(trust) = &self.trust {
            return Ok(trust.clone());
        }
        let rules = Rules { of_servers: true, ..Rules::default() };
        let trust = TrustList::open(pki, rules).map_err(|error| ConnectError::File {
            path: pki.into(),
            what: "the trust list",
            reason: error.to_string(),
        })?;
        Ok(self.trust.insert(trust).clone())
    }
}

fn user(config: &Config) -> Result<User, ConnectError> {
    let password = |Secret(password): Secret| password.into();
    Ok(match (&config.user, &config.password, &config.password_file, &config.user_certificate, &config.user_key) {
        (Some(user), Some(secret), ..) => User::Name { user: user.clone(), password: password(secret.clone()) },
        (Some(user), None, Some(file), ..) => {
            let read = std::fs::read_to_string(file).map_err(|error| ConnectError::File {
                path: file.clone(),
                what: "the password",
                reason: error.to_string(),
            })?;
            let first = read.lines().next().unwrap_or_default();
            User::Name { user: user.clone(), password: password(Secret(first.to_owned())) }
        }
        (.., Some(certificate), Some(key)) => User::Certificate { certificate: certificate.clone(), key: key.clone() },
        _ => User::Anonymous,
    })
}

/// DER of a file that may be PEM.
fn certificate(file: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    let wrong = |reason: String| ConnectError::File { path: file.clone(), what: "the server's certificate", reason };
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    let x509 = X509::from_der(&bytes).or_else(|_| X509::from_pem(&bytes));
    let der = x509.ok().and_then(|x509| x509.to_der().ok());
    der.ok_or_else(|| wrong("it is no certificate (X.509, as DER or PEM)".into()))
}
