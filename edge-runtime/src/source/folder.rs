//! A folder of JPEG and PNG files in order of name: those that are there, and, when it is followed, those that come.
//!
//! A file that is still being written is waited for, with all that come after it in order. It counts as whole when its
//! container ends with its end marker, or when nobody has written to it for [`SETTLED`]. A file whose name lies before
//! one already taken is left out and counted: the place where a watch stopped is one name.

use super::{Frame, Item, Source, Stop};
use crate::image;
use crate::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often a followed folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Without a write for so long, a file is as whole as it will become.
const SETTLED: Duration = Duration::from_secs(2);
/// Time stamps of folders may be as coarse as this: a folder changed so recently is listed again.
const COARSE: Duration = Duration::from_secs(3);

/// See the module's first paragraph.
pub struct Folder {
    path: PathBuf,
    follow: bool,
    /// Names up to this one are done.
    last: Option<String>,
    waiting: BTreeMap<String, PathBuf>,
    passed_over: HashSet<String>,
    /// The folder's time stamp when it was listed.
    listed: Option<SystemTime>,
    /// Told at the next turn.
    trouble: Vec<Error>,
}

impl Folder {
    /// Lists the folder; names up to `after` are done already. Without `follow` the source ends with the last file.
    ///
    /// # Errors
    /// [`Error::Read`] when it cannot be listed; [`Error::Data`] when it holds no pictures and none are awaited.
    pub fn open(path: &Path, after: Option<&str>, follow: bool) -> Result<Self> {
        let mut folder = Self {
            path: path.into(),
            follow,
            last: after.map(String::from),
            waiting: BTreeMap::new(),
            passed_over: HashSet::new(),
            listed: None,
            trouble: Vec::new(),
        };
        let found = folder.list()?;
        if found.is_empty() && !follow {
            let reason = format!("{} holds no JPEG or PNG frames", path.display());
            return Err(Error::Data { what: "watch", reason });
        }
        // Those before the place where the last watch stopped are no news.
        let done = |name: &str| after.is_some_and(|after| name <= after);
        folder.passed_over.extend(found.keys().filter(|n| follow && done(n)).cloned());
        folder.waiting = found.into_iter().filter(|(name, _)| !done(name)).collect();
        Ok(folder)
    }

    fn list(&mut self) -> Result<BTreeMap<String, PathBuf>> {
        let failed = |source| Error::Read { path: self.path.clone(), source };
        // Before the listing: what comes in between is found by the next one.
        self.listed = self.path.metadata().and_then(|m| m.modified()).ok();
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let extension = path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
            let picture = matches!(extension.as_deref(), Some("jpg" | "jpeg" | "png"));
            // Hidden files are other programs' halves.
            if picture && !name.starts_with('.') && path.is_file() {
                found.insert(name, path);
            }
        }
        Ok(found)
    }

    /// Looks for new files.
    fn look(&mut self) {
        let now = self.path.metadata().and_then(|m| m.modified()).ok();
        let fresh = |t: SystemTime| t.elapsed().is_ok_and(|age| age < COARSE);
        if now.is_some() && now == self.listed && !now.is_some_and(fresh) {
            return;
        }
        let found = match self.list() {
            Ok(found) => found,
            Err(error) => return self.trouble.push(error),
        };
        for (name, path) in found {
            if self.last.as_ref().is_none_or(|last| name > *last) {
                self.waiting.insert(name, path);
            } else if self.last.as_ref() != Some(&name) && !self.passed_over.contains(&name) {
                let reason = "its name lies before one already taken; name frames in order of time".to_string();
                self.trouble.push(Error::Picture { name: name.clone(), reason });
                self.passed_over.insert(name);
            }
        }
    }

    fn take(&mut self) -> Option<Item> {
        let (name, path) = self.waiting.pop_first()?;
        if self.follow {
            self.passed_over.insert(name.clone());
        }
        self.last = Some(name.clone());
        Some(Item::Frame(Frame::file(name, path)))
    }
}

impl Source for Folder {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        if !self.follow {
            return if stop.is_set() { None } else { self.take() };
        }
        while !stop.is_set() {
            if let Some(error) = self.trouble.pop() {
                return Some(Item::Trouble(error));
            }
            match self.waiting.first_key_value().map(|(_, path)| whole(path)) {
                Some(Whole::Yes) => return self.take(),
                // It was there when the folder was listed.
                Some(Whole::Gone) => drop(self.waiting.pop_first()),
                Some(Whole::NotYet) | None => {
                    if stop.wait(LOOK_EVERY) {
                        return None;
                    }
                    self.look();
                }
            }
        }
        None
    }

    fn live(&self) -> bool {
        false
    }

    fn expected(&self) -> Option<u64> {
        (!self.follow).then_some(self.waiting.len() as u64)
    }
}

enum Whole {
    Yes,
    NotYet,
    Gone,
}

fn whole(path: &Path) -> Whole {
    let Ok(about) = path.metadata() else { return Whole::Gone };
    // With a clock that was set back a file's time lies ahead; then its end marker has to do.
    let settled = about.modified().is_ok_and(|t| t.elapsed().is_ok_and(|age| age >= SETTLED));
    if settled || image::is_whole(path) { Whole::Yes } else { Whole::NotYet }
}
