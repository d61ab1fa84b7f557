//! The arguments that all commands on servers have, and the connection made of them.
//!
//!     <pki>/own, private     this tool's certificate, made on first use (opcua::certificate)
//!     <pki>/trusted, issuers, crls    as in the server's: CAs and servers that are trusted everywhere
//!     <pki>/servers          certificates that somebody accepted, each for one host and port (pin.rs)

use super::failure::{Failure, explain};
use super::pin::Pins;
use crate::base::{Clock, duration};
use crate::cli::password;
use crate::opcua::certificate::{Application, OwnCertificate};
use crate::opcua::client::{ConnectError, Connection, Own, Security, Target, Times, User};
use crate::opcua::trust::x509::{self, Cert};
use opcua::client::Password;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(clap::Args)]
pub(in crate::cli) struct Server {
    /// The server: opc.tcp://host:4840, or just host or host:port.
    #[arg(value_name = "URL", value_parser = url)]
    url: String,
    #[command(flatten)]
    options: Options,
}

#[derive(clap::Args)]
#[command(next_help_heading = "Connection")]
struct Options {
    /// Log in with this name; the password is asked for on the terminal.
    #[arg(long, value_name = "NAME", conflicts_with = "user_cert")]
    user: Option<String>,
    /// Take the password from the first line of this file instead; "-" is standard input.
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Log in with this user certificate (DER or PEM).
    #[arg(long, value_name = "FILE", requires = "user_key")]
    user_cert: Option<PathBuf>,
    /// The key of the user certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "user_cert")]
    user_key: Option<PathBuf>,
    /// Security policy: best, Aes256_Sha256_RsaPss, Basic256Sha256, Aes128_Sha256_RsaOaep, None.
    #[arg(long, value_name = "POLICY", default_value = "best")]
    policy: String,
    /// Security mode: best, SignAndEncrypt, Sign, None.
    #[arg(long, value_name = "MODE", default_value = "best")]
    mode: String,
    /// Show this application certificate (DER or PEM) instead of the tool's own.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of the application certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Where the tool keeps its certificate and those of servers. Default: vedette/pki in $XDG_CONFIG_HOME or ~/.config.
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// Accept and remember the server's certificate without being asked, if it has this thumbprint (SHA-1 or SHA-256).
    #[arg(long, value_name = "THUMBPRINT")]
    accept_certificate: Option<String>,
    /// How long to wait for a connection, and for each answer.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration::parse)]
    timeout: Duration,
}

/// How to get a connection, again and again.
pub(in crate::cli) struct Access {
    target: Target,
    pins: Pins,
}

impl Server {
    pub(in crate::cli) fn url(&self) -> &str {
        &self.url
    }

    /// Policy and mode as they were written.
    pub(in crate::cli) fn security(&self) -> (&str, &str) {
        (&self.options.policy, &self.options.mode)
    }

    pub(in crate::cli) fn user_name(&self) -> Option<&str> {
        self.options.user.as_deref()
    }

    /// Asks for the password if there is one to ask for, and makes what is missing in the PKI folder.
    pub(in crate::cli) fn access(&self) -> Result<Access, Failure> {
        let options = &self.options;
        let security = Security::parse(Some(&options.policy), Some(&options.mode)).map_err(Failure::Wrong)?;
        let pki = match &options.pki {
            Some(pki) => pki.clone(),
            None => default_pki()?,
        };
        let user = self.user()?;
        // Without security no certificate is ever shown.
        let own = match security.is_none() {
            true => None,
            false => Some(self.own(&pki)?),
        };
        let times = Times { connect: options.timeout, request: options.timeout, ..Times::default() };
        let session_name = format!("vedette tool ({})", std::process::id());
        let target = Target { url: self.url.clone(), security, user, own, session_name, times };
        Ok(Access { target, pins: Pins::new(pki, options.accept_certificate.clone()) })
    }

