//! The certificate of a user, as far as a login needs it (OPC 10000-4, 7.40.5).

use opcua::crypto::X509;
use std::path::Path;
use std::time::SystemTime;

pub struct UserCertificate {
    /// SHA-1 of the DER in hexadecimal digits: of a certificate, the UA crate tells an authenticator this only.
    pub thumbprint: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

/// What the security policies that are offered need (OPC 10000-7, 6.6.165).
const KEY_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// Reads a file with a certificate, DER or PEM; else says what is wrong with it.
pub fn read(path: &Path) -> Result<UserCertificate, String> {
    let wrong = |what: &str| format!("{}: {what}", path.display());
    let bytes = std::fs::read(path).map_err(|error| wrong(&format!("cannot read it ({error})")))?;
    let parsed = X509::from_der(&bytes).or_else(|_| X509::from_pem(&bytes));
    let x509 = parsed.map_err(|_| wrong("no certificate (X.509, as DER or PEM)"))?;
    let bits = x509.key_length().map_err(|_| wrong("its key is not RSA"))?;
    if !KEY_BITS.contains(&bits) {
        return Err(wrong(&format!("its key has {bits} bits; 2048 to 4096 would do")));
    }
    let (Ok(not_before), Ok(not_after)) = (x509.not_before(), x509.not_after()) else {
        return Err(wrong("it does not say how long it is valid"));
    };
    let thumbprint = x509.thumbprint().as_hex_string();
    Ok(UserCertificate { thumbprint, not_before: not_before.into(), not_after: not_after.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opcua::crypto::{PrivateKey, X509Data};

    #[test]
    fn a_certificate_is_known_by_its_thumbprint_and_anything_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("user.der");
        let write = |bits| {
            let data = X509Data { key_size: bits, certificate_duration_days: 10, ..X509Data::sample_cert() };
            let x509 = X509::from_pkey(&PrivateKey::new(bits).unwrap(), &data).unwrap();
            std::fs::write(&path, x509.to_der().unwrap()).unwrap();
            x509.thumbprint().as_hex_string()
        };
        let thumbprint = write(2048);
        let read_back = read(&path).unwrap();
        assert_eq!(read_back.thumbprint, thumbprint);
        let days = read_back.not_after.duration_since(read_back.not_before).unwrap().as_secs() / 86400;
        assert_eq!(days, 10);
        write(1024);
        assert!(read(&path).is_err_and(|what| what.contains("1024 bits")));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(read(&path).is_err_and(|what| what.contains("no certificate")));
    }
}
