//! Public data sets on disk: which there are, fetching one, checking what was fetched.
//!
//! Fetching never leaves half a data set: the archive is downloaded with resume, every file is compared with what its
//! authors published, and only a whole folder appears in its place. Where no checksum is published, that of the first
//! download is recorded in the folder ([`RECORD`]) and said to be no more than that. Nothing here runs unless asked for.

mod catalogue;
mod download;
#[cfg(test)]
mod tests;

pub use catalogue::{Expected, SETS, Set};

use crate::dataset::files::Files;
use crate::{Error, Result};
use md5::Md5;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the record in a fetched folder; hidden, so that it is no part of the data set.
pub const RECORD: &str = ".excon-data.json";
/// Schema of the record.
const SCHEMA: &str = "excon.data/1";
/// Folder for what is under way, below the folder of data sets.
const UNDER_WAY: &str = ".excon-fetch";
/// Longest file of a data set, bytes.
const LONGEST: u64 = 1 << 30;

/// What a folder held when it was fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Always `excon.data/1`.
    pub schema: String,
    /// Name of the data set.
    pub name: String,
    /// Where the archive came from.
    pub address: String,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 over names and contents of all files, in bytewise order of the names.
    pub sha256: String,
}

/// What is known of a data set's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Name of the data set.
    pub name: &'static str,
    /// The folder.
    pub folder: PathBuf,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files that equal what their authors published.
    pub published: usize,
    /// Whether all files together are those of the first download; none where no record was made.
    pub as_recorded: Option<bool>,
    /// What is wrong, file by file; empty when all is well.
    pub faults: Vec<String>,
}

impl Checked {
    /// Whether the data set can be used.
    pub fn is_sound(&self) -> bool {
        self.faults.is_empty() && self.as_recorded != Some(false)
    }
}

/// Progress of a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Bytes of the archive that are there, of how many where the server says it.
    Downloading(u64, Option<u64>),
    /// Files unpacked and compared, of how many.
    Unpacking(usize, usize),
}

