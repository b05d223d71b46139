//! Verified members, not yet taken apart: what a reader gets from a container or a folder, and what is written into
//! another one, such as a slot, byte for byte.

use super::archive::{self, Refusal};
use super::signature::{MAX_SIGNATURE, Signed, Trust};
use super::{MANIFEST, MANIFEST_DIGEST, MANIFEST_SIGNATURE, MAX_MANIFEST, MAX_TOTAL, Manifest};
use crate::file::{self, Disk, System};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq)]
pub struct Members {
    /// The manifest's own bytes: what is signed, and whose digest names the bundle.
    pub manifest_bytes: Vec<u8>,
    /// The signature file's bytes, where there is one.
    pub signature: Option<Vec<u8>>,
    /// What the signature says, as far as it was checked.
    pub signed: Signed,
    /// The manifest.
    pub manifest: Manifest,
    /// The files that the manifest lists, by name.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Members {
    /// Reads and verifies a `.excon` file, or a folder with the same members.
    ///
    /// # Errors
    /// [`Error::Refused`] when no pinned key signed it; [`Error::Read`] when the system cannot read it;
    /// [`Error::Bundle`] when anything in it is not what the manifest declares.
    pub fn open(path: &Path, trust: &Trust) -> Result<Self> {
        match path.is_dir() {
            true => Self::open_on(&System, path, trust),
            false => read_file(path, trust).map_err(|refusal| refused(path, refusal)),
        }
    }

    /// Reads and verifies a folder on any disk.
    ///
    /// # Errors
    /// As [`Members::open`].
    pub fn open_on(disk: &impl Disk, folder: &Path, trust: &Trust) -> Result<Self> {
        read_folder(disk, folder, trust).map_err(|refusal| refused(folder, refusal))
    }

    /// SHA-256 of the manifest, lower-case hex: names the bundle.
    pub fn digest(&self) -> String {
        file::digest(&self.manifest_bytes)
    }

    /// Every member by name, in the order of a container.
    pub fn entries(&self) -> Vec<(&str, Vec<u8>)> {
        let line = archive::digest_line(&self.manifest_bytes).into_bytes();
        let mut entries = vec![(MANIFEST, self.manifest_bytes.clone()), (MANIFEST_DIGEST, line)];
        entries.extend(self.signature.iter().map(|s| (MANIFEST_SIGNATURE, s.clone())));
        entries.extend(self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
        entries
    }

    /// The container as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // Writing to memory fails for no system's reason; names are those of a validated manifest.
        let _ = self.container(&mut bytes);
        bytes
    }

    /// Writes the container. What stood there before stays until the new file is complete and on disk.
    ///
    /// # Errors
    /// [`Error::Write`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            let temporary = tempfile::Builder::new().prefix(".excon-").tempfile_in(file::folder(path))?;
            let mut buffered = BufWriter::new(temporary);
            self.container(&mut buffered)?;
            let temporary = buffered.into_inner().map_err(|e| e.into_error())?;
            temporary.as_file().sync_all()?;
            world_readable(temporary.as_file())?;
            temporary.persist(path).map_err(|e| e.error)?;
            System.sync_folder(file::folder(path))
        };
        write().map_err(|source| Error::Write { path: path.into(), source })
    }

    fn container(&self, to: &mut impl Write) -> io::Result<()> {
        let entries = self.entries();
        archive::write(to, entries.iter().map(|(name, bytes)| (*name, bytes.as_slice())))?;
        to.flush()
    }
}

fn refused(path: &Path, refusal: Refusal) -> Error {
    match refusal {
        Refusal::System(source) => Error::Read { path: path.into(), source },
        Refusal::Content(reason) => Error::Bundle { path: path.into(), reason },
        Refusal::Untrusted(reason) => Error::Refused { path: path.into(), reason },
    }
}

fn read_file(path: &Path, trust: &Trust) -> std::result::Result<Members, Refusal> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(Refusal::Content("it is neither a file nor a folder".into()));
    }
    // Headers and padding of a handful of members fit in the second term.
    if about.len() > MAX_TOTAL + 2 * MAX_MANIFEST {
        return Err(Refusal::Content(format!("{} bytes are more than a bundle may have", about.len())));
    }
    archive::read(&mut BufReader::with_capacity(1 << 16, file), about.len(), trust)
}

/// The same members in a folder. Anything else in it, and anything that is no plain file, is refused.
fn read_folder(disk: &impl Disk, folder: &Path, trust: &Trust) -> std::result::Result<Members, Refusal> {
    let plain = |name: &str, most: u64| -> std::result::Result<Vec<u8>, Refusal> {
        disk.read(&folder.join(name), most).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Refusal::Content(format!("{name} is missing")),
            io::ErrorKind::InvalidData => Refusal::Content(format!("{name}: {e}")),
            _ => Refusal::System(e),
        })
    };
    let manifest_bytes = plain(MANIFEST, MAX_MANIFEST)?;
    let signature = match disk.read(&folder.join(MANIFEST_SIGNATURE), MAX_SIGNATURE) {
        Ok(bytes) => Some(bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Refusal::Content(format!("{MANIFEST_SIGNATURE}: {e}"))),
    };
    let signed = trust.check(&manifest_bytes, signature.as_deref()).map_err(Refusal::Untrusted)?;
    let manifest = archive::parse_manifest(&manifest_bytes, &plain(MANIFEST_DIGEST, 256)?)?;
    let own = [MANIFEST, MANIFEST_DIGEST, MANIFEST_SIGNATURE];
    for name in disk.list(folder)? {
        if !name.to_str().is_some_and(|n| own.contains(&n) || manifest.files.contains_key(n)) {
            return Err(Refusal::Content(format!("{} is not in the manifest", name.to_string_lossy())));
        }
    }
    let mut files = BTreeMap::new();
    for (name, entry) in &manifest.files {
        let bytes = plain(name, entry.size)?;
        archive::verify(name, &bytes, entry)?;
        files.insert(name.clone(), bytes);
    }
    Ok(Members { manifest_bytes, signature, signed, manifest, files })
}

/// Temporary files are private; a bundle is read by whoever serves it.
fn world_readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}
