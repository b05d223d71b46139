//! The power is cut after every operation of every story that slots tell, and the disk comes back in every form the
//! model of [`super::simulated`] allows (all of them where there are few, a seeded sample where there are many).
//! Then each wait for the disk and each rename is left out in turn, and the same check has to find the harm.

use super::simulated::{Bytes, Change, Cut, Entry, Operation, Simulated};
use super::{ROOT, members, terms};
use crate::bundle::{Members, Trust};
use crate::slot::{Slot, Slots, Standing, State};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// Images of one cut: all where there are fewer, a sample otherwise.
const IMAGES: usize = 5_000;

/// What a caller was told, and what may be active if the power is cut from then on: versions, 0 for none.
type Allowed = &'static [&'static [u64]];

/// One story: what is there before, what is done, and what the caller may rely on.
struct Story {
    name: &'static str,
    before: fn(&Slots<Simulated>),
    act: fn(&Slots<Simulated>, &Simulated),
    allowed: Allowed,
    /// What else holds once that was told.
    holds: fn(&State, usize) -> bool,
}

/// Told of a commit, no trial is under way any more.
fn committed(state: &State, told: usize) -> bool {
    told < 2 || state.trial.is_none()
}

fn install(slots: &Slots<Simulated>, version: u64, needed: u64) {
    let new = members(version);
    let slot = slots.stage(Path::new("new.excon"), &new, terms()).unwrap();
    slots.switch(slot, &new, needed, true).unwrap();
}

fn commit(slots: &Slots<Simulated>, version: u64) {
    assert!(slots.passed(&members(version).digest(), 1_000).unwrap());
}

fn two_installed(slots: &Slots<Simulated>) {
    for version in [1, 2] {
        install(slots, version, 1);
        commit(slots, version);
    }
}

const STORIES: [Story; 7] = [
    Story {
        name: "first install",
        before: |_| (),
        act: |slots, disk| {
            install(slots, 1, 8);
            disk.told(1);
            commit(slots, 1);
            disk.told(2);
        },
        allowed: &[&[0, 1], &[1], &[1]],
        holds: committed,
    },
    Story {
        name: "second install",
        before: |slots| {
            install(slots, 1, 1);
            commit(slots, 1);
        },
        act: |slots, disk| {
            install(slots, 2, 8);
            disk.told(1);
            commit(slots, 2);
            disk.told(2);
        },
        allowed: &[&[1, 2], &[2], &[2]],
        holds: committed,
    },
    Story {
        name: "third install, over the first",
        before: two_installed,
        act: |slots, disk| {
            install(slots, 3, 8);
            disk.told(1);
            commit(slots, 3);
            disk.told(2);
        },
        allowed: &[&[2, 3], &[3], &[3]],
        holds: committed,
    },
    Story {
        name: "an install on trial that is rolled back",
        before: two_installed,
        act: |slots, disk| {
            install(slots, 3, 8);
            disk.told(1);
            slots.passed(&members(3).digest(), 3).unwrap();
            disk.told(2);
            // What went back was committed before: version 2.
            slots.fail("a prediction failed", &Trust::anyone()).unwrap();
            disk.told(3);
        },
        allowed: &[&[2, 3], &[3], &[2, 3], &[2]],
        holds: |state, told| told != 2 || state.trial.is_none_or(|trial| trial.passed >= 3),
    },
    Story {
        name: "a bundle that never gets anywhere",
        before: |slots| {
            two_installed(slots);
            install(slots, 3, 8);
        },
        act: |slots, disk| {
            for told in 1..=4 {
                slots.begin(&Trust::anyone()).unwrap();
                disk.told(told);
            }
        },
        allowed: &[&[3], &[3], &[3], &[3, 2], &[2]],
        holds: |state, told| state.trial.is_none_or(|trial| trial.attempts >= told.min(3) as u32),
    },
    Story {
        name: "rollback and back again",
        before: two_installed,
        act: |slots, disk| {
            slots.rollback(&Trust::anyone()).unwrap();
            disk.told(1);
            disk.told(2);
            slots.rollback(&Trust::anyone()).unwrap();
            disk.told(3);
        },
        allowed: &[&[2, 1], &[1], &[1, 2], &[2]],
        holds: |_, _| true,
    },
    Story {
        name: "an install into the slot that was rolled back from",
        before: |slots| {
            two_installed(slots);
            slots.rollback(&Trust::anyone()).unwrap();
        },
        act: |slots, disk| {
            install(slots, 4, 1);
            disk.told(1);
            commit(slots, 4);
            disk.told(2);
        },
        allowed: &[&[1, 4], &[4], &[4]],
        holds: committed,
    },
];

/// Everything a story did, on everything that was there.
struct Recorded {
    names: BTreeMap<PathBuf, Entry>,
    contents: Vec<Bytes>,
    log: Vec<Operation>,
}

fn record(story: &Story) -> Recorded {
    let before = Simulated::default();
    (story.before)(&Slots::on(before.clone(), ROOT));
    let (names, contents) = before.settled();
    let disk = Simulated::holding(names.clone(), contents.clone());
    (story.act)(&Slots::on(disk.clone(), ROOT), &disk);
    let log = disk.0.borrow().log.clone();
    Recorded { names, contents, log }
}

