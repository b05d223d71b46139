//! Writing files so that a power cut, a full disk or a reader in between sees the old file or the new one, never a part;
//! and the digest that tells one file from another.

mod disk;

pub use disk::{Disk, System};

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the names of files begin that are not whole yet; a killed process may leave one.
pub const PARTIAL: &str = ".partial-";

/// SHA-256 of some bytes, lower-case hex: how files, pictures and states are named and checked.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Writes beside the file, waits for the disk, renames, and lets the rename outlive a power cut too.
///
/// # Errors
/// [`Error::Write`]; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let partial = folder(path).join(format!("{PARTIAL}{}-{count}", std::process::id()));
    replace_by(&System, &partial, path, bytes).map_err(|source| Error::Write { path: path.into(), source })
}

/// As [`replace`], on any disk and by way of a named file in the same folder.
///
/// # Errors
/// The system's; the old file is then untouched and no part of the new one is left.
pub fn replace_by(disk: &impl Disk, partial: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = disk.write(partial, bytes).and_then(|()| disk.sync(partial));
    if let Err(error) = written.and_then(|()| disk.rename(partial, path)) {
        let _ = disk.remove(partial);
        return Err(error);
    }
    disk.sync_folder(folder(path))
}

/// The folder that a path's last name is in.
pub(crate) fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = replace(&path.join("below"), b"x").unwrap_err();
        assert_eq!(error.exit_code(), 73);
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
    }
}
