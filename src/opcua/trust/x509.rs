//! A certificate or a revocation list, read: its bytes as they were signed, and what the rules ask about it.
//!
//! What comes from a peer goes through here first, so nothing here may panic and nothing is taken that this program and the
//! UA crate could understand in two ways: a certificate whose canonical form (DER) differs from what came is refused.

use ring::digest;
use std::time::SystemTime;
use x509_cert::certificate::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, UintRef};
use x509_cert::der::oid::db;
use x509_cert::der::pem;
use x509_cert::der::{self, Decode, Encode, Reader, SliceReader};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::Name;

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{0}")]
    Der(#[from] der::Error),
    #[error("it is not in the canonical form (DER)")]
    NotCanonical,
    #[error("its critical extension {0} is not known here")]
    Critical(ObjectIdentifier),
    #[error("its two signature algorithms differ")]
    Algorithms,
    #[error("it has no PEM block \"{0}\" that ends, and it is not DER")]
    NoPem(&'static str),
    #[error("PEM: {0}")]
    Pem(String),
}

/// What may be critical in a certificate: what is judged here, and what only narrows down policies that nobody asks for.
/// Name constraints are not among them: who has them wants them to be held (RFC 5280, 4.2).
const KNOWN: [ObjectIdentifier; 7] = [
    db::rfc5280::ID_CE_BASIC_CONSTRAINTS,
    db::rfc5280::ID_CE_KEY_USAGE,
    db::rfc5280::ID_CE_EXT_KEY_USAGE,
    db::rfc5280::ID_CE_SUBJECT_ALT_NAME,
    db::rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
    db::rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    db::rfc5280::ID_CE_CERTIFICATE_POLICIES,
];

const RSA: ObjectIdentifier = db::rfc5912::RSA_ENCRYPTION;

/// A certificate with its extensions read.
#[derive(Debug)]
pub struct Cert {
    der: Vec<u8>,
    thumbprint: String,
    inner: Certificate,
    basic: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    extended: Option<ExtendedKeyUsage>,
    names: Vec<GeneralName>,
    key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
}

impl Cert {
    pub fn from_der(bytes: &[u8]) -> Result<Self, ParseError> {
        let inner = Certificate::from_der(bytes)?;
        if inner.to_der()? != bytes {
            return Err(ParseError::NotCanonical);
        }
        let tbs = &inner.tbs_certificate;
        if tbs.signature != inner.signature_algorithm {
            return Err(ParseError::Algorithms);
        }
        check_critical(tbs.extensions.as_deref().unwrap_or_default(), &KNOWN)?;
        let key_id = tbs.get::<SubjectKeyIdentifier>()?.map(|(_, id)| id.0.into_bytes());
        let authority = tbs.get::<AuthorityKeyIdentifier>()?;
        Ok(Self {
            der: bytes.to_vec(),
            thumbprint: thumbprint(bytes),
            basic: tbs.get::<BasicConstraints>()?.map(|(_, basic)| basic),
            key_usage: tbs.get::<KeyUsage>()?.map(|(_, usage)| usage),
            extended: tbs.get::<ExtendedKeyUsage>()?.map(|(_, usage)| usage),
            names: tbs.get::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default(),
            key_id,
            issuer_key_id: authority.and_then(|(_, id)| id.key_identifier).map(|id| id.into_bytes()),
            inner,
        })
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-1 in hex, by which UA names certificates (OPC 10000-6, 6.7.2.3); no safety rests on it.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    pub fn certificate(&self) -> &Certificate {
        &self.inner
    }

    pub fn subject(&self) -> &Name {
        &self.inner.tbs_certificate.subject
    }

    pub fn issuer(&self) -> &Name {
        &self.inner.tbs_certificate.issuer
    }

    pub fn is_self_issued(&self) -> bool {
        self.subject() == self.issuer()
    }

    pub fn serial(&self) -> &[u8] {
        self.inner.tbs_certificate.serial_number.as_bytes()
    }

    pub fn not_before(&self) -> SystemTime {
        self.inner.tbs_certificate.validity.not_before.to_system_time()
    }

    pub fn not_after(&self) -> SystemTime {
        self.inner.tbs_certificate.validity.not_after.to_system_time()
    }

    /// For people.
    pub fn title(&self) -> String {
        printable(self.subject())
    }

    pub fn issuer_title(&self) -> String {
        printable(self.issuer())
    }

    /// OPC 10000-6, 6.2.2: the first URI among the alternative names.
    pub fn application_uri(&self) -> Option<&str> {
        self.names.iter().find_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        })
    }

    pub fn alternative_names(&self) -> &[GeneralName] {
        &self.names
    }

    /// Whether it may sign certificates; without a KeyUsage extension everything is allowed.
    pub fn is_authority(&self) -> bool {
        let may_sign = self.key_usage.as_ref().is_none_or(KeyUsage::key_cert_sign);
        self.basic.as_ref().is_some_and(|basic| basic.ca) && may_sign
    }

    /// How many other authorities may stand between it and an application.
    pub fn path_length(&self) -> Option<usize> {
        self.basic.as_ref().and_then(|basic| basic.path_len_constraint).map(usize::from)
    }

    pub fn may_sign_lists(&self) -> bool {
        self.key_usage.as_ref().is_none_or(KeyUsage::crl_sign)
    }

    pub fn may_sign_messages(&self) -> bool {
        self.key_usage.as_ref().is_none_or(KeyUsage::digital_signature)
    }

    /// Whether it says, where it says anything, that it is for clients.
    pub fn is_for_clients(&self) -> bool {
        self.is_for(&[db::rfc5280::ID_KP_CLIENT_AUTH, db::rfc5280::ANY_EXTENDED_KEY_USAGE])
    }

    /// The same of servers.
    pub fn is_for_servers(&self) -> bool {
        self.is_for(&[db::rfc5280::ID_KP_SERVER_AUTH, db::rfc5280::ANY_EXTENDED_KEY_USAGE])
    }

    fn is_for(&self, any: &[ObjectIdentifier]) -> bool {
        self.extended.as_ref().is_none_or(|usage| usage.0.iter().any(|purpose| any.contains(purpose)))
    }

    /// Whether names and key identifiers allow that `issuer` signed this.
    pub fn may_be_from(&self, issuer: &Cert) -> bool {
        let ids_agree = match (&self.issuer_key_id, &issuer.key_id) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        self.issuer() == issuer.subject() && ids_agree
    }

    /// Bits of the RSA key; `None` if it is none.
    pub fn rsa_bits(&self) -> Option<usize> {
        let info = &self.inner.tbs_certificate.subject_public_key_info;
        if info.algorithm.oid != RSA {
            return None;
        }
        let key = AnyRef::from_der(info.subject_public_key.as_bytes()?).ok()?;
        // RSAPublicKey, RFC 8017, A.1.1
        let modulus = UintRef::decode(&mut SliceReader::new(key.value()).ok()?).ok()?;
        let zeros = modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros() as usize);
        (modulus.as_bytes().len() * 8).checked_sub(zeros)
    }

    /// What the signature is over, as it came.
    pub fn signed(&self) -> der::Result<&[u8]> {
        signed_part(&self.der)
    }
}

