//! Whose signature this device obeys: the keyring of RAUC, and whether it is one for development.
//!
//! `scripts/image` makes development keys by itself, whose certificates say so in their names ("Vedette development CA"). Whoever
//! has the folder of such a build can update every device that trusts them, so it is said wherever somebody looks.
//!
//! A bundle ends with its signature (CMS, DER) and eight bytes of the signature's length, big-endian (RAUC's manual, "Bundle
//! Formats"). It is not verified here, which is RAUC's; names are looked for in it.

use ring::digest::{SHA256, digest};
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use x509_cert::Certificate;

/// RAUC's system.conf has it.
pub const KEYRING: &str = "/etc/rauc/keyring.pem";

/// In the names of development keys.
const WORD: &str = "development";
/// RAUC takes no signature that is larger (its manual, "Bundle Formats").
const LARGEST: u64 = 64 << 10;

/// "own"; "development"; empty where there is no keyring; or why it cannot be read.
pub fn kind(keyring: &Path) -> String {
    let pem = match fs::read(keyring) {
        Ok(pem) => pem,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return String::new(),
        Err(error) => return format!("{}: {error}", keyring.display()),
    };
    match Certificate::load_pem_chain(&pem) {
        Ok(chain) if chain.iter().any(is_for_development) => WORD.into(),
        Ok(_) => "own".into(),
        Err(error) => format!("{}: {error}", keyring.display()),
    }
}

/// What is to be said of that kind of keys, if anything.
pub fn warning(kind: &str) -> Option<&'static str> {
    (kind == WORD).then_some(
        "this device takes updates signed with development keys, which whoever has built an image may have; \
         give it an image with keys of your own (docs/device.md)",
    )
}

fn is_for_development(certificate: &Certificate) -> bool {
    has_word(certificate.tbs_certificate.subject.to_string().as_bytes())
}

/// The issuer's name stands in a signature as it is in the certificate.
pub fn is_signed_for_development(bundle: &Path) -> bool {
    read_signature(bundle).is_ok_and(|signature| has_word(&signature))
}

/// By which one bundle is told from another: SHA-256 of its signature, in hexadecimal digits.
pub fn signature(bundle: &Path) -> io::Result<String> {
    let signature = read_signature(bundle)?;
    Ok(digest(&SHA256, &signature).as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read_signature(bundle: &Path) -> io::Result<Vec<u8>> {
    let no_bundle = || io::Error::other("it is no bundle: there is no signature at its end");
    let mut file = File::open(bundle)?;
    let mut length = [0; 8];
    let end = file.seek(SeekFrom::End(0))?.checked_sub(8).ok_or_else(no_bundle)?;
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut length)?;
    let length = u64::from_be_bytes(length);
    if length == 0 || length > LARGEST {
        return Err(no_bundle());
    }
    file.seek(SeekFrom::Start(end.checked_sub(length).ok_or_else(no_bundle)?))?;
    let mut signature = Vec::new();
    file.take(length).read_to_end(&mut signature)?;
    Ok(signature)
}

fn has_word(text: &[u8]) -> bool {
    text.windows(WORD.len()).any(|window| window.eq_ignore_ascii_case(WORD.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_is_known_by_the_names_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keyring.pem");
        assert_eq!(kind(&file), "");
        fs::write(&file, include_bytes!("../../tests/fixtures/rauc/development.pem")).unwrap();
        assert_eq!(kind(&file), "development");
        assert!(warning(&kind(&file)).is_some_and(|text| text.contains("development keys")));
        fs::write(&file, include_bytes!("../../tests/fixtures/rauc/own.pem")).unwrap();
        assert_eq!((kind(&file).as_str(), warning(&kind(&file))), ("own", None));
        // One for development among others is enough.
        let both = [
            &include_bytes!("../../tests/fixtures/rauc/own.pem")[..],
            include_bytes!("../../tests/fixtures/rauc/development.pem"),
        ];
        fs::write(&file, both.concat()).unwrap();
        assert_eq!(kind(&file), "development");
        fs::write(&file, "-----BEGIN CERTIFICATE-----\n!").unwrap();
        assert!(kind(&file).starts_with(&file.display().to_string()), "{}", kind(&file));
    }

    fn bundle(signature: &[u8]) -> Vec<u8> {
        [b"squashfs", signature, &(signature.len() as u64).to_be_bytes()].concat()
    }

    #[test]
    fn a_bundle_is_known_by_its_signature() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("b.raucb");
        fs::write(&file, bundle(b"0\x82 Vedette Development CA")).unwrap();
        assert!(is_signed_for_development(&file));
        let first = signature(&file).unwrap();
        fs::write(&file, bundle(b"0\x82 Plant CA")).unwrap();
        assert!(!is_signed_for_development(&file) && signature(&file).unwrap() != first);
        for no_bundle in [&b""[..], b"1234567", &[0; 8], &[0xff; 100], &[0, 0, 0, 0, 0, 0, 0, 9]] {
            fs::write(&file, no_bundle).unwrap();
            assert!(signature(&file).unwrap_err().to_string().contains("is no bundle"), "{no_bundle:?}");
        }
    }
}
