//! Keeps one frame in so many, of reference and stream alike, so that kept frames are nearly independent.
//!
//! The step is three autocorrelation times of the reference, fixed before ranking starts and never re-estimated from
//! frames under test. Only frames that pass the sensor check are counted, on both sides.

/// Raw frames per kept frame for an autocorrelation time: ⌈3 τ⌉, at least 1.
pub fn step_for(time: f64) -> usize {
    (3.0 * time.max(1.0)).ceil() as usize
}

/// Counts frames and says which are kept; the first is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thinner {
    step: usize,
    until_next: usize,
}

impl Thinner {
    /// Keeps one frame in `step` (0 counts as 1).
    pub fn new(step: usize) -> Self {
        Self { step: step.max(1), until_next: 0 }
    }

    /// Whether the next frame will be kept.
    pub fn next_is_kept(&self) -> bool {
        self.until_next == 0
    }

    /// Counts one frame; true when it is kept.
    pub fn tick(&mut self) -> bool {
        let kept = self.until_next == 0;
        self.until_next = if kept { self.step - 1 } else { self.until_next - 1 };
        kept
    }

    /// Frames that will still be skipped.
    pub(super) fn until_next(&self) -> usize {
        self.until_next
    }

    /// Continues where a saved thinner stopped.
    pub(super) fn resume(&mut self, until_next: usize) {
        self.until_next = until_next.min(self.step - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_of_every_step() {
        let mut thinner = Thinner::new(step_for(1.2));
        let kept: Vec<usize> = (0..12).filter(|_| thinner.tick()).collect();
        assert_eq!(kept, [0, 4, 8]);
        let mut every = Thinner::new(1);
        assert!((0..5).all(|_| every.tick()));
    }
}
