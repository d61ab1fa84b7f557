//! A certificate that somebody wants trusted: looked at here, where whoever brought it can be told what is wrong with it.
//!
//! The trust list leaves out what it cannot read, and then a client is turned away without anybody knowing why.

use base64ct::{Base64, Encoding as _};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _, pem};

/// As PEM is called (RFC 7468, 5).
const LABEL: &str = "CERTIFICATE";

/// What is wrong with bytes that should be one whole certificate, in words that follow a name.
pub(super) fn fault(der: &[u8]) -> Option<String> {
    if der.starts_with(b"-----BEGIN") {
        return Some("it is PEM; export it as DER, or write it into [provision] trusted".into());
    }
    match whole_length(der) {
        Some(length) if der.len() < length => {
            return Some(format!("it is no whole certificate ({} of {length} bytes); copy it again", der.len()));
        }
        Some(length) if der.len() > length => {
            let what = "what follows it does not belong there; export this one certificate again";
            return Some(format!("the certificate has {length} bytes, the file {}; {what}", der.len()));
        }
        _ => {}
    }
    let is_canonical =
        Certificate::from_der(der).is_ok_and(|found| found.to_der().is_ok_and(|canonical| canonical == der));
    let what = "it is no certificate in DER; export the client's certificate again, and not its key or a request";
    (!is_canonical).then(|| what.into())
}

/// The certificate of a text in PEM, written as everybody reads it: people indent, and editors of Windows end lines in their own
/// way.
pub(super) fn from_pem(text: &str) -> Result<String, String> {
    let body = text.trim().strip_prefix("-----BEGIN CERTIFICATE-----");
    let body = body.and_then(|body| body.strip_suffix("-----END CERTIFICATE-----"));
    let der = body.map(|body| Base64::decode_vec(&body.split_whitespace().collect::<String>()));
    let Some(Ok(der)) = der else {
        return Err("is no certificate in PEM: \"\"\"-----BEGIN CERTIFICATE----- ...\"\"\"".into());
    };
    match fault(&der) {
        Some(what) => Err(what),
        None => pem::encode_string(LABEL, pem::LineEnding::LF, &der).map_err(|error| error.to_string()),
    }
}

/// What the outer SEQUENCE says of itself, head and all (X.690, 8.1.3 and 8.9).
fn whole_length(der: &[u8]) -> Option<usize> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let bytes = usize::from(first & 0x7f);
    if !(1..=3).contains(&bytes) {
        return None;
    }
    let length = rest.get(..bytes)?.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    Some(2 + bytes + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &[u8] = include_bytes!("../../../tests/fixtures/pki/root.der");

    #[test]
    fn what_is_no_certificate_is_found_before_it_is_trusted() {
        assert_eq!(fault(ROOT), None);
        let half = fault(&ROOT[..512]).unwrap();
        assert_eq!(half, format!("it is no whole certificate (512 of {} bytes); copy it again", ROOT.len()));
        assert!(fault(&[ROOT, b"x"].concat()).unwrap().contains("does not belong there"));
        for bytes in [b"".as_slice(), b"0", b"0junk", b"hello", b"\x30\x03\x02\x01\x01", b"\x30\x80\0\0"] {
            assert!(fault(bytes).is_some(), "{bytes:?}");
        }
        assert!(fault(b"\x30\x03\x02\x01\x01").unwrap().contains("it is no certificate in DER"));
        assert!(fault(b"-----BEGIN CERTIFICATE-----\n").unwrap().contains("it is PEM"));
    }

    #[test]
    fn pem_is_written_as_everybody_reads_it() {
        let pem = pem::encode_string(LABEL, pem::LineEnding::LF, ROOT).unwrap();
        let indented = format!("\r\n{}", pem.replace('\n', "\r\n    ").replace("    -----END", "-----END"));
        for text in [pem.clone(), indented] {
            assert_eq!(from_pem(&text).unwrap(), pem);
        }
        let placeholder = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert!(from_pem(placeholder).unwrap_err().contains("it is no"));
        assert!(from_pem("abc").unwrap_err().contains("is no certificate in PEM"));
        let half = format!("{}\n-----END CERTIFICATE-----", &pem[..pem.len() / 2].trim_end());
        assert!(from_pem(&half).is_err());
    }
}
