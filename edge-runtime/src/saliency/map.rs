//! The saliency map itself: mean, resizing, normalisation, and two numbers that describe its shape.

/// A saliency map, row-major. Signed: positive values speak for the class, negative against it.
#[derive(Debug, Clone, PartialEq)]
pub struct Map {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `height * width` values.
    pub values: Vec<f32>,
}

impl Map {
    /// Mean of all values, summed in f64.
    pub fn mean(&self) -> f64 {
        self.values.iter().map(|v| f64::from(*v)).sum::<f64>() / self.values.len() as f64
    }

    /// Bilinear resizing with half-pixel centres and clamped edges, without antialiasing (PyTorch's
    /// `interpolate(mode="bilinear", align_corners=False)`).
    pub fn upsample(&self, width: usize, height: usize) -> Map {
        let columns = neighbours(self.width, width);
        let rows = neighbours(self.height, height);
        let mut values = Vec::with_capacity(width * height);
        for (y0, y1, fy) in rows {
            let (upper, lower) = (&self.values[y0 * self.width..], &self.values[y1 * self.width..]);
            for (x0, x1, fx) in &columns {
                let top = upper[*x0] * (1.0 - fx) + upper[*x1] * fx;
                let bottom = lower[*x0] * (1.0 - fx) + lower[*x1] * fx;
                values.push(top * (1.0 - fy) + bottom * fy);
            }
        }
        Map { width, height, values }
    }

    /// `(M − min) / (max(M − min) + 1e-8)`: 0 is the strongest evidence against, about 1 the strongest for the class.
    /// The epsilon is added after the subtraction, so a nearly constant map stays near 0 and keeps nothing.
    pub fn normalised(&self) -> Map {
        let low = self.values.iter().copied().fold(f32::INFINITY, f32::min);
        let range = self.values.iter().map(|v| v - low).fold(0.0, f32::max) + 1e-8;
        Map { width: self.width, height: self.height, values: self.values.iter().map(|v| (v - low) / range).collect() }
    }

    /// Indices by descending value; equal values in ascending index order, not-a-numbers last.
    pub fn order(&self) -> Vec<usize> {
        // Adding zero folds −0 into 0, which the total order would tell apart.
        let key = |i: &usize| if self.values[*i].is_nan() { f32::NEG_INFINITY } else { self.values[*i] + 0.0 };
        let mut order: Vec<usize> = (0..self.values.len()).collect();
        order.sort_by(|a, b| key(b).total_cmp(&key(a)));
        order
    }

    /// Entropy of the map read as a distribution, in 0..=1: the map minus its minimum, divided by its sum, gives p, and
    /// the result is `−Σ p ln p / ln(cells)`. 1 is an even map (also a constant one), 0 a single cell.
    pub fn entropy(&self) -> f64 {
        let Some(mass) = self.mass() else { return 1.0 };
        let entropy: f64 = mass.iter().filter(|p| **p > 0.0).map(|p| -p * p.ln()).sum();
        (entropy / (mass.len() as f64).ln()).clamp(0.0, 1.0)
    }

    /// Share of the same distribution that lies in its `⌈cells / 10⌉` largest cells, in 0..=1. About 0.1 for an even
    /// map, 1 when a tenth of the cells holds all of it.
    pub fn concentration(&self) -> f64 {
        let top = self.values.len().div_ceil(10);
        let Some(mut mass) = self.mass() else { return top as f64 / self.values.len().max(1) as f64 };
        mass.sort_by(|a, b| b.total_cmp(a));
        mass[..top].iter().sum::<f64>().min(1.0)
    }

    /// The map minus its minimum, divided by its sum; `None` for a constant, empty or non-finite map.
    fn mass(&self) -> Option<Vec<f64>> {
        let low = self.values.iter().map(|v| f64::from(*v)).fold(f64::INFINITY, f64::min);
        let lifted: Vec<f64> = self.values.iter().map(|v| f64::from(*v) - low).collect();
        let sum: f64 = lifted.iter().sum();
        (sum > 0.0 && sum.is_finite()).then(|| lifted.into_iter().map(|v| v / sum).collect())
    }
}

/// For each output cell: the two input cells it lies between and the weight of the second.
fn neighbours(input: usize, output: usize) -> Vec<(usize, usize, f32)> {
    let scale = input as f64 / output as f64;
    (0..output)
        .map(|index| {
            let position = ((index as f64 + 0.5) * scale - 0.5).max(0.0);
            let first = (position as usize).min(input - 1);
            (first, (first + 1).min(input - 1), (position - first as f64) as f32)
        })
        .collect()
}
