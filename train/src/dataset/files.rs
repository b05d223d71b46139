//! The files of a data set, in a folder or in an archive (tar, plain or gzip, or zip), by name and in bytewise order. An
//! archive is streamed, never unpacked to disk; every size is bounded before memory is given to it.

use super::zip;
use crate::{Error, Result};
use excon_edge::Error as EdgeError;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Most files in one data set.
const MOST_FILES: usize = 5_000_000;
/// Deepest folder below the top.
const DEEPEST: usize = 12;
/// Most bytes an archive may inflate to.
const MOST_INFLATED: u64 = 64 << 30;
/// Most bytes behind the last file: writers fill up to a whole number of blocks.
const MOST_PADDING: u64 = 16 << 20;
/// A batch of files is handed on when it holds so many files or bytes.
const BATCH: (usize, usize) = (256, 64 << 20);

enum Place {
    Folder,
    Archive,
    Embedded(&'static [u8]),
}

/// The files of one data set.
pub(crate) struct Files {
    path: PathBuf,
    place: Place,
    /// Folder that all files lie in, with a closing slash, or empty; not part of the names.
    top: String,
    names: Vec<String>,
}

impl Files {
    /// A folder, or a `.tar.gz`, `.tar` or `.zip`, by its first bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|source| EdgeError::Read { path: path.into(), source })?;
        match (metadata.is_dir(), metadata.is_file()) {
            (true, _) => Self::list(path.into(), Place::Folder),
            (_, true) => Self::list(path.into(), Place::Archive),
            _ => Err(Error::Dataset { path: path.into(), reason: "it is neither a folder nor a file".into() }),
        }
    }