    fn user(&self) -> Result<User, Failure> {
        let options = &self.options;
        if let (Some(certificate), Some(key)) = (&options.user_cert, &options.user_key) {
            return Ok(User::Certificate { certificate: certificate.clone(), key: key.clone() });
        }
        let Some(user) = &options.user else { return Ok(User::Anonymous) };
        let password = match &options.password_file {
            Some(file) => password::from_file(file),
            None => password::ask(&format!("Password of {user} at {}: ", self.url), "--password-file"),
        };
        let password = password.map_err(Failure::failed)?;
        Ok(User::Name { user: user.clone(), password: Password::from(password.as_str()) })
    }

    fn own(&self, pki: &Path) -> Result<Own, Failure> {
        let failed = |what: String| Failure::failed(what);
        let scratch = pki.join(".scratch");
        let application_name = "Vedette tool".to_owned();
        if let (Some(certificate), Some(key)) = (&self.options.cert, &self.options.key) {
            let wrong = |what: &dyn std::fmt::Display| failed(format!("{}: {what}", certificate.display()));
            let bytes = std::fs::read(certificate).map_err(|error| wrong(&error))?;
            let blocks = x509::blocks(&bytes, x509::CERTIFICATE).map_err(|error| wrong(&error))?;
            let parsed = blocks.first().map(|der| Cert::from_der(der)).transpose().map_err(|error| wrong(&error))?;
            let uri = parsed.as_ref().and_then(Cert::application_uri);
            let uri = uri.ok_or_else(|| wrong(&"it has no ApplicationUri (SubjectAltName URI)"))?;
            let application_uri = uri.to_owned();
            let (certificate, key) = (certificate.clone(), key.clone());
            return Ok(Own { application_name, application_uri, certificate, key, scratch });
        }
        let application = Application::of_device(&format!("tool-{}", user_name()), None);
        let own = OwnCertificate::open(pki, application, Clock::real().now());
        let own = own.map_err(|error| failed(error.to_string()))?;
        let (certificate, key) = own.files();
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        Ok(Own { application_name, application_uri: own.identity().application_uri.clone(), certificate, key, scratch })
    }
}

impl Access {
    pub(in crate::cli) fn url(&self) -> &str {
        &self.target.url
    }

    pub(in crate::cli) async fn open(&self) -> Result<Connection, Failure> {
        Connection::open(&self.target, &self.pins).await.map_err(|error| Failure::failed(explain(&error)))
    }

    /// After a loss: `Ok(Err)` is worth another try, `Err` is not, because a person has to decide.
    pub(in crate::cli) async fn reopen(&self) -> Result<Result<Connection, String>, Failure> {
        match Connection::open(&self.target, &self.pins.that_never_ask()).await {
            Ok(connection) => Ok(Ok(connection)),
            Err(error @ ConnectError::Untrusted(_)) => Err(Failure::failed(explain(&error))),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// `host`, `host:port`, or the whole.
fn url(text: &str) -> Result<String, String> {
    match text.split_once("://") {
        Some(("opc.tcp", host)) if !host.is_empty() => Ok(text.to_owned()),
        Some((scheme, _)) if scheme != "opc.tcp" => {
            Err(format!("{scheme}:// is not spoken here; write opc.tcp://host:4840"))
        }
        None if !text.is_empty() && !text.starts_with('/') => Ok(format!("opc.tcp://{text}")),
        _ => Err("write opc.tcp://host:4840".into()),
    }
}

/// XDG Base Directory Specification: a folder that is not absolute counts as not set.
fn default_pki() -> Result<PathBuf, Failure> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| folder("HOME").map(|home| home.join(".config")));
    let config = config
        .ok_or_else(|| Failure::Wrong("neither $XDG_CONFIG_HOME nor $HOME is set; name a folder with --pki".into()))?;
    Ok(config.join("vedette/pki"))
}

/// So that the certificates of two users of one machine differ.
fn user_name() -> String {
    std::env::var("USER").ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "somebody".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_be_short() {
        assert_eq!(url("plc").unwrap(), "opc.tcp://plc");
        assert_eq!(url("plc:4841").unwrap(), "opc.tcp://plc:4841");
        assert_eq!(url("opc.tcp://plc/path").unwrap(), "opc.tcp://plc/path");
        for wrong in ["", "http://plc", "opc.tcp://", "/dev/null"] {
            assert!(url(wrong).unwrap_err().contains("opc.tcp://host:4840"), "{wrong}");
        }
    }
}