/// What is wrong with a disk that came back: none when the old or the new bundle is active and whole, what could be
/// rolled back to is whole too, and the next install works.
fn harm(disk: &Simulated, story: &Story, told: usize) -> Option<String> {
    let allowed = story.allowed[told];
    let slots = Slots::on(disk.clone(), ROOT);
    let state = match slots.state() {
        Ok(state) => state,
        Err(error) => return Some(error.to_string()),
    };
    let active = state.running().map_or(0, |(_, record)| record.version);
    if !allowed.contains(&active) {
        return Some(format!("version {active} is active, allowed {allowed:?}"));
    }
    for slot in Slot::ALL {
        let Some(record) = state.record(slot) else { continue };
        match Members::open_on(disk, &slots.place(slot), &Trust::anyone()) {
            Ok(held) if held.digest() == record.digest && held.manifest.version == record.version => {}
            Ok(held) => return Some(format!("slot {slot} holds version {}", held.manifest.version)),
            Err(error) => return Some(error.to_string()),
        }
    }
    if !(story.holds)(&state, told) {
        return Some(format!("told {told}, the trial stands at {:?}", state.trial));
    }
    if state.trial.is_some() {
        commit(&slots, active);
    }
    install(&slots, 9, 1);
    commit(&slots, 9);
    let (slot, record) = slots.state().unwrap().running().map(|(s, r)| (s, r.clone())).unwrap();
    let held = Members::open_on(disk, &slots.place(slot), &Trust::anyone());
    match held.is_ok_and(|h| h == members(9)) && record.standing == Standing::Committed {
        true => None,
        false => Some("the next install does not hold".into()),
    }
}

/// Every image of one cut goes to `see` with the key it is known by, until that says stop.
fn images(cut: &Cut, random: &mut impl Rng, mut see: impl FnMut(Simulated, String) -> bool) -> bool {
    let pending: Vec<(usize, usize)> = cut.pending.iter().map(|(&inode, forms)| (inode, forms.len())).collect();
    let changes = cut.changes.len();
    let orders = 1usize.checked_shl(changes as u32);
    let exact = pending.iter().fold(orders, |n, (_, forms)| n?.checked_mul(*forms));
    let mut show = |kept: u64, torn: &BTreeMap<usize, usize>| {
        let (disk, key) = cut.image(|i| kept >> i & 1 == 1, |inode| torn[&inode]);
        see(disk, key.into_iter().collect::<Vec<_>>().join("\n"))
    };
    if let Some(count) = exact.filter(|&n| n <= IMAGES) {
        return (0..count).all(|mut code| {
            let kept = (code % (1 << changes)) as u64;
            code >>= changes;
            let mut torn = BTreeMap::new();
            for &(inode, forms) in &pending {
                torn.insert(inode, code % forms);
                code /= forms;
            }
            show(kept, &torn)
        });
    }
    let all = (1u64 << changes) - 1;
    let whole: BTreeMap<usize, usize> = pending.iter().map(|&(inode, _)| (inode, 0)).collect();
    // First what a real disk does most: all or nothing, and one thing missing or one thing early.
    let ordered = (0..changes).flat_map(|i| [all & !(1 << i), 1 << i, (1 << i) - 1]);
    let told: Vec<u64> = [0, all].into_iter().chain(ordered).collect();
    if !told.into_iter().all(|kept| show(kept, &whole)) {
        return false;
    }
    for &(inode, forms) in &pending {
        for form in 0..forms {
            let mut torn = whole.clone();
            torn.insert(inode, form);
            if !show(all, &torn) {
                return false;
            }
        }
    }
    (0..IMAGES).all(|_| {
        let torn = pending.iter().map(|&(inode, forms)| (inode, random.random_range(0..forms))).collect();
        show(random.random::<u64>() & all, &torn)
    })
}

/// Cuts the power after every operation of a log. Returns the number of cases and the first harm.
fn cut_everywhere(story: &Story, recorded: &Recorded, log: &[Operation]) -> (usize, Option<String>) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut cases, mut found) = (0, None);
    let mut seen = HashSet::new();
    for length in 0..=log.len() {
        let cut = Cut::after(&recorded.names, &recorded.contents, &log[..length]);
        let sound = images(&cut, &mut random, |disk, key| {
            cases += 1;
            // The same disk under the same promise was looked at already.
            if seen.insert((cut.told, key)) {
                found = harm(&disk, story, cut.told).map(|harm| format!("{}, after {length}: {harm}", story.name));
            }
            found.is_none()
        });
        if !sound {
            break;
        }
    }
    (cases, found)
}

#[test]
fn after_a_power_cut_the_old_or_the_new_bundle_is_active_and_whole() {
    let mut total = 0;
    for story in &STORIES {
        let recorded = record(story);
        let (cases, harm) = cut_everywhere(story, &recorded, &recorded.log);
        assert_eq!(harm, None);
        println!("{:52} {:>3} operations, {cases:>6} cases", story.name, recorded.log.len());
        total += cases;
    }
    println!("{total} cases");
    assert!(total >= 50_000, "{total} cases");
}

#[test]
fn every_wait_for_the_disk_and_every_rename_is_needed() {
    let mut needed = 0;
    for story in &STORIES {
        let recorded = record(story);
        for (index, operation) in recorded.log.iter().enumerate() {
            let mut log = recorded.log.clone();
            match operation {
                Operation::Sync(_) | Operation::SyncFolder(_) | Operation::Names(Change::Rename(..)) => {
                    log.remove(index)
                }
                _ => continue,
            };
            let (_, harm) = cut_everywhere(story, &recorded, &log);
            assert!(harm.is_some(), "{}: nothing depends on operation {index}, {operation:?}", story.name);
            needed += 1;
        }
    }
    println!("{needed} waits and renames, each needed");
    assert!(needed > 80);
}
