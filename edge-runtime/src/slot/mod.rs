//! Two slots for bundles, of which one is active: how a board changes its model without ever being without one.
//!
//! ```text
//! ROOT/slots.json        what is active (see `state`); changes by one rename
//! ROOT/slots/a, slots/b  the members of a bundle, as in its container
//! ROOT/slots/a.fitted.json   what this board has fitted for its own engine, never in the signed manifest
//! ROOT/keys/*.pub        pinned keys
//! ```
//!
//! An install empties the inactive slot's record, unpacks into its folder, reads it back and switches; a trial of a
//! number of checked predictions follows, then commit, or rollback to the slot that was never touched. After a power
//! cut at any moment the old or the new bundle is active and whole, and the next install works: each wait for the disk
//! and each rename here is needed for that, which `tests::power_cut` shows by leaving each out.

mod admission;
mod state;
mod trial;

#[cfg(all(test, feature = "tract"))]
mod tests;

pub use admission::Terms;
pub use state::{ATTEMPTS, Record, SCHEMA, Slot, Standing, State, Trial};
pub use trial::Health;

use crate::bundle::{Bundle, Members, Trust};
use crate::file::{self, Disk, PARTIAL, System};
use crate::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where slots are when nothing else is said.
pub const ROOT: &str = "/var/lib/excon";

const STATE: &str = "slots.json";
const SLOTS: &str = "slots";
/// Far above any state.
const LARGEST: u64 = 1 << 20;

/// The slots below a root.
#[derive(Debug, Clone)]
pub struct Slots<D = System> {
    root: PathBuf,
    disk: D,
}

/// Held while slots are changed; other processes wait or give up meanwhile.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Slots {
    /// The slots below `root` on the machine's disk.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self::on(System, root)
    }

    /// The keys pinned below the root.
    ///
    /// # Errors
    /// As [`Trust::pinned`].
    pub fn trust(&self) -> Result<Trust> {
        Trust::pinned(&self.root.join("keys"))
    }

    /// Keeps other processes from changing the slots until the lock is dropped. Creates the root where it is missing.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process holds it; [`Error::Write`] when the root cannot be written.
    pub fn lock(&self) -> Result<Lock> {
        self.make_root()?;
        let path = self.root.join("lock");
        let failed = |source| Error::Write { path: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                Err(self.busy("another process is changing them. Try again when it has ended"))
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn make_root(&self) -> Result<()> {
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent).map_err(|source| Error::Write { path: parent.into(), source })?;
        }
        self.folder(&self.root).map_err(|source| Error::Write { path: self.root.clone(), source })
    }
}

