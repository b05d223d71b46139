//! Bundles damaged at random: refused with a typed error, whether the damage lies under the digests or was sealed by them.

#![allow(clippy::unwrap_used)]

use super::archive::{self, Refusal};
use super::{Bundle, GOLDEN, MODEL, Members, REFERENCE, Trust};
use crate::Error;
use crate::tiny;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::Path;

/// One to three edits: bytes replaced, a bit flipped, a stretch removed, repeated, blanked or swapped with another.
fn mutated(bytes: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..64)).min(bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] = *[0, 1, 0x7F, 0x80, 0xFF, b'9', b'"', b'}'].choose(rng).unwrap(),
            1 => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            4 => bytes[at..end].fill(rng.random()),
            _ => {
                let other = rng.random_range(0..=bytes.len() - (end - at));
                for i in 0..end - at {
                    bytes.swap(at + i, other + i);
                }
            }
        }
    }
    bytes
}

/// Whether a container is read as a bundle; a refusal by anything but its contents fails the test.
fn opens(bytes: &[u8]) -> bool {
    match archive::read(&mut &*bytes, bytes.len() as u64, &Trust::anyone()) {
        Ok(members) => Bundle::from_members(Path::new("mutated.excon"), members).is_ok(),
        Err(Refusal::Content(_)) => false,
        Err(_) => panic!("a short bundle was taken for an unreadable or a stranger's one"),
    }
}

#[test]
fn ten_thousand_random_mutations_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.excon");
    tiny::writer(false, 12).seal(&path).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert!(opens(&whole));
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut tried = 0;
    while tried < 10_000 {
        let bytes = mutated(&whole, &mut rng);
        if bytes == whole {
            continue;
        }
        tried += 1;
        assert!(!opens(&bytes), "mutation {tried} was taken for the bundle");
    }
}

#[test]
fn members_that_were_sealed_broken_are_refused_or_say_something_finite() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whole.excon");
    let good = tiny::writer(false, 12);
    good.clone().seal(&path).unwrap();
    let members = Members::open(&path, &Trust::anyone()).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let (mut refused, mut opened) = (0, 0);
    for round in 0..1_500 {
        let name = [REFERENCE, GOLDEN, MODEL][round % 3];
        let mut broken = good.clone();
        broken.member(name, mutated(&members.files[name], &mut rng));
        match broken.seal(&path) {
            Ok(bundle) => {
                opened += 1;
                assert!(bundle.head.weight.iter().chain(&bundle.golden.logits).all(|v| v.is_finite()));
            }
            Err(Error::Bundle { .. }) => refused += 1,
            other => panic!("round {round}, {name}: {other:?}"),
        }
    }
    // A changed number is as good as another to a format; a changed shape, name or length is not.
    assert!(refused > 200 && opened > 200, "{refused} refused, {opened} opened");
}