impl Set {
    /// By its name; the nearest is named where there is none.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn named(name: &str) -> Result<&'static Self> {
        SETS.iter().find(|set| set.name == name).ok_or_else(|| {
            let near = SETS.iter().min_by_key(|set| strsim::levenshtein(set.name, name)).map_or("", |set| set.name);
            let known: Vec<&str> = SETS.iter().map(|set| set.name).collect();
            let reason = format!("there is no {name}; the nearest is {near}. Known are {}", known.join(", "));
            Error::Setting { name: "data set".into(), reason }
        })
    }

    /// Where it lies, or would lie, below a folder of data sets.
    pub fn place(&self, below: &Path) -> PathBuf {
        below.join(self.folder)
    }

    /// Fetches it below a folder, from its authors' address or another: a URL, or an archive that is at hand. A folder that
    /// is there already is checked instead.
    ///
    /// # Errors
    /// [`Error::Unreachable`] without network; [`Error::Dataset`] when the archive is not what its authors published; the
    /// runtime's when the disk refuses. What was downloaded is kept for the next time.
    pub fn fetch(&self, below: &Path, from: Option<&str>, seen: &mut dyn FnMut(Step)) -> Result<Checked> {
        let place = self.place(below);
        if place.exists() {
            let checked = self.check(&place)?;
            if checked.is_sound() {
                return Ok(checked);
            }
            let reason =
                format!("it is there already, but {}. Move it away to fetch it anew", checked.faults.join("; "));
            return Err(Error::Dataset { path: place, reason });
        }
        let address = from.unwrap_or(self.address);
        let work = below.join(UNDER_WAY).join(self.name);
        let cannot = |path: &Path, source| Error::from(excon_edge::Error::Write { path: path.into(), source });
        std::fs::create_dir_all(&work).map_err(|e| cannot(&work, e))?;
        let local = Path::new(address).is_file();
        let archive = if local { PathBuf::from(address) } else { work.join("archive") };
        if !local && !archive.exists() {
            download::download(address, &archive, &mut |have, of| seen(Step::Downloading(have, of)))?;
        }
        let whole = work.join("whole");
        let refuse = |reason: String| {
            let _ = clear(&whole);
            if !local {
                // It is whole, and not what it should be: another try must not begin with it.
                let _ = std::fs::remove_file(&archive);
            }
            let reason = format!("{reason}. It was not kept; fetch it again, or elsewhere with --from");
            Err(Error::Dataset { path: address.into(), reason })
        };
        clear(&whole).and_then(|()| std::fs::create_dir_all(&whole)).map_err(|e| cannot(&whole, e))?;
        let checked = match self.unpack(&archive, &whole, address, seen) {
            Ok(checked) if checked.is_sound() => checked,
            Ok(checked) => return refuse(checked.faults.join("; ")),
            Err(Error::Dataset { reason, .. }) => return refuse(reason),
            Err(other) => {
                let _ = clear(&whole); // The disk refused; the archive waits for the next time.
                return Err(other);
            }
        };
        std::fs::rename(&whole, &place).map_err(|e| cannot(&place, e))?;
        // The archive has done its work; what cannot be removed does no harm.
        let _ = clear(&work);
        let _ = std::fs::remove_dir(below.join(UNDER_WAY));
        Ok(Checked { folder: place, ..checked })
    }

    /// Compares a folder with what its authors published and with the record of the first download.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn check(&self, folder: &Path) -> Result<Checked> {
        let files = Files::open(folder)?;
        let mut sums = Sums::default();
        // One by one: the longest arrays would not fit in memory together.
        for name in names(&files) {
            files.read(&[name], LONGEST)?.iter().for_each(|bytes| sums.add(name, bytes));
        }
        let mut checked = self.judge(folder, &sums);
        let record =
            std::fs::read(folder.join(RECORD)).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        if let Some(record) = record {
            let same = record.sha256 == sums.together();
            checked.as_recorded = Some(same);
            if !same && checked.faults.is_empty() {
                checked.faults.push("its files are not those of the first download".into());
            }
        }
        Ok(checked)
    }

    /// Unpacks an archive into a folder, with a record.
    fn unpack(&self, archive: &Path, into: &Path, address: &str, seen: &mut dyn FnMut(Step)) -> Result<Checked> {
        let files = Files::open(archive)?;
        let all = names(&files);
        let (mut sums, mut done) = (Sums::default(), 0);
        files.visit(&all, LONGEST, |batch| {
            for (index, bytes) in batch {
                let name = all[index];
                let path = into.join(name);
                let write =
                    path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, &bytes));
                write.map_err(|source| excon_edge::Error::Write { path, source })?;
                sums.add(name, &bytes);
                done += 1;
            }
            seen(Step::Unpacking(done, all.len()));
            Ok(())
        })?;
        let record = Record {
            schema: SCHEMA.into(),
            name: self.name.into(),
            address: address.into(),
            files: sums.files.len(),
            bytes: sums.bytes,
            sha256: sums.together(),
        };
        let path = into.join(RECORD);
        let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
        std::fs::write(&path, text).map_err(|source| excon_edge::Error::Write { path, source })?;
        Ok(Checked { as_recorded: Some(true), ..self.judge(into, &sums) })
    }

    /// Compares what was seen with what its authors published.
    fn judge(&self, folder: &Path, sums: &Sums) -> Checked {
        let (mut faults, mut published) = (Vec::new(), 0);
        for expected in self.files {
            let Some(found) = sums.files.get(expected.name) else {
                faults.push(format!("{} is missing", expected.name));
                continue;
            };
            if let Some(bytes) = expected.bytes.filter(|b| *b != found.bytes) {
                faults.push(format!("{} has {} bytes, not {bytes}", expected.name, found.bytes));
            } else if let Some(md5) = expected.md5.filter(|md5| *md5 != found.md5) {
                faults.push(format!("{} has the MD5 {}, not the published {md5}", expected.name, found.md5));
            } else {
                published += usize::from(expected.md5.is_some());
            }
        }
        if let Some(pictures) = self.pictures {
            let is_picture = |name: &&String| name.to_ascii_lowercase().ends_with(".jpeg");
            let found = sums.files.keys().filter(is_picture).count();
            if found != pictures {
                faults.push(format!("it has {found} pictures, not {pictures}"));
            }
        }
        Checked {
            name: self.name,
            folder: folder.into(),
            files: sums.files.len(),
            bytes: sums.bytes,
            published,
            as_recorded: None,
            faults,
        }
    }
}

fn names(files: &Files) -> Vec<&str> {
    files.names().iter().map(String::as_str).collect()
}

/// Removes a folder with all that is in it, if it is there.
fn clear(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) }
}

/// Size and checksums of one file.
struct Sum {
    bytes: u64,
    md5: String,
    sha256: String,
}

/// Sizes and checksums of all files of a data set.
#[derive(Default)]
struct Sums {
    files: BTreeMap<String, Sum>,
    bytes: u64,
}

impl Sums {
    fn add(&mut self, name: &str, content: &[u8]) {
        let sum =
            Sum { bytes: content.len() as u64, md5: hex(&Md5::digest(content)), sha256: hex(&Sha256::digest(content)) };
        self.bytes += sum.bytes;
        self.files.insert(name.into(), sum);
    }

    /// SHA-256 of a line a file: its SHA-256 and its name, two blanks between, as `sha256sum` writes them.
    fn together(&self) -> String {
        let lines: String = self.files.iter().map(|(name, sum)| format!("{}  {name}\n", sum.sha256)).collect();
        hex(&Sha256::digest(lines))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
