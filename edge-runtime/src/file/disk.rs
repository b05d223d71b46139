//! The few operations that slots and saved states are made of, as one trait: the real disk here, and in the tests one
//! that fails at a chosen operation and one that remembers what a power cut may leave.
//!
//! None of them is durable alone. What was written is on the disk after [`Disk::sync`] of the file; that a name exists,
//! has gone or was renamed is on the disk after [`Disk::sync_folder`] of its folder. Until then the disk may keep any
//! of it, in any order.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// A place for files.
pub trait Disk {
    /// The whole content of a plain file of at most `most` bytes; links are not followed.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is none, [`io::ErrorKind::InvalidData`] when it is no plain file or larger.
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>>;

    /// The names in a folder, in no order.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] when there is no folder.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Writes a file, creating it or replacing its content in place.
    ///
    /// # Errors
    /// When the system refuses; a part may have been written.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Waits until a file's content is on the disk.
    ///
    /// # Errors
    /// When the system cannot promise it.
    fn sync(&self, path: &Path) -> io::Result<()>;

    /// Waits until the names in a folder are on the disk.
    ///
    /// # Errors
    /// When the system cannot promise it.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Gives a file another name in the same folder, replacing what had it, in one step.
    ///
    /// # Errors
    /// When the system refuses; then nothing has changed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Creates one folder in a folder that exists.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the name is taken, or when the system refuses.
    fn create_folder(&self, folder: &Path) -> io::Result<()>;
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Disk for System {
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let about = fs::symlink_metadata(path)?;
        if !about.is_file() || about.len() > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no plain file or larger than declared"));
        }
        let mut bytes = Vec::new();
        File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        fs::write(path, bytes)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        // Some file systems have no such promise to give, and a folder one may write to may not be one to read.
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            Err(e) if matches!(e.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir(folder)
    }
}
