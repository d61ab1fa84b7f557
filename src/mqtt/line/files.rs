//! The files that an access names: certificates, keys, passwords. Read at each CONNECT, so that they can be renewed.
//!
//! What is secret must be its owner's alone. `credential:NAME` is a credential that systemd hands to the service
//! (systemd.exec, LoadCredential=): a file in `$CREDENTIALS_DIRECTORY`, which systemd itself protects; with an access list for
//! the service's user its group bits show, so there only the others' count.

use super::ClientError;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// All authorities of a system are some hundreds of kilobytes.
const LARGEST: u64 = 4 << 20;

const CREDENTIAL: &str = "credential:";

/// A file that anybody may know.
pub(super) fn public(key: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    read(path, None).map_err(|reason| fault(key, path, reason))
}

/// A file that only this service may know.
pub(super) fn secret(key: &'static str, path: &Path) -> Result<Vec<u8>, ClientError> {
    secret_in(std::env::var_os("CREDENTIALS_DIRECTORY").as_deref(), path).map_err(|reason| fault(key, path, reason))
}

/// The first line, without what ends it.
pub(super) fn password(path: &Path) -> Result<Vec<u8>, ClientError> {
    let mut text = secret("password_file", path)?;
    let end = text.iter().position(|&byte| byte == b'\n').unwrap_or(text.len());
    text.truncate(end);
    if text.ends_with(b"\r") {
        text.pop();
    }
    match text.is_empty() {
        true => Err(fault("password_file", path, "its first line is empty; the password belongs there".into())),
        false => Ok(text),
    }
}

pub(super) fn fault(key: &'static str, path: &Path, reason: String) -> ClientError {
    ClientError::File { key, path: path.to_owned(), reason }
}

fn secret_in(credentials: Option<&OsStr>, path: &Path) -> Result<Vec<u8>, String> {
    let Some(name) = path.to_str().and_then(|path| path.strip_prefix(CREDENTIAL)) else {
        return read(path, Some(0o077));
    };
    if name.is_empty() || name.starts_with('.') || name.contains('/') {
        return Err("after credential: stands the name of a systemd credential".into());
    }
    let Some(folder) = credentials else {
        let add = format!("add LoadCredential={name}:FILE to the service");
        return Err(format!("systemd gave this program no credentials (no $CREDENTIALS_DIRECTORY); {add}"));
    };
    let path = PathBuf::from(folder).join(name);
    read(&path, Some(0o007)).map_err(|reason| format!("{}: {reason}", path.display()))
}

/// `forbidden` are the bits of the mode that a secret must not have.
fn read(path: &Path, forbidden: Option<u32>) -> Result<Vec<u8>, String> {
    let words = |error: std::io::Error| error.to_string();
    // Before it is opened: to open a pipe waits for whoever writes to it.
    if !std::fs::metadata(path).map_err(words)?.is_file() {
        return Err("is not a file".into());
    }
    let file = File::open(path).map_err(words)?;
    let metadata = file.metadata().map_err(words)?;
    let mode = metadata.permissions().mode() & 0o777;
    if forbidden.is_some_and(|forbidden| mode & forbidden != 0) {
        let path = path.display();
        return Err(format!("others than its owner can read or change it (mode {mode:o}); chmod 600 {path}"));
    }
    if metadata.len() > LARGEST {
        return Err(format!("is larger than {LARGEST} bytes"));
    }
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).map_err(words)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    fn file(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        write(&path, "secret\r\nand a note\n").unwrap();
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn a_secret_is_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o400] {
            assert!(secret_in(None, &file(folder.path(), &format!("{mode:o}"), mode)).is_ok());
        }
        for mode in [0o640, 0o604, 0o644, 0o620] {
            let path = file(folder.path(), &format!("{mode:o}"), mode);
            let reason = secret_in(None, &path).unwrap_err();
            let mode = format!("(mode {mode:o}); chmod 600 {}", path.display());
            assert_eq!(reason, format!("others than its owner can read or change it {mode}"));
            assert!(public("ca_file", &path).is_ok());
        }
    }

    #[test]
    fn a_credential_is_what_systemd_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let there = Some(folder.path().as_os_str());
        for mode in [0o400, 0o440] {
            file(folder.path(), &format!("{mode:o}"), mode);
            let path = PathBuf::from(format!("credential:{mode:o}"));
            assert_eq!(secret_in(there, &path).unwrap(), b"secret\r\nand a note\n");
            assert!(secret_in(None, &path).unwrap_err().contains(&format!("LoadCredential={mode:o}:FILE")));
        }
        file(folder.path(), "open", 0o444);
        assert!(secret_in(there, Path::new("credential:open")).unwrap_err().contains("chmod 600"));
        for bad in ["credential:", "credential:../x", "credential:a/b"] {
            assert!(secret_in(there, Path::new(bad)).unwrap_err().contains("the name of a systemd credential"));
        }
        assert!(secret_in(there, Path::new("credential:missing")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn the_password_is_the_first_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "password", 0o600);
        for (content, wanted) in [("secret", "secret"), ("secret\n", "secret"), ("se cret\r\nnote\n", "se cret")] {
            write(&path, content).unwrap();
            assert_eq!(password(&path).unwrap(), wanted.as_bytes());
        }
        for content in ["", "\n", "\r\nsecret"] {
            write(&path, content).unwrap();
            assert!(password(&path).unwrap_err().to_string().ends_with("the password belongs there"));
        }
    }

    #[test]
    fn what_is_no_file_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert_eq!(secret_in(None, &pipe).unwrap_err(), "is not a file");
        assert_eq!(secret_in(None, folder.path()).unwrap_err(), "is not a file");
    }
}
