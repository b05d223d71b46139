//! Disks that are full or read-only, bundles that may not come in, and what the trial decides.

use super::simulated::Simulated;
use super::*;
use crate::slot::tests::members;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::rc::Rc;

/// A disk whose operations fail from the `left`-th change on.
#[derive(Clone)]
struct Failing<D> {
    disk: D,
    left: Rc<Cell<usize>>,
    kind: ErrorKind,
    /// Removing works on a full disk, and nothing does on one that cannot be written.
    removes: bool,
}

impl<D: Disk> Failing<D> {
    fn step(&self) -> io::Result<()> {
        match self.left.get() {
            0 => Err(self.kind.into()),
            left => {
                self.left.set(left - 1);
                Ok(())
            }
        }
    }
}

impl<D: Disk> Disk for Failing<D> {
    fn read(&self, path: &Path, most: u64) -> io::Result<Vec<u8>> {
        self.disk.read(path, most)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.disk.list(folder)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.step() {
            // A full disk takes a part.
            if self.removes {
                self.disk.write(path, &bytes[..bytes.len() / 2])?;
            }
            return Err(error);
        }
        self.disk.write(path, bytes)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        self.disk.sync(path)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_folder(folder)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.removes {
            self.step()?;
        }
        self.disk.remove(path)
    }
    fn create_folder(&self, folder: &Path) -> io::Result<()> {
        if self.disk.list(folder).is_ok() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        self.step()?;
        self.disk.create_folder(folder)
    }
}

fn install<D: Disk>(slots: &Slots<D>, version: u64) -> Result<()> {
    let new = members(version);
    let slot = slots.stage(Path::new("new.excon"), &new, terms())?;
    slots.switch(slot, &new, 1, false)?;
    assert!(slots.passed(&new.digest(), 1)?);
    Ok(())
}

/// Lets an install fail at its first, second, … change of the disk, until it works.
fn fail_everywhere<D: Disk + Clone>(disk: D, root: &Path, kind: ErrorKind, removes: bool) -> usize {
    let sound = Slots::on(disk.clone(), root);
    for version in [1, 2] {
        install(&sound, version).unwrap();
    }
    for at in 0.. {
        let left = Rc::new(Cell::new(at));
        let slots = Slots::on(Failing { disk: disk.clone(), left, kind, removes }, root);
        let result = install(&slots, 3);
        let state = sound.state().unwrap();
        let (slot, running) = state.running().unwrap();
        let held = Members::open_on(&disk, &sound.place(slot), &Trust::anyone()).unwrap();
        assert_eq!(held.digest(), running.digest, "failure {at}");
        if result.is_ok() {
            assert_eq!(running.version, 3);
            return at;
        }
        let error = result.unwrap_err();
        assert_eq!(error.exit_code(), 73, "{error}");
        assert!(running.version == 2 || running.standing == Standing::Trial, "failure {at}: {state:?}");
        let left = disk.list(root).unwrap();
        let partial = |name: &OsString| name.to_string_lossy().starts_with(PARTIAL);
        assert!(!left.iter().any(partial) || !removes, "failure {at} leaves {left:?}");
        if running.version == 3 {
            sound.fail("not committed", &Trust::anyone()).unwrap();
        }
        // The next install works, and what was there is there again for the next failure.
        for version in [1, 2] {
            install(&sound, version).unwrap();
        }
    }
    unreachable!()
}

#[test]
fn a_full_disk_leaves_what_runs_and_no_part_of_what_did_not() {
    let failures = fail_everywhere(Simulated::default(), Path::new(ROOT), ErrorKind::StorageFull, true);
    let folder = tempfile::tempdir().unwrap();
    let real = fail_everywhere(System, &folder.path().join("excon"), ErrorKind::StorageFull, true);
    println!("{failures} and {real} places for a disk to be full");
    assert!(failures > 15 && failures == real);
    let left = Rc::new(Cell::new(1));
    let full = Failing { disk: Simulated::default(), left, kind: ErrorKind::StorageFull, removes: true };
    let message = install(&Slots::on(full, ROOT), 1).unwrap_err().to_string();
    assert!(message.contains("KiB are needed"), "{message}");
}

#[test]
fn a_disk_that_cannot_be_written_leaves_what_runs() {
    fail_everywhere(Simulated::default(), Path::new(ROOT), ErrorKind::ReadOnlyFilesystem, false);
}

