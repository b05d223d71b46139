//! Pictures that stand in more than one split, byte for byte as the network sees them, and the digest of a set of pictures.
//! A test picture that was trained on, or that constants were fitted on, makes every figure on the test split too good.

use excon_train::dataset::{Dataset, Split};
use sha2::{Digest, Sha256};
use std::collections::HashSet;

/// One note for each pair of splits that share pictures.
pub fn notes(data: &Dataset) -> Vec<String> {
    let pairs = [
        ("test", &data.test, "training", &data.train),
        ("test", &data.test, "validation", &data.validation),
        ("validation", &data.validation, "training", &data.train),
    ];
    let note = |(name, split, other_name, other): (&str, &Split, &str, &Split)| {
        let known: HashSet<&[u8]> = pictures(other).collect();
        let shared = pictures(split).filter(|picture| known.contains(picture)).count();
        (shared > 0).then(|| {
            format!(
                "{shared} of {} {name} pictures are {other_name} pictures too: figures on {name} are too good",
                split.len()
            )
        })
    };
    pairs.into_iter().filter_map(note).collect()
}

/// SHA-256 of the chosen pictures: size, then bytes and class of each, in the given order.
pub fn digest(split: &Split, chosen: &[usize]) -> String {
    let mut hash = Sha256::new();
    hash.update((split.size as u64).to_le_bytes());
    let one = bytes(split);
    for &i in chosen {
        hash.update(&split.rgb[i * one..][..one]);
        hash.update((split.labels[i] as u64).to_le_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes of one picture.
fn bytes(split: &Split) -> usize {
    3 * split.size * split.size
}

fn pictures(split: &Split) -> impl Iterator<Item = &[u8]> {
    split.rgb.chunks_exact(bytes(split).max(1))
}