impl<D: Disk> Slots<D> {
    /// The slots below `root` on any disk.
    pub fn on(disk: D, root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), disk }
    }

    /// The folder everything is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a slot.
    pub fn place(&self, slot: Slot) -> PathBuf {
        self.root.join(SLOTS).join(slot.name())
    }

    /// Where a board keeps what it fits for its own engine to the bundle in a slot. Whoever writes it names the
    /// manifest's and the engine's digest in it and replaces it whole; an install into the slot removes it.
    pub fn fitted(&self, slot: Slot) -> PathBuf {
        self.root.join(SLOTS).join(format!("{slot}.fitted.json"))
    }

    /// What is installed; the default where nothing is.
    ///
    /// # Errors
    /// [`Error::Slots`] when `slots.json` cannot be used, [`Error::Read`] when it cannot be read.
    pub fn state(&self) -> Result<State> {
        let path = self.root.join(STATE);
        let bytes = match self.disk.read(&path, LARGEST) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(source) => return Err(Error::Read { path, source }),
        };
        let state: std::result::Result<State, String> = serde_json::from_slice(&bytes).map_err(|e| e.to_string());
        state.and_then(|state| state.validate().map(|()| state)).map_err(|reason| {
            self.refuse(format!("{STATE} is damaged ({reason}). Move it away and install the bundle again"))
        })
    }

    /// Whether `terms` let a bundle in.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason when they do not.
    pub fn admit(&self, path: &Path, members: &Members, terms: Terms) -> Result<()> {
        let refused = |reason| Error::Refused { path: path.into(), reason };
        admission::admit(&self.state()?, members, terms).map_err(refused)
    }

    /// Puts a bundle into the inactive slot and reads it back; what is active stays so.
    ///
    /// # Errors
    /// [`Error::Refused`] when `terms` do not admit it, [`Error::Busy`] while a trial lasts, [`Error::Write`] when the
    /// slot cannot be written; the active slot is untouched by any of them, and no part is left in the other.
    pub fn stage(&self, path: &Path, members: &Members, terms: Terms) -> Result<Slot> {
        let mut state = self.state()?;
        self.admit(path, members, terms)?;
        if state.trial.is_some() {
            let reason = "a trial is under way. It ends by itself after enough predictions; `rollback` ends it now";
            return Err(self.busy(reason));
        }
        let slot = state.inactive();
        if state.record(slot).is_some() {
            *state.record_mut(slot) = None;
            self.save(&state)?;
        }
        if let Err(error) = self.unpack(slot, members) {
            // To give the space back, as far as that goes: an empty record says already that nothing is there.
            let _ = self.clear(slot);
            return Err(error);
        }
        Ok(slot)
    }

    fn unpack(&self, slot: Slot, members: &Members) -> Result<()> {
        let place = self.place(slot);
        let entries = members.entries();
        let write = || -> io::Result<()> {
            self.folder(&self.root)?;
            self.folder(&self.root.join(SLOTS))?;
            self.folder(&place)?;
            self.clear(slot)?;
            for (name, bytes) in &entries {
                let path = place.join(name);
                self.disk.write(&path, bytes)?;
                self.disk.sync(&path)?;
            }
            self.disk.sync_folder(&place)
        };
        let needed = entries.iter().map(|(_, bytes)| bytes.len()).sum::<usize>().div_ceil(1024);
        write().map_err(|e| Error::Write { path: place.clone(), source: room(e, needed) })?;
        // Those who signed it were asked when it was opened; what is asked here is whether the disk kept it.
        match Members::open_on(&self.disk, &place, &Trust::anyone())?.digest() == members.digest() {
            true => Ok(()),
            false => Err(self.refuse(format!("slot {slot} holds another bundle than was written into it"))),
        }
    }

    /// Makes a staged bundle the active one, on trial.
    ///
    /// # Errors
    /// [`Error::Write`]; the old one is then still active.
    pub fn switch(&self, slot: Slot, members: &Members, needed: u64, live: bool) -> Result<()> {
        let mut state = self.state()?;
        let manifest = &members.manifest;
        *state.record_mut(slot) = Some(Record {
            digest: members.digest(),
            name: manifest.name.clone(),
            version: manifest.version,
            signed_by: members.signed.by.clone(),
            standing: Standing::Trial,
        });
        state.active = Some(slot);
        state.trial = Some(Trial { needed, passed: 0, attempts: 0, live });
        state.signed_at = state.signed_at.max(members.signed.at.unwrap_or(0));
        state.last = format!("{} version {} was installed into slot {slot}", manifest.name, manifest.version);
        self.save(&state)
    }

    /// Goes back to the other slot. A bundle that is left during its trial has failed it.
    ///
    /// # Errors
    /// [`Error::Slots`] when there is nothing to go back to; [`Error::Bundle`] when what is there is damaged, and
    /// [`Error::Refused`] when its key is not trusted any more.
    pub fn rollback(&self, trust: &Trust) -> Result<State> {
        let state = self.state()?;
        let failed = state.trial.is_some();
        self.leave(state, failed, "as asked", trust)
    }

    /// Leaves the active slot for the other one.
    fn leave(&self, mut state: State, failed: bool, why: &str, trust: &Trust) -> Result<State> {
        let Some((slot, running)) = state.running() else {
            return Err(self.refuse("nothing is installed. Begin with: excon-edge install FILE.excon"));
        };
        let left = format!("{} version {}", running.name, running.version);
        let Some((other, fallback)) = state.fallback() else {
            return Err(self.refuse(format!("slot {} holds nothing to go back to", slot.other())));
        };
        let held = Members::open_on(&self.disk, &self.place(other), trust)?;
        if held.digest() != fallback.digest {
            return Err(self.refuse(format!("slot {other} does not hold what was installed into it")));
        }
        state.last = format!(
            "rolled back from {left} in slot {slot} to {} version {} in slot {other}: {why}",
            fallback.name, fallback.version
        );
        if let (true, Some(record)) = (failed, state.record_mut(slot)) {
            record.standing = Standing::Failed;
        }
        state.active = Some(other);
        state.trial = None;
        self.save(&state)?;
        Ok(state)
    }

    /// Opens the active bundle, signed by a trusted key where one is pinned.
    ///
    /// # Errors
    /// [`Error::Slots`] when nothing is installed, or as [`Bundle::open_trusted`].
    pub fn open_active(&self, trust: &Trust) -> Result<Bundle> {
        let mut state = self.state()?;
        loop {
            let Some((slot, record)) = state.running() else {
                return Err(self.refuse("nothing is installed. Begin with: excon-edge install FILE.excon"));
            };
            let place = self.place(slot);
            let opened = Members::open_on(&self.disk, &place, trust).and_then(|members| {
                match members.digest() == record.digest {
                    true => Bundle::from_members(&place, members),
                    false => Err(self.refuse(format!("slot {slot} does not hold what was installed into it"))),
                }
            });
            // Installed twice while this was reading: the slot that was active is being written.
            let now = if opened.is_err() { self.state()? } else { return opened };
            if now.active == state.active && now.record(slot) == state.record(slot) {
                return opened;
            }
            state = now;
        }
    }

    /// Creates a folder that outlives a power cut, unless it is there.
    fn folder(&self, folder: &Path) -> io::Result<()> {
        match self.disk.create_folder(folder) {
            Ok(()) => self.disk.sync_folder(file::folder(folder)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Empties a slot's folder and forgets what was fitted to it.
    fn clear(&self, slot: Slot) -> io::Result<()> {
        let place = self.place(slot);
        for name in self.disk.list(&place)? {
            self.disk.remove(&place.join(name))?;
        }
        match self.disk.remove(&self.fitted(slot)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn save(&self, state: &State) -> Result<()> {
        let path = self.root.join(STATE);
        let write = || {
            let mut bytes = serde_json::to_vec_pretty(state)?;
            bytes.push(b'\n');
            // One name, since the lock is held: a power cut leaves one partial file at most, and the next save takes it.
            file::replace_by(&self.disk, &self.root.join(format!("{PARTIAL}{STATE}")), &path, &bytes)
        };
        write().map_err(|source| Error::Write { path: path.clone(), source })
    }

    fn refuse(&self, reason: impl Into<String>) -> Error {
        Error::Slots { path: self.root.clone(), reason: reason.into() }
    }

    fn busy(&self, reason: &str) -> Error {
        Error::Busy { path: self.root.clone(), reason: reason.into() }
    }
}

/// A full disk's error with what would have been enough.
fn room(error: io::Error, kibibytes: usize) -> io::Error {
    match error.kind() {
        io::ErrorKind::StorageFull => io::Error::new(error.kind(), format!("{error}; {kibibytes} KiB are needed")),
        _ => error,
    }
}
