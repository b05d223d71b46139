//! Growing-reference ranks are uniform and independent under exchangeability, ties included.

use super::*;
use crate::shift::rank::GrowingRank;

/// Calls `visit` with every ordering of `values` (Heap's algorithm).
fn orderings(values: &mut Vec<f64>, k: usize, visit: &mut impl FnMut(&[f64])) {
    if k <= 1 {
        return visit(values);
    }
    for i in 0..k {
        orderings(values, k - 1, visit);
        values.swap(if k.is_multiple_of(2) { i } else { 0 }, k - 1);
    }
}

/// Exact: over all orderings of six values and all draws, the p-values of three frames after a reference of three
/// fill the 4 × 5 × 6 boxes of the unit cube evenly.
#[test]
fn joint_law_over_every_ordering_is_exactly_uniform() {
    let multisets = [
        [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        [1.0, 1.0, 2.0, 2.0, 2.0, 3.0],
        [1.0, 1.0, 1.0, 1.0, 2.0, 2.0],
        [7.0, 7.0, 7.0, 7.0, 7.0, 7.0],
    ];
    for multiset in multisets {
        let mut mass = vec![0.0; 4 * 5 * 6];
        orderings(&mut multiset.to_vec(), 6, &mut |order| {
            let mut sorted = order[..3].to_vec();
            sorted.sort_by(f64::total_cmp);
            let mut rank = GrowingRank::new(&sorted);
            // p is linear in U, so U = 0 and U = 1 give the interval, in units of 1/(n + 1 + t).
            let intervals: Vec<(usize, usize)> = (0..3)
                .map(|t| {
                    let low = rank.clone().rank(order[3 + t], 0.0);
                    let high = rank.rank(order[3 + t], 1.0);
                    let cells = (4 + t) as f64;
                    ((low * cells).round() as usize, (high * cells).round() as usize)
                })
                .collect();
            let volume: usize = intervals.iter().map(|(low, high)| high - low).product();
            for i in intervals[0].0..intervals[0].1 {
                for j in intervals[1].0..intervals[1].1 {
                    for k in intervals[2].0..intervals[2].1 {
                        mass[(i * 5 + j) * 6 + k] += 1.0 / volume as f64;
                    }
                }
            }
        });
        for mass in mass {
            assert!((mass - 6.0).abs() < 1e-9, "{multiset:?}: {mass} of 720 orderings in a box, expected 6");
        }
    }
}

/// A naive recount: sort nothing, count everything.
#[test]
fn agrees_with_a_naive_recount() {
    for (seed, n, levels) in [(1, 5, 4.0), (2, 50, 6.0), (3, 500, 1e9), (4, 500, 20.0), (5, 0, 3.0)] {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || (normal(&mut rng) * levels).round() / levels;
        let mut reference: Vec<f64> = (0..n).map(|_| draw()).collect();
        let stream: Vec<f64> = (0..300).map(|_| draw()).collect();
        reference.sort_by(f64::total_cmp);
        let mut rank = GrowingRank::new(&reference);
        for (t, &score) in stream.iter().enumerate() {
            let u = 0.25 + 0.5 * (t % 2) as f64;
            let m = reference.iter().filter(|r| **r == score).count();
            // Same atom: equal. Same gap: no reference value lies between or on either.
            let same = |s: f64| {
                let (low, high) = (s.min(score), s.max(score));
                s == score || !reference.iter().any(|r| (low..=high).contains(r))
            };
            let earlier = &stream[..t];
            let c = earlier.iter().filter(|s| same(**s)).count();
            let above = reference.iter().filter(|r| **r > score).count()
                + earlier.iter().filter(|s| **s > score && !same(**s)).count();
            let want = (above as f64 + u * (m + c + 1) as f64) / (n + 1 + t) as f64;
            assert_eq!(rank.rank(score, u), want, "n = {n}, t = {t}");
        }
    }
}

/// Pooled p-values of many references: Kolmogorov distance below its 99.9 % point, for each frame of the stream.
#[test]
fn p_values_are_uniform_for_any_reference_size() {
    for (n, levels, replicates) in [(5, None, 4000), (5, Some(1.0), 4000), (50, Some(2.0), 3000), (500, None, 1000)] {
        let mut by_frame = vec![Vec::new(); 5];
        for replicate in 0..replicates {
            let mut rng = ChaCha8Rng::seed_from_u64(replicate * 31 + n as u64);
            let draw = |rng: &mut ChaCha8Rng| {
                let value = normal(rng);
                levels.map_or(value, |l: f64| (value * l).round())
            };
            let mut reference: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            reference.sort_by(f64::total_cmp);
            let mut rank = GrowingRank::new(&reference);
            for p in &mut by_frame {
                let score = draw(&mut rng);
                p.push(rank.rank(score, uniform(&mut rng)));
            }
        }
        for p in &mut by_frame {
            p.sort_by(f64::total_cmp);
            let count = p.len() as f64;
            let distance = p.iter().enumerate().map(|(i, p)| (p - (i as f64 + 0.5) / count).abs()).fold(0.0, f64::max);
            assert!(distance < 1.95 / count.sqrt(), "n = {n}, levels {levels:?}: distance {distance}");
        }
    }
}
