//! A disk in memory that remembers every operation, and what a power cut after any of them may leave.
//!
//! The model is POSIX at its least generous. A file's content is on the disk after a sync of the file; until then the
//! disk may hold nothing of it, its length in zeros, what was there before, or any part torn at sectors or pages. A
//! name (created, removed, renamed) is on the disk after a sync of its folder; until then any subset of the pending
//! changes may be there, so any order in which they were written. A rename is one change. Nothing else is promised.

use crate::file::Disk;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub type Bytes = Rc<Vec<u8>>;
pub type Inode = usize;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    File(Inode),
    Folder,
}

/// A change of the names in one folder.
#[derive(Debug, Clone)]
pub enum Change {
    Create(PathBuf, Entry),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn folder(&self) -> &Path {
        let (Self::Create(path, _) | Self::Remove(path) | Self::Rename(path, _)) = self;
        path.parent().unwrap()
    }

    pub fn apply(&self, names: &mut BTreeMap<PathBuf, Entry>) {
        match self {
            Self::Create(path, entry) => drop(names.insert(path.clone(), entry.clone())),
            Self::Remove(path) => drop(names.remove(path)),
            Self::Rename(from, to) => {
                if let Some(entry) = names.remove(from) {
                    names.insert(to.clone(), entry);
                }
            }
        }
    }
}

/// One recorded operation.
#[derive(Debug, Clone)]
pub enum Operation {
    Names(Change),
    Write(Inode, Bytes),
    Sync(Inode),
    SyncFolder(PathBuf),
    /// What the caller was told: from here on, only this counts as right.
    Told(usize),
}

/// What a program sees, and how it came about.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    names: BTreeMap<PathBuf, Entry>,
    contents: Vec<Bytes>,
    pub log: Vec<Operation>,
}

/// See the module's first paragraph.
#[derive(Debug, Clone, Default)]
pub struct Simulated(pub Rc<RefCell<Memory>>);

impl Simulated {
    /// A disk on which these files are, all of them durable.
    pub fn holding(names: BTreeMap<PathBuf, Entry>, contents: Vec<Bytes>) -> Self {
        Self(Rc::new(RefCell::new(Memory { names, contents, log: Vec::new() })))
    }

    pub fn told(&self, what: usize) {
        self.0.borrow_mut().log.push(Operation::Told(what));
    }

    /// What is there now, as if all of it were durable.
    pub fn settled(&self) -> (BTreeMap<PathBuf, Entry>, Vec<Bytes>) {
        let memory = self.0.borrow();
        (memory.names.clone(), memory.contents.clone())
    }
}

fn missing() -> io::Error {
    ErrorKind::NotFound.into()
}

impl Memory {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.log.push(Operation::Names(change));
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        match self.names.get(path) {
            Some(Entry::File(inode)) => Ok(*inode),
            Some(Entry::Folder) => Err(ErrorKind::InvalidData.into()),
            None => Err(missing()),
        }
    }

    fn is_folder(&self, path: &Path) -> bool {
        path == Path::new("/") || self.names.get(path) == Some(&Entry::Folder)
    }
}

