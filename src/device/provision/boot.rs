//! Files on the boot partition: found by the names that people give them, read within bounds.
//!
//! The partition is FAT, where there are neither links nor pipes and capitals do not count; but whoever mounts another one there
//! must not have root read, or overwrite, what a link leads to, or wait for a pipe.

use super::file::LARGEST;
use super::{ERRORS, FILE};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// What Windows makes of it when it hides how names end.
const OF_WINDOWS: &str = "vedette.toml.txt";

/// The file to be taken in, if there is one; or what is wrong with it.
pub(super) fn find(boot: &Path) -> Result<Option<PathBuf>, String> {
    let is_name = |name: &str| name.eq_ignore_ascii_case(FILE) || name.eq_ignore_ascii_case(OF_WINDOWS);
    let entries = match fs::read_dir(boot) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{FILE}: cannot look for it ({error})")),
    };
    let mut found: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    found.retain(|name| is_name(name));
    found.sort();
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(boot.join(name))),
        several => Err(format!(
            "{}: only one of these may be there; remove what is not meant, and {ERRORS} goes with it",
            several.join(", ")
        )),
    }
}

pub(super) fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_by_the_names_that_people_give_it() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(find(&folder.path().join("none")), Ok(None));
        for name in ["VEDETTE.TOML", "Vedette.toml.txt", "vedette.toml"] {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::write(folder.path().join("vedette.toml.bak"), "").unwrap();
            assert_eq!(find(folder.path()), Ok(Some(path.clone())));
            fs::remove_file(path).unwrap();
        }
        fs::write(folder.path().join("vedette.toml"), "").unwrap();
        fs::write(folder.path().join("vedette.toml.txt"), "").unwrap();
        let what = find(folder.path()).unwrap_err();
        assert!(what.starts_with("vedette.toml, vedette.toml.txt: only one of these"), "{what}");
    }

    #[test]
    fn what_is_no_file_or_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let (link, secret) = (folder.path().join("vedette.toml"), folder.path().join("secret"));
        fs::write(&secret, "x").unwrap();
        std::os::unix::fs::symlink(&secret, &link).unwrap();
        for path in [link.as_path(), folder.path()] {
            assert_eq!(read_bounded(path).unwrap_err().to_string(), "it is no ordinary file");
        }
        File::create(&secret).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(read_bounded(&secret).unwrap_err().to_string(), "it has more than 1 MiB");
    }
}
