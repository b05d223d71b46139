//! The order in which an epoch draws its pictures: each once, or the classes by a power of their size.

use crate::recipe::Draw;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// As many draws as there are pictures, shuffled. A class of n pictures takes a share of them in proportion to n^power,
/// exactly but for rounding (`power` in 0..=1; empty classes take none): at 1 every picture comes once, at 0 every class
/// equally often. A class's pictures are gone through in shuffled rounds, so that none comes again before all others.
pub(super) fn order(labels: &[usize], power: f64, rng: &mut ChaCha8Rng) -> Vec<Draw> {
    let n = labels.len();
    let mut order: Vec<Draw> = (0..n).map(|index| Draw { index, key: index }).collect();
    if power < 1.0 {
        let mut classes: Vec<Vec<usize>> = vec![Vec::new(); labels.iter().max().map_or(0, |last| last + 1)];
        labels.iter().enumerate().for_each(|(index, &label)| classes[label].push(index));
        classes.retain(|members| !members.is_empty());
        let counts = shares(n, &classes.iter().map(|members| (members.len() as f64).powf(power)).collect::<Vec<_>>());
        order.clear();
        for (members, count) in classes.iter_mut().zip(counts) {
            for drawn in 0..count {
                let (round, place) = (drawn / members.len(), drawn % members.len());
                if place == 0 {
                    members.shuffle(rng);
                }
                order.push(Draw { index: members[place], key: members[place] + round * n });
            }
        }
    }
    order.shuffle(rng);
    order
}

/// `n` divided in proportion to `weights`, by largest remainders, the first of equals.
fn shares(n: usize, weights: &[f64]) -> Vec<usize> {
    let total: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|w| n as f64 * w / total).collect();
    let mut counts: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    by_remainder.sort_by(|&a, &b| exact[b].fract().total_cmp(&exact[a].fract()));
    let left = n.saturating_sub(counts.iter().sum());
    by_remainder.into_iter().take(left).for_each(|class| counts[class] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Purpose, stream};
    use std::collections::{BTreeMap, HashSet};

    /// 60, 30 and 6 pictures of classes 0, 2 and 5, mixed.
    fn labels() -> Vec<usize> {
        (0..96).map(|i| if i % 16 == 3 { 5 } else { [0, 2, 0][i % 3] }).collect()
    }

    fn drawn(power: f64, epoch: usize) -> Vec<Draw> {
        order(&labels(), power, &mut stream(4, Purpose::Order, epoch, 0))
    }

    fn by_class(draws: &[Draw]) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        draws.iter().for_each(|d| *counts.entry(labels()[d.index]).or_default() += 1);
        counts
    }

    #[test]
    fn power_one_is_a_shuffle() {
        let draws = drawn(1.0, 1);
        assert!(draws.iter().all(|d| d.key == d.index));
        let mut indices: Vec<usize> = draws.iter().map(|d| d.index).collect();
        assert!(!indices.is_sorted());
        indices.sort_unstable();
        assert_eq!(indices, (0..96).collect::<Vec<_>>());
    }

    #[test]
    fn classes_come_in_proportion_to_the_power_of_their_size() {
        let sizes = by_class(&drawn(1.0, 1));
        assert_eq!(by_class(&drawn(0.0, 1)), BTreeMap::from([(0, 32), (2, 32), (5, 32)]));
        let half = by_class(&drawn(0.5, 1));
        let total: f64 = sizes.values().map(|n| (*n as f64).sqrt()).sum();
        for (class, n) in &sizes {
            let want = 96.0 * (*n as f64).sqrt() / total;
            assert!((half[class] as f64 - want).abs() < 1.0, "class {class}: {} and {want}", half[class]);
        }
        assert_eq!(half.values().sum::<usize>(), 96);
    }

    #[test]
    fn a_round_ends_before_a_picture_returns_and_every_draw_has_its_own_key() {
        let draws = drawn(0.0, 1);
        assert_eq!(draws.iter().map(|d| d.key).collect::<HashSet<_>>().len(), draws.len());
        let mut times = vec![0; 96];
        draws.iter().for_each(|d| times[d.index] += 1);
        let rare: Vec<i32> = (0..96).filter(|i| labels()[*i] == 5).map(|i| times[i]).collect();
        assert!(rare.iter().max().unwrap_or(&0) - rare.iter().min().unwrap_or(&0) <= 1, "{rare:?}");
        assert_eq!(draws, drawn(0.0, 1));
        assert_ne!(draws, drawn(0.0, 2));
    }
}
