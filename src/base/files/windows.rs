//! Files as Windows has them: who may read one is inherited from its folder, and that is set for the whole data folder when
//! the service is installed. So modes and owners mean nothing here.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::MetadataExt;
use std::path::Path;

pub fn options(_mode: u32) -> OpenOptions {
    OpenOptions::new()
}

/// Links need a right there that nobody has who could put one into the data folder.
pub fn options_without_links(mode: u32) -> OpenOptions {
    options(mode)
}

pub fn make_folder(path: &Path, _mode: u32) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// NTFS keeps its folders by a journal, and offers nothing to wait for.
#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

pub fn stamp(file: &Metadata) -> [i64; 7] {
    let times = [file.creation_time(), file.last_write_time(), file.file_size()].map(u64::cast_signed);
    let [made, written, size] = times;
    [made, written, size, 0, 0, 0, 0]
}

pub fn is_private(_file: &Metadata) -> bool {
    true
}

#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub fn shut_out_everybody(_path: &Path) -> io::Result<bool> {
    Ok(false)
}

#[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
pub fn give_to_owner_of(_like: &Metadata, _file: &File) -> io::Result<()> {
    Ok(())
}
