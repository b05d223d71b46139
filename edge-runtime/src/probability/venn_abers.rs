//! Inductive Venn–Abers prediction of whether an answer is right, from its score (Vovk, Petej, Fedorova 2015, arXiv
//! 1511.00213).
//!
//! A new score joins the calibration scores once as a wrong answer and once as a right one; isotonic regression of both
//! gives two probabilities, p0 and p1, one of which is calibrated whatever the scores. Both depend on the new score by
//! its rank alone, so that a fit is a step function, which travels in the bundle.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most steps that are read from a file.
const MOST: usize = 100_000;

/// The step function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VennAbers {
    /// Score from which a step counts, p0 and p1 there. Scores below the first step belong to it.
    steps: Vec<[f64; 3]>,
}

/// Calibration scores pooled into one value of the regression, and where the next block away from the new score begins.
#[derive(Debug, Clone, Copy, Default)]
struct Block {
    right: f64,
    count: f64,
    next: usize,
}

impl Block {
    fn mean(&self) -> f64 {
        self.right / self.count
    }

    fn join(&mut self, other: &Self) {
        self.right += other.right;
        self.count += other.count;
        self.next = other.next;
    }
}

impl VennAbers {
    /// Fits the scores of answers that were right or not.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, sizes disagree or a score is not finite.
    pub fn fit(scores: &[f64], right: &[bool]) -> Result<Self> {
        if scores.is_empty() || scores.len() != right.len() || scores.iter().any(|s| !s.is_finite()) {
            let reason = format!("{} scores for {} answers, all must be finite", scores.len(), right.len());
            return Err(Error::Data { what: "Venn–Abers", reason });
        }
        let mut pairs: Vec<(f64, bool)> = scores.iter().copied().zip(right.iter().copied()).collect();
        pairs.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut groups: Vec<(f64, Block)> = Vec::new();
        for (score, right) in pairs {
            let one = Block { right: f64::from(u8::from(right)), count: 1.0, next: 0 };
            match groups.last_mut() {
                Some((last, block)) if *last == score => block.join(&one),
                _ => groups.push((score, one)),
            }
        }
        let n = groups.len();
        // The last block of the regression of groups 0..i, and the first of the regression of groups i..n.
        let mut left = vec![Block::default(); n + 1];
        for i in 1..=n {
            let mut block = Block { next: i - 1, ..groups[i - 1].1 };
            while block.next > 0 && left[block.next].mean() >= block.mean() {
                let before = left[block.next];
                block.join(&before);
            }
            left[i] = block;
        }
        let mut right = vec![Block::default(); n + 1];
        for i in (0..n).rev() {
            let mut block = Block { next: i + 1, ..groups[i].1 };
            while block.next < n && right[block.next].mean() <= block.mean() {
                let after = right[block.next];
                block.join(&after);
            }
            right[i] = block;
        }
        // The value at a new point with groups 0..i before it and j..n behind it.
        let value = |mut own: Block, mut i: usize, mut j: usize| {
            loop {
                if i > 0 && left[i].mean() >= own.mean() {
                    own.join(&left[i]);
                    i = left[i].next;
                } else if j < n && right[j].mean() <= own.mean() {
                    own.join(&right[j]);
                    j = right[j].next;
                } else {
                    return own.mean();
                }
            }
        };
        let both = |own: Block, i: usize, j: usize| {
            let with = |right: f64| value(Block { right: own.right + right, count: own.count + 1.0, next: 0 }, i, j);
            [with(0.0), with(1.0)]
        };
        let mut steps: Vec<[f64; 3]> = Vec::new();
        let mut step = |from: f64, [p0, p1]: [f64; 2]| {
            if steps.last().is_none_or(|last| last[1..] != [p0, p1]) {
                steps.push([from, p0, p1]);
            }
        };
        step(groups[0].0.min(0.0), both(Block::default(), 0, 0));
        for (i, (score, group)) in groups.iter().enumerate() {
            step(*score, both(*group, i, i + 1));
            step(score.next_up(), both(Block::default(), i + 1, i + 1));
        }
        Ok(Self { steps })
    }

    /// p0 and p1 of a score: the probability that the answer is right, had it been wrong, had it been right.
    pub fn p0_p1(&self, score: f64) -> [f64; 2] {
        let behind = self.steps.partition_point(|step| step[0] <= score);
        let [_, p0, p1] = self.steps[behind.saturating_sub(1)];
        [p0, p1]
    }

    /// The one probability that stands for both with least regret in log loss: `p1 / (1 − p0 + p1)`, inside 0..1.
    pub fn probability(&self, score: f64) -> f64 {
        let [p0, p1] = self.p0_p1(score);
        p1 / (1.0 - p0 + p1)
    }

    pub(super) fn validate(&self) -> std::result::Result<(), String> {
        let share = |p: f64| (0.0..=1.0).contains(&p);
        let sound = |s: &[f64; 3]| s[0].is_finite() && share(s[1]) && share(s[2]) && s[1] < 1.0 && s[2] > 0.0;
        let rising = self.steps.windows(2).all(|pair| pair[0][0] < pair[1][0]);
        let holds = (1..=MOST).contains(&self.steps.len()) && rising && self.steps.iter().all(sound);
        if holds { Ok(()) } else { Err("the steps of Venn–Abers must rise and hold probabilities".into()) }
    }
}
