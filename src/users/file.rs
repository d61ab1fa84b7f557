//! `users.toml`: one `[[user]]` for each, readable by this user only.
//!
//! It is written by `vedette user` and may be edited by hand. A change is written beside the file and renamed, so that
//! readers see the old or the new one; writers take turns by a lock on `users.toml.lock`, which stays.

use crate::base::files;
use crate::model::Role;
use crate::opcua::user_certificate::{self, UserCertificate};
use argon2::password_hash::PasswordHash;
use serde::Deserialize;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// One `[[user]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    /// The argon2id hash of the password, as a PHC string.
    pub password: Option<String>,
    #[serde(default)]
    pub certificates: Vec<Certificate>,
}

/// A user certificate, as far as a login needs it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// SHA-1 of the DER, 40 hexadecimal digits: what OPC UA calls a thumbprint (OPC 10000-6, 6.2.2).
    pub thumbprint: String,
    /// RFC 3339, as in "2027-01-31T00:00:00Z".
    #[serde(deserialize_with = "time")]
    pub not_before: SystemTime,
    #[serde(deserialize_with = "time")]
    pub not_after: SystemTime,
}

/// 1 to 64 letters, digits and ` .-_@`, not beginning or ending with a blank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct UserName(String);

impl Certificate {
    /// Of a file with a user certificate (DER or PEM).
    pub fn read(path: &Path) -> Result<Self, String> {
        let UserCertificate { thumbprint, not_before, not_after } = user_certificate::read(path)?;
        Ok(Self { thumbprint, not_before, not_after })
    }
}

impl UserName {
    pub const LONGEST: usize = 64;

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for UserName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let is_fit = |c: char| c.is_alphanumeric() || " .-_@".contains(c);
        let length = name.chars().count();
        if (1..=Self::LONGEST).contains(&length) && name.chars().all(is_fit) && name.trim() == name {
            return Ok(Self(name));
        }
        Err(format!("{name:?} is no user name: 1 to {} letters, digits, blanks and .-_@ are", Self::LONGEST))
    }
}

impl std::str::FromStr for UserName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        name.to_owned().try_into()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    #[error("cannot read {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path:?}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {what}", path.display())]
    Content { path: PathBuf, line: usize, what: String },
    #[error("{0}")]
    Edit(String),
}

#[derive(Clone, Debug)]
pub struct UsersFile {
    path: PathBuf,
}

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    user: Vec<toml::Spanned<User>>,
}

/// A file that is larger is none of ours.
const LARGEST: u64 = 4 * 1024 * 1024;

const HEADER: &str = "\
# Who may log in to this device. Kept by `vedette user`; what is edited by hand takes effect at once, too, and is refused
# as a whole if it has a fault.
";

