//! Writing files so that a power cut, a full disk or a reader in between sees the old file or the new one, never a part.

use crate::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// How the names of files begin that are not whole yet; a killed process may leave one.
pub const PARTIAL: &str = ".partial-";

/// Writes beside the file, waits for the disk, renames, and lets the rename outlive a power cut too.
///
/// # Errors
/// [`Error::Write`]; the old file is then untouched.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // less the umask, as any new file
    let write = || {
        let mut file = builder.tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|e| e.error)?;
        // Where folders cannot be synced it is up to the system.
        if let Ok(folder) = File::open(folder) {
            let _ = folder.sync_all();
        }
        Ok(())
    };
    write().map_err(|source| Error::Write { path: path.into(), source })
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
