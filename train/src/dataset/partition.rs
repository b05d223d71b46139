//! Splits by a seeded hash of the pictures' names, class by class: reproducible, independent of file order, and with the
//! same shares in every class.

use super::Split;
use sha2::{Digest, Sha256};

/// A picture's place in the seeded order of a purpose.
fn rank(seed: u64, purpose: &str, name: &str) -> u64 {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(purpose);
    hash.update([0]);
    hash.update(name);
    let bytes = hash.finalize();
    u64::from_le_bytes(std::array::from_fn(|i| bytes[i]))
}

/// Deals the pictures of each class out in seeded order. `counts` says, for a class of n pictures (and how many classes
/// came before it), how many go to part 0, 1, …; what is left goes to the last part. Gives each picture's part.
pub(super) fn deal(
    names: &[String],
    labels: &[usize],
    seed: u64,
    purpose: &str,
    counts: impl Fn(usize, usize) -> Vec<usize>,
) -> Vec<usize> {
    let mut classes: Vec<Vec<usize>> = vec![Vec::new(); labels.iter().max().map_or(0, |last| last + 1)];
    for (index, &label) in labels.iter().enumerate() {
        classes[label].push(index);
    }
    let mut parts = vec![0; names.len()];
    for (class, members) in classes.iter().enumerate() {
        let mut order: Vec<(u64, &str, usize)> =
            members.iter().map(|&i| (rank(seed, purpose, &names[i]), names[i].as_str(), i)).collect();
        order.sort_unstable();
        let counts = counts(members.len(), class);
        let bounds = counts.iter().scan(0, |sum, n| {
            *sum += n;
            Some(*sum)
        });
        let bounds: Vec<usize> = bounds.collect();
        for (place, &(_, _, index)) in order.iter().enumerate() {
            parts[index] = bounds.iter().take_while(|bound| place >= **bound).count();
        }
    }
    parts
}

/// How many of `n` pictures make a share: rounded, but at least one where the share is not zero and another is left.
pub(super) fn share(n: usize, fraction: f64) -> usize {
    if fraction <= 0.0 || n < 2 {
        return 0;
    }
    ((n as f64 * fraction).round() as usize).clamp(1, n - 1)
}

/// Halves a validation split, class by class and by a seeded hash of the names: one half to fit constants on, one to rank
/// against. The halves are disjoint, ascending, and together the whole.
pub fn split_validation(validation: &Split, seed: u64) -> (Vec<usize>, Vec<usize>) {
    // Classes of odd size give their extra picture to either half in turn.
    let halves = |n: usize, class: usize| vec![n / 2 + (n % 2) * (class % 2)];
    let parts = deal(&validation.names, &validation.labels, seed, "validation halves", halves);
    (0..parts.len()).partition(|&index| parts[index] == 0)
}
