//! A new model beside the running one on the same labelled pictures: promoted only when a test that may be looked at
//! after every picture says that it is not worse by a margin.
//!
//! Each picture bets on `d = [new is right] − [running is right]`, in −1, 0, 1. Against "the new one is worse by the
//! margin δ or more" (mean of d at most −δ) the wealth is a mixture over stakes λ of `Π (1 + λ (d + δ))`: a product of
//! factors with mean at most 1, so by Ville's inequality it ever reaches 1/α with probability at most α (Waudby-Smith
//! and Ramdas, Estimating means of bounded random variables by betting, 2024). A second wealth, `Π (1 − λ d)`, bets
//! against "it is not worse at all" and ends the comparison of a model that plainly is. Both suppose pictures in an
//! order that has nothing to do with the models.

use crate::{Error, Result};

/// Stakes of the mixture: high ones for models that agree, low ones for models that often differ.
const STAKES: [f64; 8] = [0.9, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125];

/// What a comparison says so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough pictures to tell.
    Open,
    /// The new model is not worse by the margin.
    NotWorse,
    /// The new model is worse.
    Worse,
}

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    margin: f64,
    level: f64,
    promote: [f64; STAKES.len()],
    reject: [f64; STAKES.len()],
    /// Pictures so far.
    pub pictures: u64,
    /// Pictures on which only the new model was right.
    pub new_only: u64,
    /// Pictures on which only the running model was right.
    pub running_only: u64,
    verdict: Verdict,
}

impl Comparison {
    /// A comparison that promotes a model worse by `margin` (a share of pictures, 0 < δ < 1) with probability at most
    /// `level` (0 < α < 1).
    ///
    /// # Errors
    /// [`Error::Data`] when one of them is out of range.
    pub fn new(margin: f64, level: f64) -> Result<Self> {
        let share = |x: f64| x > 0.0 && x < 1.0;
        if !share(margin) || !share(level) {
            return Err(Error::Data { what: "comparison", reason: "margin and level must be between 0 and 1".into() });
        }
        Ok(Self {
            margin,
            level,
            promote: [1.0; STAKES.len()],
            reject: [1.0; STAKES.len()],
            pictures: 0,
            new_only: 0,
            running_only: 0,
            verdict: Verdict::Open,
        })
    }

    /// Takes one picture's outcome. A verdict once reached stays.
    pub fn observe(&mut self, new_right: bool, running_right: bool) -> Verdict {
        self.pictures += 1;
        self.new_only += u64::from(new_right && !running_right);
        self.running_only += u64::from(running_right && !new_right);
        let d = f64::from(u8::from(new_right)) - f64::from(u8::from(running_right));
        for (index, stake) in STAKES.into_iter().enumerate() {
            self.promote[index] *= 1.0 + stake * (d + self.margin);
            self.reject[index] *= 1.0 - stake * d;
        }
        if self.verdict == Verdict::Open {
            let enough = 1.0 / self.level;
            if mean(&self.promote) >= enough {
                self.verdict = Verdict::NotWorse;
            } else if mean(&self.reject) >= enough {
                self.verdict = Verdict::Worse;
            }
        }
        self.verdict
    }

    /// What it says so far.
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Estimated gain in accuracy of the new model over the running one, as a share of pictures.
    pub fn gain(&self) -> f64 {
        (self.new_only as f64 - self.running_only as f64) / self.pictures.max(1) as f64
    }
}

fn mean(wealth: &[f64]) -> f64 {
    wealth.iter().sum::<f64>() / wealth.len() as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// Shares of runs that end in each verdict, and the mean pictures to a promotion, when the new model alone is right
    /// with one probability and the running one alone with another.
    fn simulate(runs: usize, pictures: usize, new_only: f64, running_only: f64) -> (f64, f64, f64) {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let (mut promoted, mut rejected, mut took) = (0, 0, 0);
        for _ in 0..runs {
            let mut comparison = Comparison::new(0.02, 0.01).unwrap();
            for _ in 0..pictures {
                let x: f64 = random.random();
                let verdict = comparison.observe(x < new_only, (new_only..new_only + running_only).contains(&x));
                if verdict != Verdict::Open {
                    break;
                }
            }
            promoted += usize::from(comparison.verdict() == Verdict::NotWorse);
            rejected += usize::from(comparison.verdict() == Verdict::Worse);
            took += if comparison.verdict() == Verdict::NotWorse { comparison.pictures } else { 0 };
        }
        let share = |count: usize| count as f64 / runs as f64;
        (share(promoted), share(rejected), took as f64 / promoted.max(1) as f64)
    }

    #[test]
    fn a_model_two_points_worse_is_hardly_ever_promoted() {
        for (new_only, running_only) in [(0.0, 0.02), (0.01, 0.03), (0.04, 0.06), (0.2, 0.22)] {
            let (promoted, rejected, _) = simulate(4_000, 5_000, new_only, running_only);
            println!("two points worse, {new_only} against {running_only}: promoted {promoted}, told worse {rejected}");
            assert!(promoted <= 0.01, "{promoted}");
        }
    }

    #[test]
    fn a_model_that_is_as_good_gets_there_and_a_bad_one_is_told() {
        let (equal, told, pictures) = simulate(400, 10_000, 0.03, 0.03);
        println!("equal: promoted {equal} after {pictures:.0} pictures, told worse {told}");
        assert!(equal > 0.95 && told <= 0.01, "{equal} {told}");
        let (better, _, sooner) = simulate(400, 10_000, 0.06, 0.02);
        println!("four points better: promoted {better} after {sooner:.0} pictures");
        assert!(better > 0.99 && sooner < pictures);
        let (bad, told, _) = simulate(400, 2_000, 0.02, 0.12);
        assert!(bad == 0.0 && told > 0.99, "{bad} {told}");
    }

    #[test]
    fn margins_out_of_range_are_refused() {
        for (margin, level) in [(0.0, 0.01), (1.0, 0.01), (0.02, 0.0), (f64::NAN, 0.01), (0.02, 1.0)] {
            assert!(Comparison::new(margin, level).is_err());
        }
    }
}
