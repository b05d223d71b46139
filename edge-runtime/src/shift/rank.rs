//! The exact smoothed conformal rank among the reference and the stream so far.
//!
//! With t earlier stream frames, A reference and stream values strictly above, m reference values equal to the score
//! (0 inside a gap between neighbouring distinct values), c earlier stream frames in that atom or gap, and a draw U in
//! (0, 1): p = (A + U (m + c + 1)) / (n + 1 + t); then that atom or gap counts one more. Under exchangeability these p
//! are independent and uniform for any n, ties included. Cells are 2i + 1 for the i-th distinct reference value and 2i
//! for the gap below it, counted in a Fenwick tree: O(log n) a frame, and memory does not grow with the stream.

/// A reference that learns the stream it ranks.
#[derive(Debug, Clone, PartialEq)]
pub struct GrowingRank {
    distinct: Vec<f64>,
    /// Fenwick tree over cells, 1-based, of reference and stream counts.
    tree: Vec<u64>,
    /// Reference and stream frames per cell.
    cells: Vec<u64>,
    /// Stream frames per cell alone, for the saved state.
    stream: Vec<u64>,
    total: u64,
}

impl GrowingRank {
    /// Starts from the sorted reference values.
    pub fn new(sorted: &[f64]) -> Self {
        let mut distinct: Vec<f64> = Vec::new();
        let mut cells = vec![0];
        for &value in sorted {
            // −0 and 0 are one value.
            let value = value + 0.0;
            if distinct.last().is_none_or(|last| last.total_cmp(&value).is_lt()) {
                distinct.push(value);
                cells.extend([0, 0]);
            }
            let atom = cells.len() - 2;
            cells[atom] += 1;
        }
        let mut rank = Self { distinct, tree: Vec::new(), stream: vec![0; cells.len()], cells, total: 0 };
        rank.rebuild();
        rank
    }

    /// The p-value of a score for the draw `u` in (0, 1); small = unusually high. The score then joins the counters.
    pub fn rank(&mut self, score: f64, u: f64) -> f64 {
        let cell = match self.distinct.binary_search_by(|value| value.total_cmp(&(score + 0.0))) {
            Ok(atom) => 2 * atom + 1,
            Err(gap) => 2 * gap,
        };
        let (mut at_or_below, mut node) = (0, cell + 1);
        while node > 0 {
            at_or_below += self.tree[node];
            node &= node - 1;
        }
        let above = self.total - at_or_below;
        let p = (above as f64 + u * (self.cells[cell] + 1) as f64) / (self.total + 1) as f64;
        self.count(cell);
        p
    }

    /// Non-empty stream counters as (cell, frames).
    pub(super) fn stream_counts(&self) -> Vec<(usize, u64)> {
        self.stream.iter().copied().enumerate().filter(|&(_, count)| count > 0).collect()
    }

    /// Puts saved stream counters into a fresh rank; false when a cell does not exist or a sum overflows.
    pub(super) fn resume(&mut self, counts: &[(usize, u64)]) -> bool {
        let mut sum = 0u64;
        for &(cell, count) in counts {
            // A stream of 2^53 frames is beyond any device, and the largest count f64 holds exactly.
            sum = sum.saturating_add(count);
            if cell >= self.stream.len() || sum > 1 << 53 {
                return false;
            }
            self.stream[cell] += count;
            self.cells[cell] += count;
        }
        self.rebuild();
        true
    }

    fn count(&mut self, cell: usize) {
        self.stream[cell] += 1;
        self.cells[cell] += 1;
        self.total += 1;
        let mut node = cell + 1;
        while node < self.tree.len() {
            self.tree[node] += 1;
            node += node & node.wrapping_neg();
        }
    }

    fn rebuild(&mut self) {
        self.tree = vec![0; self.cells.len() + 1];
        self.total = self.cells.iter().sum();
        for cell in 0..self.cells.len() {
            let node = cell + 1;
            self.tree[node] += self.cells[cell];
            let parent = node + (node & node.wrapping_neg());
            if parent < self.tree.len() {
                self.tree[parent] += self.tree[node];
            }
        }
    }
}
