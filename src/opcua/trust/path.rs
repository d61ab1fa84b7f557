//! The rules: whether the certificate of an application is trusted, now.
//!
//! The steps are those of OPC 10000-4, 6.1.3 (table "Certificate validation steps"): structure, chain, signature, security
//! policy, trust, validity, use, revocation. A failure up to and with trust is told to the client only as
//! BadSecurityChecksFailed, so that a stranger learns nothing about the trust list.
//!
//!     the certificate itself is in trusted/     trusted; who issued it need not be known, but if it is, its list counts
//!     a CA above it is in trusted/              trusted; CAs between them may be in issuers/ or come with the client
//!     else                                      not trusted
//!
//! The chain ends at the first trusted CA: whoever trusts an intermediate one need not have its root.

use super::signature::Scheme;
use super::x509::{Cert, Crl, printable};
use crate::model::{Status, Timestamp};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What is in the folders.
#[derive(Clone, Default)]
pub struct Known {
    pub trusted: Vec<Arc<Cert>>,
    pub issuers: Vec<Arc<Cert>>,
    pub crls: Vec<Arc<Crl>>,
}

/// What the configuration decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rules {
    /// Refuse when the list of a CA in the chain is missing or out of date.
    pub require_crls: bool,
    /// It is servers that are judged, by us as their client.
    pub of_servers: bool,
}

/// Trusted, and what to remember about it.
#[derive(Debug)]
pub struct Verdict {
    /// The first moment at which a certificate in the chain expires.
    pub until: SystemTime,
    /// CAs of the chain without a current list.
    pub unlisted: Vec<String>,
}

/// Why an application is refused. What is said in an order of importance: the first failed step.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Reason {
    #[error("its certificate cannot be read: {0}")]
    Malformed(String),
    #[error("it sent more than {MAX_CHAIN} certificates")]
    TooMany,
    #[error("its key is not RSA")]
    NotRsa,
    #[error("its key has {0} bits, and 2048 to 4096 are allowed")]
    KeySize(usize),
    #[error("the certificate {subject} is signed with {algorithm}; SHA-256 or better is needed")]
    Algorithm { subject: String, algorithm: String },
    #[error("its certificate is not trusted")]
    Untrusted,
    #[error("the CA that issued it is not known here: {issuer}")]
    NoIssuer { issuer: String },
    #[error("the CA that issued it is not trusted: {issuer}")]
    UntrustedIssuer { issuer: String },
    #[error("its signature is not by the CA that it names: {issuer}")]
    Signature { issuer: String },
    #[error("{subject} expired at {until}")]
    Expired { subject: String, until: String, is_issuer: bool },
    #[error("{subject} is valid from {from}, and this device's clock says {now}: is that right?")]
    NotYetValid { subject: String, from: String, now: String, is_issuer: bool },
    #[error("its certificate names no ApplicationUri in its SubjectAltName")]
    NoUri,
    #[error("its certificate is not for signing messages (KeyUsage digitalSignature)")]
    Usage,
    #[error("its certificate is not for {0}")]
    ExtendedUsage(&'static str),
    #[error("{subject} may not issue certificates (BasicConstraints cA, KeyUsage keyCertSign)")]
    NoAuthority { subject: String },
    #[error("{subject} allows at most {allowed} CAs below it")]
    PathLength { subject: String, allowed: usize },
    #[error("{issuer} has no current revocation list in crls/, and require_crls is set")]
    Unlisted { issuer: String, is_issuer: bool },
    #[error("{subject} was revoked by {issuer}")]
    Revoked { subject: String, issuer: String, is_issuer: bool },
    #[error("it is trusted, but that cannot be noted for the UA server: {0}")]
    Store(String),
}

impl Reason {
    /// The step's code, for log and audit.
    pub fn status(&self) -> Status {
        match self {
            Self::Malformed(_) | Self::TooMany | Self::Signature { .. } => Status::BAD_CERTIFICATE_INVALID,
            Self::NotRsa | Self::KeySize(_) | Self::Algorithm { .. } => Status::BAD_CERTIFICATE_POLICY_CHECK_FAILED,
            Self::NoIssuer { .. } => Status::BAD_CERTIFICATE_CHAIN_INCOMPLETE,
            Self::Untrusted | Self::UntrustedIssuer { .. } => Status::BAD_CERTIFICATE_UNTRUSTED,
            Self::Expired { is_issuer: false, .. } | Self::NotYetValid { is_issuer: false, .. } => {
                Status::BAD_CERTIFICATE_TIME_INVALID
            }
            Self::Expired { .. } | Self::NotYetValid { .. } => Status::BAD_CERTIFICATE_ISSUER_TIME_INVALID,
            Self::NoUri => Status::BAD_CERTIFICATE_URI_INVALID,
            Self::Usage | Self::ExtendedUsage(_) => Status::BAD_CERTIFICATE_USE_NOT_ALLOWED,
            Self::NoAuthority { .. } | Self::PathLength { .. } => Status::BAD_CERTIFICATE_ISSUER_USE_NOT_ALLOWED,
            Self::Unlisted { is_issuer: false, .. } => Status::BAD_CERTIFICATE_REVOCATION_UNKNOWN,
            Self::Unlisted { .. } => Status::BAD_CERTIFICATE_ISSUER_REVOCATION_UNKNOWN,
            Self::Revoked { is_issuer: false, .. } => Status::BAD_CERTIFICATE_REVOKED,
            Self::Revoked { .. } => Status::BAD_CERTIFICATE_ISSUER_REVOKED,
            Self::Store(_) => Status::BAD_INTERNAL_ERROR,
        }
    }