    /// An archive that is part of the program.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::list(name.into(), Place::Embedded(bytes))
    }

    fn list(path: PathBuf, place: Place) -> Result<Self> {
        let mut files = Self { path, place, top: String::new(), names: Vec::new() };
        let mut names = Vec::new();
        match files.place {
            Place::Folder => files.walk(&files.path, "", 0, &mut names)?,
            Place::Archive | Place::Embedded(_) => files.each_entry(|name, _| {
                names.push(name);
                if names.len() > MOST_FILES {
                    return Err(files.error(format!("it holds more than {MOST_FILES} files")));
                }
                Ok(true)
            })?,
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(files.error(format!("it holds {} twice", twice[0])));
        }
        files.top = common_folder(&names);
        for name in &mut names {
            name.drain(..files.top.len());
        }
        files.names = names;
        Ok(files)
    }

    /// The folder or archive, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All names below the top folder, `/` between folders, in bytewise order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        self.names.binary_search_by(|n| n.as_str().cmp(name)).is_ok()
    }

    /// An error about this data set.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Dataset { path: self.path.clone(), reason: reason.into() }
    }

    /// The whole of a few files, in the order asked; none may be longer than `limit` bytes.
    pub fn read(&self, names: &[&str], limit: u64) -> Result<Vec<Vec<u8>>> {
        let mut contents = vec![Vec::new(); names.len()];
        self.visit(names, limit, |batch| {
            for (index, bytes) in batch {
                contents[index] = bytes;
            }
            Ok(())
        })?;
        Ok(contents)
    }

    /// One text file.
    pub fn read_text(&self, name: &str) -> Result<String> {
        let bytes = self.read(&[name], 64 << 20)?.pop().unwrap_or_default();
        String::from_utf8(bytes).map_err(|_| self.error(format!("{name} is not UTF-8 text")))
    }

    /// Hands out the named files in batches of (index into `names`, bytes), in no promised order, each exactly once.
    pub fn visit(
        &self,
        names: &[&str],
        limit: u64,
        mut take: impl FnMut(Vec<(usize, Vec<u8>)>) -> Result<()>,
    ) -> Result<()> {
        if let Some(missing) = names.iter().find(|name| !self.has(name)) {
            return Err(self.error(format!("{missing} is missing")));
        }
        if matches!(self.place, Place::Folder) {
            let indices: Vec<usize> = (0..names.len()).collect();
            // Few enough that even pictures at the size limit fit in memory.
            for chunk in indices.chunks(32) {
                let batch = chunk.par_iter().map(|&i| Ok((i, self.read_file(names[i], limit)?)));
                take(batch.collect::<Result<Vec<_>>>()?)?;
            }
            return Ok(());
        }
        let wanted: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (*name, i)).collect();
        let (mut batch, mut held, mut left) = (Vec::new(), 0, wanted.len());
        self.each_entry(|name, entry| {
            if let Some(&index) = name.strip_prefix(self.top.as_str()).and_then(|name| wanted.get(name)) {
                let bytes = self.read_bounded(&name, entry, limit)?;
                held += bytes.len();
                batch.push((index, bytes));
                left -= 1;
            }
            if batch.len() >= BATCH.0 || held >= BATCH.1 {
                held = 0;
                take(std::mem::take(&mut batch))?;
            }
            Ok(left > 0)
        })?;
        take(batch)
    }

    fn read_file(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path.join(&self.top).join(name);
        let mut file = File::open(&path).map_err(|source| EdgeError::Read { path, source })?;
        self.read_bounded(name, &mut file, limit)
    }

    fn read_bounded(&self, name: &str, from: &mut dyn Read, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        from.take(limit + 1).read_to_end(&mut bytes).map_err(|e| self.damaged(Some(name), &e))?;
        if bytes.len() as u64 > limit {
            return Err(self.error(format!("{name} is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn damaged(&self, name: Option<&str>, cause: &std::io::Error) -> Error {
        let place = name.map(|name| format!(" at {name}")).unwrap_or_default();
        self.error(format!("it is damaged or cut short{place} ({cause}). Fetch it again"))
    }

    /// Calls `see` with each regular file of the archive, until it says no.
    fn each_entry(&self, mut see: impl FnMut(String, &mut dyn Read) -> Result<bool>) -> Result<()> {
        let mut raw: Box<dyn Read> = match self.place {
            Place::Embedded(bytes) => Box::new(bytes),
            _ => {
                let file = File::open(&self.path).map_err(|source| EdgeError::Read { path: self.path.clone(), source });
                Box::new(BufReader::with_capacity(1 << 16, file?))
            }
        };
        let mut magic = Vec::new();
        (&mut raw).take(4).read_to_end(&mut magic).map_err(|e| self.damaged(None, &e))?;
        if magic == zip::MAGIC {
            return self.each_zipped(&mut see);
        }
        let gzip = magic.starts_with(&[0x1f, 0x8b]);
        let raw = std::io::Cursor::new(magic).chain(raw);
        let stream: Box<dyn Read> = if gzip { Box::new(MultiGzDecoder::new(raw)) } else { Box::new(raw) };
        let mut archive = tar::Archive::new(stream.take(MOST_INFLATED));
        for entry in archive.entries().map_err(|e| self.damaged(None, &e))? {
            let mut entry = entry.map_err(|e| self.not_an_archive(&e))?;
            if !entry.header().entry_type().is_file() {
                continue;
            }
            let bytes = entry.path_bytes().into_owned();
            if let Some(name) = self.name(&bytes)?
                && !see(name, &mut entry)?
            {
                return Ok(());
            }
        }
        // Read on behind the last file, so that the checksum at the end of a gzip stream is looked at.
        let mut rest = archive.into_inner().take(MOST_PADDING);
        let padding = std::io::copy(&mut rest, &mut std::io::sink()).map_err(|e| self.damaged(None, &e))?;
        if padding == MOST_PADDING {
            return Err(self.error("it goes on after the end of the archive. Fetch it again"));
        }
        Ok(())
    }

    fn each_zipped(&self, see: &mut dyn FnMut(String, &mut dyn Read) -> Result<bool>) -> Result<()> {
        /// An error of the archive, or of who looks at its files.
        enum Either {
            Archive(std::io::Error),
            Ours(Error),
        }
        impl From<std::io::Error> for Either {
            fn from(error: std::io::Error) -> Self {
                Self::Archive(error)
            }
        }
        let file = File::open(&self.path).map_err(|source| EdgeError::Read { path: self.path.clone(), source })?;
        let each = zip::each_file(BufReader::with_capacity(1 << 16, file), |bytes, content| {
            self.name(bytes).and_then(|name| name.map_or(Ok(true), |name| see(name, content))).map_err(Either::Ours)
        });
        each.map_err(|error| match error {
            Either::Archive(cause) => self.damaged(None, &cause),
            Either::Ours(error) => error,
        })
    }

    /// The name of an archive's file, cleaned; none for hidden ones, which are passed over.
    fn name(&self, bytes: &[u8]) -> Result<Option<String>> {
        let name = std::str::from_utf8(bytes).map_err(|_| self.error("a file name in it is not UTF-8. Rename it"))?;
        let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(self.error(format!("file name {name} leads outside of it")));
        }
        Ok((!parts.iter().any(|part| part.starts_with('.'))).then(|| parts.join("/")))
    }

    fn not_an_archive(&self, cause: &std::io::Error) -> Error {
        self.error(format!("it is no whole tar archive ({cause}). Give a folder, or a .tar.gz as downloaded"))
    }

    fn walk(&self, folder: &Path, prefix: &str, depth: usize, names: &mut Vec<String>) -> Result<()> {
        if depth > DEEPEST {
            return Err(self.error(format!("{prefix} is more than {DEEPEST} folders deep")));
        }
        let unreadable = |source| Error::from(EdgeError::Read { path: folder.into(), source });
        for entry in std::fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(self.error(format!("{} is not UTF-8. Rename it", path.display())));
            };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            let metadata = std::fs::metadata(&path).map_err(|source| EdgeError::Read { path: path.clone(), source })?;
            if metadata.is_dir() {
                self.walk(&path, &format!("{name}/"), depth + 1, names)?;
            } else {
                names.push(name);
            }
            if names.len() > MOST_FILES {
                return Err(self.error(format!("it holds more than {MOST_FILES} files")));
            }
        }
        Ok(())
    }
}

/// The folder all files share, such as `cifar-100-binary/`; a lone split folder or a lone class folder is not taken for it.
fn common_folder(names: &[String]) -> String {
    let Some((top, _)) = names.first().and_then(|name| name.split_once('/')) else {
        return String::new();
    };
    let top = format!("{top}/");
    let split = ["train/", "val/", "valid/", "validation/", "test/"].contains(&top.as_str());
    let table = |name: &str| matches!(name.strip_prefix(&top), Some("labels.csv" | "pairs.csv"));
    let alone = |name: &str| name.ends_with(".bin") || name.ends_with(".npy") || table(name);
    let deeper = names.iter().any(|name| name.matches('/').count() > 1 || alone(name));
    if !split && deeper && names.iter().all(|name| name.starts_with(&top)) { top } else { String::new() }
}
