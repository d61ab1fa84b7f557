//! A file whose secrets are not to stay on the card.
//!
//! Its bytes are overwritten where they are and then its name goes. The first sector comes first: from then on nobody takes the file for
//! one that is to be read, wherever the power goes. What an editor left in other places of the card, and what a card
//! keeps behind its own back to spread wear, is out of reach from here.

use crate::base::files;
use std::fs::OpenOptions;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

/// What a card writes at once.
const SECTOR: usize = 512;

pub(super) fn erase(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = usize::try_from(file.seek(SeekFrom::End(0))?).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(0))?;
    let zeros = vec![0; length];
    let (first, rest) = zeros.split_at(length.min(SECTOR));
    file.write_all(first)?;
    file.sync_all()?;
    file.write_all(rest)?;
    file.sync_all()?;
    drop(file);
    files::remove(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read as _;

    #[test]
    fn what_was_in_the_file_is_gone_before_its_name_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vedette.toml");
        fs::write(&path, "secret".repeat(200)).unwrap();
        let mut open = fs::File::open(&path).unwrap();
        erase(&path).unwrap();
        let mut left = Vec::new();
        open.read_to_end(&mut left).unwrap();
        assert!(left.len() == 1200 && left.iter().all(|&byte| byte == 0) && !path.exists());
    }
}