impl Disk for Simulated {
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        let memory = self.0.borrow();
        let bytes = &memory.contents[memory.inode(path)?];
        if bytes.len() as u64 > most { Err(ErrorKind::InvalidData.into()) } else { Ok(bytes.to_vec()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let memory = self.0.borrow();
        if !memory.is_folder(folder) {
            return Err(missing());
        }
        let inside = memory.names.keys().filter(|p| p.parent() == Some(folder));
        Ok(inside.filter_map(|p| p.file_name()).map(OsString::from).collect())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        if !path.parent().is_some_and(|folder| memory.is_folder(folder)) {
            return Err(missing());
        }
        let inode = match memory.inode(path) {
            Ok(inode) => inode,
            Err(_) => {
                memory.contents.push(Bytes::default());
                let inode = memory.contents.len() - 1;
                memory.change(Change::Create(path.into(), Entry::File(inode)));
                inode
            }
        };
        let bytes = Bytes::new(bytes.to_vec());
        memory.contents[inode] = bytes.clone();
        memory.log.push(Operation::Write(inode, bytes));
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        let inode = memory.inode(path)?;
        memory.log.push(Operation::Sync(inode));
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.borrow_mut().log.push(Operation::SyncFolder(folder.into()));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        memory.inode(from)?;
        memory.change(Change::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        memory.inode(path)?;
        memory.change(Change::Remove(path.into()));
        Ok(())
    }

    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        let mut memory = self.0.borrow_mut();
        if memory.names.contains_key(folder) {
            return Err(ErrorKind::AlreadyExists.into());
        }
        if !folder.parent().is_some_and(|parent| memory.is_folder(parent)) {
            return Err(missing());
        }
        memory.change(Change::Create(folder.into(), Entry::Folder));
        Ok(())
    }
}

/// The moment of a power cut: what is durable, and what may or may not be.
#[derive(Debug, Clone)]
pub struct Cut {
    pub names: BTreeMap<PathBuf, Entry>,
    pub changes: Vec<Change>,
    /// Durable contents; a new file has none.
    pub contents: Vec<Bytes>,
    /// Contents that were written and not waited for: all that may be left of each.
    pub pending: BTreeMap<Inode, Vec<Bytes>>,
    /// The last thing the caller was told.
    pub told: usize,
}

impl Cut {
    /// Replays operations on what was durable before.
    pub fn after(names: &BTreeMap<PathBuf, Entry>, contents: &[Bytes], log: &[Operation]) -> Self {
        let mut cut = Self {
            names: names.clone(),
            changes: Vec::new(),
            contents: contents.to_vec(),
            pending: BTreeMap::new(),
            told: 0,
        };
        let mut written = BTreeMap::new();
        for operation in log {
            match operation {
                Operation::Names(change) => {
                    if let Change::Create(_, Entry::File(inode)) = change {
                        cut.contents.resize(cut.contents.len().max(inode + 1), Bytes::default());
                    }
                    cut.changes.push(change.clone());
                }
                Operation::Write(inode, bytes) => drop(written.insert(*inode, bytes.clone())),
                Operation::Sync(inode) => {
                    if let Some(bytes) = written.remove(inode) {
                        cut.contents[*inode] = bytes;
                    }
                }
                Operation::SyncFolder(folder) => {
                    let (now, later) = cut.changes.drain(..).partition(|change| change.folder() == folder);
                    let now: Vec<Change> = now;
                    now.iter().for_each(|change| change.apply(&mut cut.names));
                    cut.changes = later;
                }
                Operation::Told(what) => cut.told = *what,
            }
        }
        let left = |(inode, bytes): (Inode, Bytes)| (inode, forms(&cut.contents[inode], &bytes));
        cut.pending = written.into_iter().map(left).collect();
        cut
    }

    /// The disk when it comes back: the changes in `kept` happened, and each pending content is of the form `torn`.
    pub fn image(&self, kept: impl Fn(usize) -> bool, torn: impl Fn(Inode) -> usize) -> (Simulated, BTreeSet<String>) {
        let mut names = self.names.clone();
        for (index, change) in self.changes.iter().enumerate() {
            if kept(index) {
                change.apply(&mut names);
            }
        }
        // What lies in a folder that is not there cannot be reached.
        let all = names.clone();
        let reachable =
            |path: &Path| path.ancestors().skip(1).all(|a| a == Path::new("/") || all.get(a) == Some(&Entry::Folder));
        names.retain(|path, _| reachable(path));
        let mut contents = self.contents.clone();
        let mut key = BTreeSet::new();
        for (path, entry) in &names {
            let mut form = String::from("folder");
            if let Entry::File(inode) = entry {
                form = format!("{inode}");
                if let Some(forms) = self.pending.get(inode) {
                    contents[*inode] = forms[torn(*inode)].clone();
                    form += &format!(" torn {}", torn(*inode));
                }
            }
            key.insert(format!("{} {form}", path.display()));
        }
        (Simulated::holding(names, contents), key)
    }
}

/// What the disk may hold of a content that was not waited for: all of it first, then every way to lose some at a
/// border of sectors or pages: cut off, zeros behind, one block missing, one block alone.
fn forms(old: &Bytes, new: &Bytes) -> Vec<Bytes> {
    let mut forms = vec![new.to_vec(), Vec::new(), old.to_vec(), vec![0; new.len()]];
    for unit in [512, 4096] {
        for at in (unit..new.len()).step_by(unit) {
            forms.push(new[..at].to_vec());
            forms.push([&new[..at], &vec![0; new.len() - at]].concat());
        }
        for at in (0..new.len()).step_by(unit).filter(|_| new.len() > unit) {
            let block = at..new.len().min(at + unit);
            let (mut missing, mut alone) = (new.to_vec(), vec![0; new.len()]);
            missing[block.clone()].fill(0);
            alone[block.clone()].copy_from_slice(&new[block]);
            forms.extend([missing, alone]);
        }
    }
    forms.into_iter().map(Bytes::new).collect()
}
