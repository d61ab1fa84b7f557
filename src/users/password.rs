//! Passwords: argon2id, with what OWASP asks for at the least ("Password Storage Cheat Sheet": m=19 MiB, t=2, p=1). A
//! Raspberry Pi 3 has that memory to spare, and bears the time because few are checked at once (live.rs).

use super::UserName;
use argon2::password_hash::{Output, PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::rand::{SecureRandom, SystemRandom};
use std::fmt::Display;
use std::io::{self, BufRead};

/// NIST SP 800-63B asks for 8 at the least where there is a second factor, and here there is none.
const SHORTEST: usize = 10;
/// Nobody types more; whoever sends more wants work done.
const LONGEST: usize = 256;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("the password has {0} characters; {SHORTEST} are the least")]
    Short(usize),
    #[error("the password has more than {LONGEST} bytes")]
    Long,
    #[error("the password has control characters")]
    Control,
    #[error("the password is the user's name, or little more")]
    Name,
    #[error("the password is one character over and over, or a few in a row")]
    Simple,
    #[error("cannot make a hash: {0}")]
    Hash(String),
}

/// A terminal's longest line (N_TTY).
pub const LINE: usize = 4096;

/// The first line of what somebody types or pipes in. Longer lines are no passwords, and not taken into memory.
pub fn line_of(source: impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    source.take(LINE as u64).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// The PHC string of a password that is fit for a user.
pub fn hash(name: &UserName, password: &str) -> Result<String, PasswordError> {
    check(name, password)?;
    hash_any(password)
}

/// Whether the password is the one of the hash. Takes its time.
pub(super) fn verify(phc: &str, password: &str) -> bool {
    let Ok(hash) = PasswordHash::new(phc) else { return false };
    password.len() <= LONGEST && Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()
}

/// A hash that no password has, to be verified for names that are unknown: they must take as long as known ones. It is made of
/// random bytes, not of a password: one would cost most of a start.
pub(super) fn nobodys() -> Result<String, PasswordError> {
    let (salt, output) = (salt()?, Output::new(&random::<32>()?).map_err(failed)?);
    let hash = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params()?.try_into().map_err(failed)?,
        salt: Some(salt.as_salt()),
        hash: Some(output),
    };
    Ok(hash.to_string())
}

fn hash_any(password: &str) -> Result<String, PasswordError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params()?);
    Ok(argon2.hash_password(password.as_bytes(), &salt()?).map_err(failed)?.to_string())
}

fn params() -> Result<Params, PasswordError> {
    Params::new(19 * 1024, 2, 1, None).map_err(failed)
}

fn salt() -> Result<SaltString, PasswordError> {
    SaltString::encode_b64(&random::<16>()?).map_err(failed)
}

fn random<const BYTES: usize>() -> Result<[u8; BYTES], PasswordError> {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| failed("the system gives no random bytes"))?;
    Ok(bytes)
}

fn failed(error: impl Display) -> PasswordError {
    PasswordError::Hash(error.to_string())
}

/// Whether it is fit for a user.
pub fn check(name: &UserName, password: &str) -> Result<(), PasswordError> {
    let length = password.chars().count();
    if length < SHORTEST {
        return Err(PasswordError::Short(length));
    }
    if password.len() > LONGEST {
        return Err(PasswordError::Long);
    }
    if password.chars().any(char::is_control) {
        return Err(PasswordError::Control);
    }
    let [lower, name] = [password, name.as_str()].map(str::to_lowercase);
    // "annaanna12" is little more than "anna".
    let others = lower.replace(&name, "").chars().count();
    if lower.contains(&name) && others < SHORTEST / 2 {
        return Err(PasswordError::Name);
    }
    let mut different: Vec<char> = lower.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < 4 {
        return Err(PasswordError::Simple);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_own_hash_only() {
        let name: UserName = "anna".parse().unwrap();
        let phc = hash(&name, "correct horse battery").unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(&phc, "correct horse battery"));
        assert!(!verify(&phc, "correct horse batterz"));
        assert!(!verify("nonsense", "correct horse battery"));
        assert_ne!(phc, hash(&name, "correct horse battery").unwrap(), "each has a salt of its own");
        // As long as that of a user takes, which its terms and its length decide.
        let nobodys = nobodys().unwrap();
        assert_eq!(nobodys.len(), phc.len());
        assert_eq!(nobodys.split('$').take(4).collect::<Vec<_>>(), phc.split('$').take(4).collect::<Vec<_>>());
        let parsed = PasswordHash::new(&nobodys).unwrap();
        assert_eq!(Argon2::default().verify_password(b"", &parsed), Err(argon2::password_hash::Error::Password));
    }

    #[test]
    fn weak_ones_are_refused() {
        let name: UserName = "anna".parse().unwrap();
        let check = |password: &str| check(&name, password).unwrap_err();
        assert_eq!(check("short"), PasswordError::Short(5));
        assert_eq!(check(&"long".repeat(100)), PasswordError::Long);
        assert_eq!(check("with\ttab here"), PasswordError::Control);
        assert_eq!(check("AnnaAnna12"), PasswordError::Name);
        assert_eq!(check("aaaaaaaaaaaa"), PasswordError::Simple);
        super::check(&name, "anna's horse").unwrap();
    }
}
