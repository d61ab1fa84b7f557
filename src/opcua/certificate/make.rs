//! Making the application certificate: OPC 10000-6, 6.2.2, signed by its own key.

use super::files::Key;
use super::{Application, CertificateError};
use crate::opcua::trust::{earliest, x509::Cert};
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::RSA_PKCS1_SHA256;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, Ia5String, Null, OctetString, SetOfVec, UtcTime};
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier, db};
use x509_cert::der::{self, Encode, Tag};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::name::{Name, RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

const DAY: Duration = Duration::from_secs(86_400);
/// Clients have to trust the next one, so not often; RSA with 2048 bits is not expected to last for ever.
const VALID: Duration = Duration::from_secs(5 * 365 * 86_400);
/// Made while the clock is not set, nobody knows from when the years count, so they are more.
const VALID_WITHOUT_CLOCK: Duration = Duration::from_secs(20 * 365 * 86_400);
/// By this a certificate is known to be of our making (together with being signed by itself).
const ORGANIZATION: &str = "Vedette";

/// Whether this program made it, and so may make the next.
pub(super) fn is_ours(certificate: &Cert) -> bool {
    let attributes = certificate.subject().0.iter().flat_map(|rdn| rdn.0.iter());
    let mut organizations = attributes.filter(|attribute| attribute.oid == db::rfc4519::O);
    certificate.is_self_issued() && organizations.any(|attribute| attribute.value.value() == ORGANIZATION.as_bytes())
}

/// A certificate for `key`, as DER.
pub(super) fn certificate(application: &Application, key: &Key, now: SystemTime) -> Result<Vec<u8>, CertificateError> {
    let failed = |what: String| CertificateError::Make { reason: what };
    let tbs = unsigned(application, key, now).map_err(|error| failed(error.to_string()))?;
    let message = tbs.to_der().map_err(|error| failed(error.to_string()))?;
    let mut signature = vec![0; key.pair.public().modulus_len()];
    let signed = key.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature);
    signed.map_err(|error| failed(error.to_string()))?;
    let certificate = BitString::from_bytes(&signature).and_then(|signature| {
        Certificate { signature_algorithm: tbs.signature.clone(), tbs_certificate: tbs, signature }.to_der()
    });
    certificate.map_err(|error| failed(error.to_string()))
}

fn unsigned(application: &Application, key: &Key, now: SystemTime) -> der::Result<TbsCertificate> {
    let subject = subject(&application.name)?;
    let public = key.pair.public().as_ref();
    let null = Some(Any::from(Null));
    let algorithm = |oid| AlgorithmIdentifierOwned { oid, parameters: null.clone() };
    let serial_number = serial_number()?;
    let key_id = OctetString::new(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public).as_ref())?;
    let extensions = extensions(application, &subject, key_id, serial_number.clone())?;
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number,
        signature: algorithm(db::rfc5912::SHA_256_WITH_RSA_ENCRYPTION),
        issuer: subject.clone(),
        validity: validity(now)?,
        subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned {
            algorithm: algorithm(db::rfc5912::RSA_ENCRYPTION),
            subject_public_key: BitString::from_bytes(public)?,
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(extensions),
    })
}

/// A day of grace at the beginning, for clients whose clock is behind ours.
fn validity(now: SystemTime) -> der::Result<Validity> {
    let (from, until) = match now < earliest() {
        true => (earliest(), earliest() + VALID_WITHOUT_CLOCK),
        false => (now - DAY, now + VALID),
    };
    Ok(Validity { not_before: time(from)?, not_after: time(until)? })
}

/// RFC 5280, 4.1.2.5: two digits for the year until 2049, four from then on.
fn time(time: SystemTime) -> der::Result<Time> {
    match UtcTime::from_system_time(time) {
        Ok(time) => Ok(Time::UtcTime(time)),
        Err(_) => Ok(Time::GeneralTime(GeneralizedTime::from_system_time(time)?)),
    }
}

fn subject(name: &str) -> der::Result<Name> {
    // X.520: 64 characters at most.
    let common: String = name.chars().take(64).collect();
    let part = |oid: ObjectIdentifier, text: &str| {
        let value = Any::new(Tag::Utf8String, text.as_bytes())?;
        let set = SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }])?;
        Ok::<_, der::Error>(RelativeDistinguishedName(set))
    };
    Ok(RdnSequence(vec![part(db::rfc4519::O, ORGANIZATION)?, part(db::rfc4519::CN, &common)?]))
}

/// Never used twice under one name, as far as chance allows: else clients take two certificates for one.
fn serial_number() -> der::Result<SerialNumber> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| der::ErrorKind::Failed)?;
    // Positive and of full length (RFC 5280, 4.1.2.2).
    bytes[0] = bytes[0] & 0x7F | 0x40;
    SerialNumber::new(&bytes)
}

fn extensions(
    application: &Application,
    issuer: &Name,
    key_id: OctetString,
    serial: SerialNumber,
) -> der::Result<Vec<Extension>> {
    // 6.2.2 of Part 6 asks for these, and for keyCertSign in those that are signed by themselves.
    let usage = KeyUsages::DigitalSignature
        | KeyUsages::NonRepudiation
        | KeyUsages::KeyEncipherment
        | KeyUsages::DataEncipherment
        | KeyUsages::KeyCertSign;
    let purposes = vec![db::rfc5280::ID_KP_SERVER_AUTH, db::rfc5280::ID_KP_CLIENT_AUTH];
    let authority = AuthorityKeyIdentifier {
        key_identifier: Some(key_id.clone()),
        authority_cert_issuer: Some(vec![GeneralName::DirectoryName(issuer.clone())]),
        authority_cert_serial_number: Some(serial),
    };
    Ok(vec![
        extension(&SubjectKeyIdentifier(key_id), false)?,
        extension(&authority, false)?,
        extension(&BasicConstraints { ca: false, path_len_constraint: None }, true)?,
        extension(&KeyUsage(usage), true)?,
        extension(&ExtendedKeyUsage(purposes), false)?,
        extension(&SubjectAltName(alternative_names(application)?), false)?,
    ])
}

fn extension<T: AssociatedOid + Encode>(value: &T, critical: bool) -> der::Result<Extension> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// The ApplicationUri comes first: there are programs that look only there.
fn alternative_names(application: &Application) -> der::Result<Vec<GeneralName>> {
    let mut names = vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&application.uri)?)];
    for host in &application.hosts {
        let name = match host.parse() {
            Ok(IpAddr::V4(address)) => GeneralName::IpAddress(OctetString::new(address.octets())?),
            Ok(IpAddr::V6(address)) => GeneralName::IpAddress(OctetString::new(address.octets())?),
            Err(_) => match Ia5String::new(host) {
                Ok(name) => GeneralName::DnsName(name),
                // No name of the DNS.
                Err(_) => continue,
            },
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}