fn refusal<D: Disk>(slots: &Slots<D>, members: &Members, terms: Terms) -> String {
    match slots.stage(Path::new("new.excon"), members, terms) {
        Err(error @ Error::Refused { .. }) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn older_versions_other_models_and_expired_bundles_stay_out() {
    let slots = Slots::on(Simulated::default(), ROOT);
    let strict = Terms { older: false, other_model: false, now: 1_000_000 };
    install(&slots, 5).unwrap();
    assert!(refusal(&slots, &members(4), strict).contains("older than 5"));
    slots.stage(Path::new("new.excon"), &members(5), strict).unwrap();
    slots.stage(Path::new("new.excon"), &members(4), Terms { older: true, ..strict }).unwrap();

    let mut other = members(6);
    other.manifest.name = "other".into();
    assert!(refusal(&slots, &other, strict).contains("--other-model"));
    slots.stage(Path::new("new.excon"), &other, Terms { other_model: true, ..strict }).unwrap();

    let until = |expires: u64, at: u64| {
        let mut members = members(6);
        members.signed = Signed { at: Some(at), expires: Some(expires), by: Some("key".into()) };
        members
    };
    let day = 86_400;
    slots.stage(Path::new("new.excon"), &until(1_000_001, 0), strict).unwrap();
    assert!(refusal(&slots, &until(1_000_000, 0), strict).contains("by this board's clock"));
    // A clock that was set back does not help: the board has accepted a later signature.
    let late = until(100 * day, 60 * day);
    let slot = slots.stage(Path::new("new.excon"), &late, Terms { now: 0, ..strict }).unwrap();
    slots.switch(slot, &late, 1, false).unwrap();
    slots.passed(&late.digest(), 1).unwrap();
    let message = refusal(&slots, &until(50 * day, 10 * day), Terms { now: 0, ..strict });
    assert!(message.contains("expired 10 days ago") && message.contains("clock is behind"), "{message}");
}

#[test]
fn a_trial_ends_in_commit_or_in_the_old_bundle() {
    let slots = Slots::on(Simulated::default(), ROOT);
    install(&slots, 1).unwrap();
    let try_two = || {
        let new = members(2);
        let slot = slots.stage(Path::new("new.excon"), &new, terms()).unwrap();
        slots.switch(slot, &new, 10, true).unwrap();
        new.digest()
    };
    let digest = try_two();
    assert!(matches!(slots.stage(Path::new("new.excon"), &members(3), terms()), Err(Error::Busy { .. })));
    assert!(!slots.passed(&digest, 9).unwrap());
    assert!(slots.passed("another", 9).unwrap(), "predictions of another bundle do not count");
    assert!(slots.passed(&digest, 1).unwrap());
    let state = slots.state().unwrap();
    assert_eq!(state.running().unwrap().1.standing, Standing::Committed);
    assert_eq!((state.greatest["tiny"], state.fallback().unwrap().1.version), (2, 1));

    // Left by hand during its trial: it does not come back by itself.
    slots.rollback(&Trust::anyone()).unwrap();
    let digest = try_two();
    let state = slots.rollback(&Trust::anyone()).unwrap();
    assert_eq!(state.running().unwrap().1.version, 1);
    assert!(matches!(slots.rollback(&Trust::anyone()), Err(Error::Slots { .. })), "what failed is not gone back to");

    // Starts without a passed prediction are numbered; one that passes something begins again.
    try_two();
    for _ in 0..ATTEMPTS {
        assert_eq!(slots.begin(&Trust::anyone()).unwrap().running().unwrap().1.version, 2);
    }
    slots.passed(&digest, 1).unwrap();
    for _ in 0..ATTEMPTS {
        assert_eq!(slots.begin(&Trust::anyone()).unwrap().running().unwrap().1.version, 2);
    }
    let state = slots.begin(&Trust::anyone()).unwrap();
    assert_eq!(state.running().unwrap().1.version, 1);
    assert!(state.last.contains("started 3 times"), "{}", state.last);

    // The first one has nothing to go back to.
    let fresh = Slots::on(Simulated::default(), ROOT);
    let new = members(1);
    let slot = fresh.stage(Path::new("new.excon"), &new, terms()).unwrap();
    fresh.switch(slot, &new, 1, false).unwrap();
    assert_eq!(fresh.fail("it is broken", &Trust::anyone()).unwrap().active, None);
    assert!(matches!(fresh.open_active(&Trust::anyone()), Err(Error::Slots { .. })));
    install(&fresh, 2).unwrap();
}

#[test]
fn nothing_is_gone_back_to_whose_key_was_taken_away() {
    let slots = Slots::on(Simulated::default(), ROOT);
    for version in [1, 2] {
        install(&slots, version).unwrap();
    }
    let mut trust = Trust::anyone();
    trust.pin("new".into(), &minisign::KeyPair::generate_unencrypted_keypair().unwrap().pk.to_base64()).unwrap();
    assert!(matches!(slots.rollback(&trust), Err(Error::Refused { .. })));
    assert_eq!(slots.state().unwrap().running().unwrap().1.version, 2);
}

#[test]
fn damage_is_told_and_never_rolled_back_to() {
    let disk = Simulated::default();
    let slots = Slots::on(disk.clone(), ROOT);
    for version in [1, 2] {
        install(&slots, version).unwrap();
    }
    disk.write(&slots.place(Slot::A).join(MODEL), b"rot").unwrap();
    assert!(matches!(slots.rollback(&Trust::anyone()), Err(Error::Bundle { .. })));
    assert_eq!(slots.state().unwrap().running().unwrap().1.version, 2);
    disk.write(Path::new("/excon/slots.json"), b"{}").unwrap();
    assert!(slots.state().unwrap_err().to_string().contains("slots.json is damaged"));
}
