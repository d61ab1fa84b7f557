//! Files as Unix has them: with modes, owners and inodes.

use rustix::fs::OFlags;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

pub fn options(mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(mode);
    options
}

/// For what may be there already and must be no link, and no pipe that one waits for (open(2)).
pub fn options_without_links(mode: u32) -> OpenOptions {
    let mut options = options(mode);
    options.custom_flags(OFlags::NOFOLLOW.union(OFlags::NONBLOCK).bits().cast_signed());
    options
}

pub fn make_folder(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

pub fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub fn stamp(file: &Metadata) -> [i64; 7] {
    let (inode, device, size) = (file.ino().cast_signed(), file.dev().cast_signed(), file.size().cast_signed());
    [inode, device, size, file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()]
}

pub fn is_private(file: &Metadata) -> bool {
    file.mode() & 0o077 == 0
}

pub fn shut_out_everybody(path: &Path) -> io::Result<bool> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o007 == 0 {
        return Ok(false);
    }
    fs::set_permissions(path, Permissions::from_mode(mode & 0o770))?;
    Ok(true)
}

pub fn give_to_owner_of(like: &Metadata, file: &File) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    Ok(())
}