impl UsersFile {
    pub fn new(data_dir: &Path) -> Self {
        Self { path: data_dir.join(super::FILE) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All users, in the order of the file; without a file there are none.
    pub fn load(&self) -> Result<Vec<User>, UsersError> {
        let failed = |source| UsersError::Read { path: self.path.clone(), source };
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
            Ok(about) if about.len() > LARGEST => return Err(failed(io::Error::other("more than 4 MiB"))),
            Ok(_) => {}
        }
        let text = fs::read_to_string(&self.path).map_err(failed)?;
        parse(&text).map_err(|(offset, what)| {
            let line = 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
            UsersError::Content { path: self.path.clone(), line, what }
        })
    }

    /// Changes the users, alone among all who do, and writes them if `change` agrees.
    pub fn edit(&self, change: impl FnOnce(&mut Vec<User>) -> Result<(), String>) -> Result<(), UsersError> {
        let failed = |source| UsersError::Write { path: self.path.clone(), source };
        // Users may be there before the first start.
        fs::create_dir_all(self.folder()).map_err(failed)?;
        let beside = self.path.with_extension("toml.lock");
        let owner = self.owner().map_err(failed)?;
        let _lock =
            files::lock(&beside, 0o600, &owner).map_err(|source| UsersError::Write { path: beside.clone(), source })?;
        let mut users = self.load()?;
        change(&mut users).map_err(UsersError::Edit)?;
        files::write_whole_as(&self.path, 0o600, Some(&owner), text(&users).as_bytes()).map_err(failed)
    }

    /// Whom the files belong to: the server may run as another user than root, who runs `vedette user`, and must go on reading
    /// them.
    fn owner(&self) -> io::Result<fs::Metadata> {
        fs::metadata(&self.path).or_else(|_| fs::metadata(self.folder()))
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// The users, or where a fault is and what it is.
fn parse(text: &str) -> Result<Vec<User>, (usize, String)> {
    let table: Table = toml::from_str(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        (offset, error.message().replace('\n', "; "))
    })?;
    let mut names = HashSet::new();
    let mut thumbprints = HashSet::new();
    for spanned in &table.user {
        let (offset, user) = (spanned.span().start, spanned.get_ref());
        let name = &user.name;
        if !names.insert(name) {
            return Err((offset, format!("user {name:?} is there twice", name = name.as_str())));
        }
        if let Some(phc) = &user.password {
            check_hash(phc).map_err(|what| (offset, format!("password of {name}: {what}")))?;
        }
        for Certificate { thumbprint, .. } in &user.certificates {
            if thumbprint.len() != 40 || !thumbprint.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                let what = format!("thumbprint {thumbprint:?} of {name} is not 40 hexadecimal digits in lower case");
                return Err((offset, what));
            }
            if !thumbprints.insert(thumbprint) {
                return Err((offset, format!("certificate {thumbprint} of {name} is there twice")));
            }
        }
    }
    Ok(table.user.into_iter().map(toml::Spanned::into_inner).collect())
}

/// What a login may cost: a hash from elsewhere could ask for all memory.
const MOST_MEMORY_KIB: u32 = 64 * 1024;
const MOST_PASSES: u32 = 10;

fn check_hash(phc: &str) -> Result<(), String> {
    let hash = PasswordHash::new(phc).map_err(|error| format!("no PHC string ({error})"))?;
    if hash.algorithm != argon2::ARGON2ID_IDENT || hash.hash.is_none() || hash.salt.is_none() {
        return Err("not a whole argon2id hash; set it with `vedette user password`".into());
    }
    let params = argon2::Params::try_from(&hash).map_err(|error| error.to_string())?;
    if params.m_cost() > MOST_MEMORY_KIB || params.t_cost() > MOST_PASSES || params.p_cost() > 4 {
        return Err(format!("costs too much; at most m={MOST_MEMORY_KIB},t={MOST_PASSES},p=4"));
    }
    Ok(())
}

/// No value needs escaping: names and hashes have neither quotes nor backslashes.
fn text(users: &[User]) -> String {
    let mut text = String::from(HEADER);
    for User { name, role, password, certificates } in users {
        let _ = write!(text, "\n[[user]]\nname = \"{name}\"\nrole = \"{role}\"\n");
        if let Some(phc) = password {
            let _ = writeln!(text, "password = \"{phc}\"");
        }
        if !certificates.is_empty() {
            text.push_str("certificates = [\n");
            for Certificate { thumbprint, not_before, not_after } in certificates {
                let [from, to] = [not_before, not_after].map(|&time| humantime::format_rfc3339_seconds(time));
                let _ = writeln!(
                    text,
                    "    {{ thumbprint = \"{thumbprint}\", not_before = \"{from}\", not_after = \"{to}\" }},"
                );
            }
            text.push_str("]\n");
        }
    }
    text
}

fn time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_rfc3339(&text).map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, UNIX_EPOCH};

    const PHC: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$BPDMIVyCvuRIqgsZoNDZtX3ZrvfhQDsIFOWCbPGAzB4";

    fn anna() -> User {
        let certificate = Certificate {
            thumbprint: "0123456789abcdef0123456789abcdef01234567".into(),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + Duration::from_secs(1_900_000_000),
        };
        User {
            name: "anna".parse().unwrap(),
            role: Role::Operator,
            password: Some(PHC.into()),
            certificates: vec![certificate],
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let file = UsersFile::new(folder.path());
        assert_eq!(file.load().unwrap(), []);
        file.edit(|users| {
            users.push(anna());
            users.push(User {
                name: "Jörg B.".parse().unwrap(),
                role: Role::Admin,
                password: None,
                certificates: Vec::new(),
            });
            Ok(())
        })
        .unwrap();
        let users = file.load().unwrap();
        assert_eq!((users.len(), &users[0], users[1].name.as_str()), (2, &anna(), "Jörg B."));
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let refused = file.edit(|users| {
            users.clear();
            Err("no".into())
        });
        assert_eq!(refused.unwrap_err().to_string(), "no");
        assert_eq!(file.load().unwrap().len(), 2);
    }

    #[test]
    fn faults_are_said_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = UsersFile::new(folder.path());
        let said = |text: &str| {
            fs::write(file.path(), text).unwrap();
            file.load().unwrap_err().to_string().replace(&file.path().display().to_string(), "users.toml")
        };
        let user = "[[user]]\nname = 'a'\nrole = 'viewer'\n";
        for (text, expected) in [
            ("[[user]]\nname = 'a'\nrole = 'boss'\n".to_owned(), "users.toml:3: unknown variant `boss`"),
            (format!("{user}{user}"), "users.toml:4: user \"a\" is there twice"),
            (format!("\n{user}password = 'secret'\n"), "users.toml:2: password of a: no PHC string"),
            (
                format!(
                    "{user}certificates = [{{ thumbprint = '12', not_before = '2020-01-01T00:00:00Z', not_after = '2030-01-01T00:00:00Z' }}]\n"
                ),
                "users.toml:1: thumbprint \"12\" of a is not 40",
            ),
            (
                format!("{user}password = '{}'\n", PHC.replace("19456", "4000000")),
                "users.toml:1: password of a: costs too much",
            ),
            (
                format!("{user}password = '{}'\n", PHC.replace("argon2id", "argon2i")),
                "users.toml:1: password of a: not a whole",
            ),
            ("[[user]]\nname = 'a\"b'\nrole = 'viewer'\n".to_owned(), "users.toml:2: \"a\\\"b\" is no user name"),
            ("[[user]\n".to_owned(), "users.toml:1: "),
        ] {
            let said = said(&text);
            assert!(said.starts_with(expected), "{said:?} for {text}");
        }
    }

    #[test]
    fn names_need_no_escaping() {
        for bad in ["", " a", "a ", "a\"b", "a\\b", "a\nb", "a\u{202e}b", &"x".repeat(65)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
        }
        for good in ["a", "Jörg B.", "a.b-c_d@e", &"x".repeat(64)] {
            good.parse::<UserName>().unwrap();
        }
    }
}
