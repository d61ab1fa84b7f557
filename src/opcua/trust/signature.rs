//! Whether a certificate or a list was signed by a key: RSA (PKCS #1 v1.5, PSS) and ECDSA, with SHA-256 or better.

use super::x509::Cert;
use ring::signature::{self as algorithms, UnparsedPublicKey, VerificationAlgorithm};
use x509_cert::der::SliceReader;
use x509_cert::der::TagNumber;
use x509_cert::der::asn1::{AnyRef, BitString, ContextSpecific, ObjectIdentifier};
use x509_cert::der::oid::db::rfc5912 as oid;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// How something was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    kind: Kind,
    /// Of SHA-2.
    bits: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Rsa,
    Pss,
    Ecdsa,
}

impl Scheme {
    /// `Err` names what is too weak, or not known here.
    pub fn of(algorithm: &AlgorithmIdentifierOwned) -> Result<Self, String> {
        let known = |kind, bits| Ok(Self { kind, bits });
        match algorithm.oid {
            oid::SHA_256_WITH_RSA_ENCRYPTION => known(Kind::Rsa, 256),
            oid::SHA_384_WITH_RSA_ENCRYPTION => known(Kind::Rsa, 384),
            oid::SHA_512_WITH_RSA_ENCRYPTION => known(Kind::Rsa, 512),
            oid::ECDSA_WITH_SHA_256 => known(Kind::Ecdsa, 256),
            oid::ECDSA_WITH_SHA_384 => known(Kind::Ecdsa, 384),
            oid::ECDSA_WITH_SHA_512 => known(Kind::Ecdsa, 512),
            oid::ID_RSASSA_PSS => match pss_hash(algorithm) {
                Some(oid::ID_SHA_256) => known(Kind::Pss, 256),
                Some(oid::ID_SHA_384) => known(Kind::Pss, 384),
                Some(oid::ID_SHA_512) => known(Kind::Pss, 512),
                // Absent parameters mean SHA-1 (RFC 4055, 3.1).
                _ => Err("RSASSA-PSS with another hash than SHA-256, SHA-384, SHA-512".into()),
            },
            oid::SHA_1_WITH_RSA_ENCRYPTION => Err("SHA-1".into()),
            other => Err(format!("the algorithm {other}")),
        }
    }

    /// Whether `signature` over `message` was made with the key of `signer`.
    pub fn is_by(self, signer: &Cert, message: &[u8], signature: &BitString) -> bool {
        let key = &signer.certificate().tbs_certificate.subject_public_key_info;
        let (Some(point), Some(signature)) = (key.subject_public_key.as_bytes(), signature.as_bytes()) else {
            return false;
        };
        let curve = key.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        self.verifier(key.algorithm.oid, curve)
            .is_some_and(|verifier| UnparsedPublicKey::new(verifier, point).verify(message, signature).is_ok())
    }

    fn verifier(
        self,
        key: ObjectIdentifier,
        curve: Option<ObjectIdentifier>,
    ) -> Option<&'static dyn VerificationAlgorithm> {
        let is_rsa = key == oid::RSA_ENCRYPTION || (key == oid::ID_RSASSA_PSS && self.kind == Kind::Pss);
        Some(match (self.kind, self.bits) {
            (Kind::Rsa, 256) if is_rsa => &algorithms::RSA_PKCS1_2048_8192_SHA256,
            (Kind::Rsa, 384) if is_rsa => &algorithms::RSA_PKCS1_2048_8192_SHA384,
            (Kind::Rsa, 512) if is_rsa => &algorithms::RSA_PKCS1_2048_8192_SHA512,
            (Kind::Pss, 256) if is_rsa => &algorithms::RSA_PSS_2048_8192_SHA256,
            (Kind::Pss, 384) if is_rsa => &algorithms::RSA_PSS_2048_8192_SHA384,
            (Kind::Pss, 512) if is_rsa => &algorithms::RSA_PSS_2048_8192_SHA512,
            (Kind::Ecdsa, bits) if key == oid::ID_EC_PUBLIC_KEY => match (curve?, bits) {
                (oid::SECP_256_R_1, 256) => &algorithms::ECDSA_P256_SHA256_ASN1,
                (oid::SECP_256_R_1, 384) => &algorithms::ECDSA_P256_SHA384_ASN1,
                (oid::SECP_384_R_1, 256) => &algorithms::ECDSA_P384_SHA256_ASN1,
                (oid::SECP_384_R_1, 384) => &algorithms::ECDSA_P384_SHA384_ASN1,
                _ => return None,
            },
            _ => return None,
        })
    }
}

/// RSASSA-PSS-params, RFC 4055, 3.1; the mask's hash and the salt's length have to fit, or nothing verifies.
fn pss_hash(algorithm: &AlgorithmIdentifierOwned) -> Option<ObjectIdentifier> {
    let parameters: AnyRef<'_> = algorithm.parameters.as_ref()?.into();
    let mut reader = SliceReader::new(parameters.value()).ok()?;
    let hash = ContextSpecific::<AlgorithmIdentifierOwned>::decode_explicit(&mut reader, TagNumber::N0).ok()??;
    Some(hash.value.oid)
}