    /// What the client is told.
    pub fn status_for_client(&self) -> Status {
        let status = self.status();
        match status {
            Status::BAD_CERTIFICATE_INVALID
            | Status::BAD_CERTIFICATE_POLICY_CHECK_FAILED
            | Status::BAD_CERTIFICATE_CHAIN_INCOMPLETE
            | Status::BAD_CERTIFICATE_UNTRUSTED
            | Status::BAD_INTERNAL_ERROR => Status::BAD_SECURITY_CHECKS_FAILED,
            other => other,
        }
    }

    /// Whether trusting the certificate itself would let it in.
    pub fn is_want_of_trust(&self) -> bool {
        matches!(self, Self::Untrusted | Self::NoIssuer { .. } | Self::UntrustedIssuer { .. })
    }
}

/// More than any plant has, and few enough to be looked at for each stranger.
pub const MAX_CHAIN: usize = 10;
/// Signatures that one stranger can make us verify.
const MAX_SIGNATURES: usize = 32;

/// No right clock shows an earlier time: this program is younger. A device without a clock of its own starts in 1970, or
/// with the last time its file system knows.
pub fn earliest() -> SystemTime {
    // 2026-11-01
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_491_200)
}

/// `chain` is the application's certificate and what it sent after it.
pub fn judge(known: &Known, chain: &[Arc<Cert>], now: SystemTime, rules: Rules) -> Result<Verdict, Reason> {
    let Some((leaf, sent)) = chain.split_first() else { return Err(Reason::Malformed("there is none".into())) };
    check_key(leaf)?;
    let scheme = scheme(leaf)?;
    let is_explicit = known.trusted.iter().any(|trusted| trusted.der() == leaf.der());
    let path = match is_explicit {
        true => Vec::new(),
        false => Search { known, sent, now, signatures: MAX_SIGNATURES, failure: None }.path(leaf, scheme)?,
    };
    check_time(leaf, now, false)?;
    check_use(leaf, is_explicit, rules.of_servers)?;
    let unlisted = check_revocation(known, leaf, &path, now, rules)?;
    let until = path.iter().map(|cert| cert.not_after()).fold(leaf.not_after(), SystemTime::min);
    Ok(Verdict { until, unlisted })
}

fn check_key(leaf: &Cert) -> Result<(), Reason> {
    // What the security policies allow (OPC 10000-7): 2048 to 4096 bits.
    match leaf.rsa_bits() {
        None => Err(Reason::NotRsa),
        Some(2048..=4096) => Ok(()),
        Some(bits) => Err(Reason::KeySize(bits)),
    }
}

fn scheme(cert: &Cert) -> Result<Scheme, Reason> {
    Scheme::of(&cert.certificate().signature_algorithm)
        .map_err(|algorithm| Reason::Algorithm { subject: cert.title(), algorithm })
}

/// While the clock is not set, nothing can be "not yet valid", and what had expired before [`earliest`] has expired.
fn check_time(cert: &Cert, now: SystemTime, is_issuer: bool) -> Result<(), Reason> {
    let subject = || cert.title();
    let show = |time: SystemTime| Timestamp::from(time).to_string();
    if now >= earliest() && now < cert.not_before() {
        return Err(Reason::NotYetValid {
            subject: subject(),
            from: show(cert.not_before()),
            now: show(now),
            is_issuer,
        });
    }
    if now.max(earliest()) > cert.not_after() {
        return Err(Reason::Expired { subject: subject(), until: show(cert.not_after()), is_issuer });
    }
    Ok(())
}

fn check_use(leaf: &Cert, is_explicit: bool, of_servers: bool) -> Result<(), Reason> {
    if leaf.application_uri().is_none_or(str::is_empty) {
        return Err(Reason::NoUri);
    }
    if !leaf.may_sign_messages() {
        return Err(Reason::Usage);
    }
    // Who trusts this very certificate has said what it is for.
    if !is_explicit && of_servers && !leaf.is_for_servers() {
        return Err(Reason::ExtendedUsage("servers (ExtendedKeyUsage serverAuth)"));
    }
    if !is_explicit && !of_servers && !leaf.is_for_clients() {
        return Err(Reason::ExtendedUsage("clients (ExtendedKeyUsage clientAuth)"));
    }
    Ok(())
}

/// Looks for a way from a certificate up to a trusted CA.
struct Search<'a> {
    known: &'a Known,
    sent: &'a [Arc<Cert>],
    now: SystemTime,
    signatures: usize,
    /// Why the first CA that seemed to fit did not.
    failure: Option<Reason>,
}