/// A revocation list.
#[derive(Debug)]
pub struct Crl {
    der: Vec<u8>,
    inner: CertificateList,
}

impl Crl {
    /// Deltas, indirect lists and parts of lists say so in critical extensions, and are refused: taken for a whole list
    /// they would hide who is revoked.
    pub fn from_der(bytes: &[u8]) -> Result<Self, ParseError> {
        let inner = CertificateList::from_der(bytes)?;
        let list = &inner.tbs_cert_list;
        if list.signature != inner.signature_algorithm {
            return Err(ParseError::Algorithms);
        }
        check_critical(list.crl_extensions.as_deref().unwrap_or_default(), &[])?;
        for entry in list.revoked_certificates.as_deref().unwrap_or_default() {
            check_critical(entry.crl_entry_extensions.as_deref().unwrap_or_default(), &[])?;
        }
        Ok(Self { der: bytes.to_vec(), inner })
    }

    pub fn list(&self) -> &CertificateList {
        &self.inner
    }

    pub fn issuer(&self) -> &Name {
        &self.inner.tbs_cert_list.issuer
    }

    pub fn made(&self) -> SystemTime {
        self.inner.tbs_cert_list.this_update.to_system_time()
    }

    /// A list without a next one holds for ever.
    pub fn is_current(&self, now: SystemTime) -> bool {
        self.inner.tbs_cert_list.next_update.is_none_or(|next| now <= next.to_system_time())
    }

    pub fn revokes(&self, certificate: &Cert) -> bool {
        let entries = self.inner.tbs_cert_list.revoked_certificates.as_deref().unwrap_or_default();
        entries.iter().any(|entry| entry.serial_number.as_bytes() == certificate.serial())
    }

    pub fn signed(&self) -> der::Result<&[u8]> {
        signed_part(&self.der)
    }
}

fn check_critical(extensions: &[Extension], known: &[ObjectIdentifier]) -> Result<(), ParseError> {
    match extensions.iter().find(|extension| extension.critical && !known.contains(&extension.extn_id)) {
        Some(unknown) => Err(ParseError::Critical(unknown.extn_id)),
        None => Ok(()),
    }
}

/// The first member of the outer sequence, of a certificate as of a list.
fn signed_part(bytes: &[u8]) -> der::Result<&[u8]> {
    SliceReader::new(AnyRef::from_der(bytes)?.value())?.tlv_bytes()
}

/// Splits certificates that follow one another (OPC 10000-6, 6.7.2.3).
pub fn split(chain: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(chain)?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(reader.tlv_bytes()?);
    }
    Ok(parts)
}

pub fn thumbprint(der: &[u8]) -> String {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, der);
    hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Without what would break a line of the log.
pub fn printable(name: &Name) -> String {
    name.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).take(200).collect()
}

/// The DER of each PEM block of that kind, or the file itself if it is not PEM.
pub fn blocks(file: &[u8], label: &'static str) -> Result<Vec<Vec<u8>>, ParseError> {
    let Ok(text) = std::str::from_utf8(file) else { return Ok(vec![file.to_vec()]) };
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(&begin) {
        let from = &rest[start..];
        let length = from.find(&end).ok_or(ParseError::NoPem(label))? + end.len();
        let (_, block) =
            pem::decode_vec(&from.as_bytes()[..length]).map_err(|error| ParseError::Pem(error.to_string()))?;
        found.push(block);
        rest = &from[length..];
    }
    if found.is_empty() { Err(ParseError::NoPem(label)) } else { Ok(found) }
}

pub const CERTIFICATE: &str = "CERTIFICATE";
pub const CRL: &str = "X509 CRL";
