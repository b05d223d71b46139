//! Eight signed statistics of a picture at network size: what the input looks like, without any network.
//!
//! Values are taken in 0..1, luma is Y = .299 R + .587 G + .114 B, Lap its 4-neighbour Laplacian on inner pixels.
//! Standard deviations divide by the number of pixels; medians average the two middle values. A picture too small
//! for a Laplacian (a side below 3) has none: its median and deviation count as 0.

use crate::image::Picture;

/// The eight statistics, in the order of [`super::Channel::PIXELS`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelStatistics(pub [f64; 8]);

impl PixelStatistics {
    /// Measures a picture, which is expected at network size: other sizes give other, incomparable values.
    pub fn of(picture: &Picture) -> Self {
        let (width, height) = (picture.width, picture.height);
        let pixels = || picture.rgb.chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(|byte| f64::from(byte) / 255.0));
        let luma: Vec<f64> = pixels().map(|[r, g, b]| 0.299 * r + 0.587 * g + 0.114 * b).collect();
        let at = |row: usize, column: usize| luma[row * width + column];

        let (mut laplacian, mut checker) = (Vec::new(), Vec::new());
        for row in 1..height.saturating_sub(1) {
            for column in 1..width.saturating_sub(1) {
                let around = at(row - 1, column) + at(row + 1, column) + at(row, column - 1) + at(row, column + 1);
                laplacian.push(around - 4.0 * at(row, column));
            }
        }
        for row in 0..height.saturating_sub(1) {
            for column in 0..width.saturating_sub(1) {
                let diagonal = at(row, column) + at(row + 1, column + 1);
                checker.push((diagonal - at(row, column + 1) - at(row + 1, column)).abs());
            }
        }
        let (luma_mean, luma_deviation) = mean_and_deviation(&luma);
        let (_, laplacian_deviation) = mean_and_deviation(&laplacian);
        laplacian.iter_mut().for_each(|value| *value = value.abs());

        let count = luma.len().max(1) as f64;
        let (mut saturation, mut red_minus_blue) = (0.0, 0.0);
        for [r, g, b] in pixels() {
            let (low, high) = (r.min(g).min(b), r.max(g).max(b));
            saturation += (high - low) / (high + 1e-3);
            red_minus_blue += r - b;
        }
        Self([
            luma_mean,
            (luma_deviation + 1e-3).ln(),
            (median(&mut laplacian) + 2e-3).ln(),
            (laplacian_deviation + 1e-3).ln(),
            (saturation / count + 1e-2).ln(),
            (median(&mut checker) + 2e-3).ln(),
            (laplacian_deviation / (luma_deviation + 1e-3) + 1e-3).ln(),
            red_minus_blue / count,
        ])
    }

    /// The seven statistics the residuals are made of: all but the ratio, which the others determine.
    pub(super) fn without_ratio(&self) -> [f64; 7] {
        let [a, b, c, d, e, f, _, g] = self.0;
        [a, b, c, d, e, f, g]
    }
}

fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    if values.is_empty() {
        return (0.0, 0.0);
    }
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// Median; 0 for no values.
fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let odd = values.len() % 2 == 1;
    let middle = values.len() / 2;
    let (below, &mut upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    if odd {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    0.5 * (lower + upper)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize, values: &[u8]) -> Picture {
        Picture { width, height, rgb: values.iter().flat_map(|&v| [v, v, v]).collect() }
    }

    /// 3×4 picture worked out by hand: two inner pixels, six 2×2 windows.
    #[test]
    fn matches_a_picture_worked_out_by_hand() {
        let values = [0, 51, 102, 255, 51, 102, 204, 0, 255, 0, 51, 102];
        let y: Vec<f64> = values.iter().map(|&v| f64::from(v) / 255.0).collect();
        let statistics = PixelStatistics::of(&grey(4, 3, &values)).0;
        let mean = y.iter().sum::<f64>() / 12.0;
        let deviation = (y.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 12.0).sqrt();
        // Inner pixels (1,1) = .4 and (1,2) = .8: .2 + 0 + .2 + .8 − 1.6 = −.4 and .4 + .2 + .4 + 0 − 3.2 = −2.2.
        let expected = [
            mean,
            (deviation + 1e-3).ln(),
            (1.3f64 + 2e-3).ln(),
            (0.9f64 + 1e-3).ln(),
            1e-2f64.ln(),
            // |checker|: 0, .2, 1.4, 1.2, .6... median of the six windows below.
            (median_of([0.0, 0.2, 1.4, 1.2, 0.2, 1.0]) + 2e-3).ln(),
            (0.9 / (deviation + 1e-3) + 1e-3).ln(),
            0.0,
        ];
        for (got, want) in statistics.iter().zip(expected) {
            assert!((got - want).abs() < 1e-9, "{statistics:?} against {expected:?}");
        }
    }

    fn median_of(mut values: [f64; 6]) -> f64 {
        values.sort_by(f64::total_cmp);
        0.5 * (values[2] + values[3])
    }

    #[test]
    fn colour_shows_in_saturation_and_red_minus_blue() {
        let picture = Picture { width: 1, height: 2, rgb: vec![255, 0, 0, 0, 0, 51] };
        let statistics = PixelStatistics::of(&picture).0;
        let saturation = (1.0 / 1.001 + 0.2 / 0.201) / 2.0;
        assert!((statistics[4] - f64::ln(saturation + 1e-2)).abs() < 1e-12);
        assert!((statistics[7] - 0.4).abs() < 1e-12);
        assert!(statistics.iter().all(|v| v.is_finite()));
    }
}