impl<'a> Search<'a> {
    /// The CAs above `leaf`, the trusted one last.
    fn path(mut self, leaf: &Cert, scheme: Scheme) -> Result<Vec<&'a Arc<Cert>>, Reason> {
        let mut path = Vec::new();
        if self.climb(leaf, scheme, &mut path) {
            return Ok(path);
        }
        if leaf.is_self_issued() {
            return Err(Reason::Untrusted);
        }
        Err(self.failure.unwrap_or_else(|| Reason::NoIssuer { issuer: printable(leaf.issuer()) }))
    }

    fn climb(&mut self, cert: &Cert, scheme: Scheme, path: &mut Vec<&'a Arc<Cert>>) -> bool {
        let (known, sent) = (self.known, self.sent);
        let candidates = known.trusted.iter().map(|cert| (cert, true));
        let candidates = candidates.chain(known.issuers.iter().chain(sent).map(|cert| (cert, false)));
        for (issuer, is_trusted) in candidates.filter(|(issuer, _)| cert.may_be_from(issuer)) {
            if path.len() >= MAX_CHAIN || self.signatures == 0 {
                return false;
            }
            if path.iter().any(|above| above.der() == issuer.der()) {
                continue;
            }
            self.signatures -= 1;
            let next = match self.fits(cert, scheme, issuer, path) {
                Ok(next) => next,
                Err(reason) => {
                    self.failure.get_or_insert(reason);
                    continue;
                }
            };
            path.push(issuer);
            if is_trusted || (!issuer.is_self_issued() && self.climb(issuer, next, path)) {
                return true;
            }
            path.pop();
            if issuer.is_self_issued() {
                self.failure.get_or_insert(Reason::UntrustedIssuer { issuer: issuer.title() });
            } else {
                self.failure.get_or_insert(Reason::NoIssuer { issuer: printable(issuer.issuer()) });
            }
        }
        false
    }

    /// Whether `issuer` may have issued `cert` and has. Gives how `issuer` itself was signed.
    fn fits(&self, cert: &Cert, scheme: Scheme, issuer: &Cert, below: &[&Arc<Cert>]) -> Result<Scheme, Reason> {
        let is_signed = cert.signed().is_ok_and(|signed| scheme.is_by(issuer, signed, &cert.certificate().signature));
        if !is_signed {
            return Err(Reason::Signature { issuer: issuer.title() });
        }
        if !issuer.is_authority() {
            return Err(Reason::NoAuthority { subject: issuer.title() });
        }
        // RFC 5280, 4.2.1.9: what is issued by itself does not count.
        let between = below.iter().filter(|cert| !cert.is_self_issued()).count();
        if let Some(allowed) = issuer.path_length().filter(|&allowed| between > allowed) {
            return Err(Reason::PathLength { subject: issuer.title(), allowed });
        }
        check_time(issuer, self.now, true)?;
        // Nobody relies on the signature of a root, which says only that it is itself.
        if issuer.is_self_issued() { Ok(scheme) } else { self::scheme(issuer) }
    }
}

/// Gives the CAs that have no current list.
fn check_revocation(
    known: &Known,
    leaf: &Cert,
    path: &[&Arc<Cert>],
    now: SystemTime,
    rules: Rules,
) -> Result<Vec<String>, Reason> {
    let mut unlisted = Vec::new();
    let chain = std::iter::once(leaf).chain(path.iter().map(|cert| cert.as_ref()));
    for (depth, cert) in chain.enumerate().filter(|(_, cert)| !cert.is_self_issued()) {
        let (issuer, is_issuer) = (printable(cert.issuer()), depth > 0);
        let list = newest_list(known, cert, path);
        if list.is_some_and(|list| list.revokes(cert)) {
            return Err(Reason::Revoked { subject: cert.title(), issuer, is_issuer });
        }
        // Above the trusted one, and above one that is trusted by itself, nobody needs to be known.
        if depth < path.len() && !list.is_some_and(|list| list.is_current(now)) {
            if rules.require_crls {
                return Err(Reason::Unlisted { issuer, is_issuer });
            }
            unlisted.push(issuer);
        }
    }
    Ok(unlisted)
}

/// The newest list that the issuer of `cert` has signed: an older one may still name what is free again.
fn newest_list<'a>(known: &'a Known, cert: &Cert, path: &[&'a Arc<Cert>]) -> Option<&'a Arc<Crl>> {
    let issuers = || known.trusted.iter().chain(&known.issuers).chain(path.iter().copied());
    let is_signed = |list: &Crl| {
        let (Ok(scheme), Ok(signed)) = (Scheme::of(&list.list().signature_algorithm), list.signed()) else {
            return false;
        };
        issuers()
            .filter(|issuer| cert.may_be_from(issuer) && issuer.is_authority() && issuer.may_sign_lists())
            .any(|issuer| scheme.is_by(issuer, signed, &list.list().signature))
    };
    let mut lists: Vec<_> = known.crls.iter().filter(|list| list.issuer() == cert.issuer()).collect();
    lists.sort_by_key(|list| std::cmp::Reverse(list.made()));
    lists.into_iter().find(|list| is_signed(list))
}
