//! Integrated autocorrelation time: how many raw frames carry the information of one independent frame.
//!
//! τ = 1 + 2 Σ ρ_k, with Geyer's initial positive sequence: pairs ρ_2k + ρ_2k+1 are summed while positive, without a
//! monotone step; autocovariances divide by the length of the series. Some texts call half of this τ.

/// Frames per τ that a series must have for its τ to be believed.
pub const FRAMES_PER_TIME: f64 = 100.0;

/// τ of a series in frames, or `None` when it is too short (below 4) or constant. May lie below 1 where neighbours
/// are anticorrelated.
pub fn integrated_time(series: &[f64]) -> Option<f64> {
    let count = series.len();
    if count < 4 {
        return None;
    }
    let mean = series.iter().sum::<f64>() / count as f64;
    let centred: Vec<f64> = series.iter().map(|value| value - mean).collect();
    let covariance = |lag: usize| -> f64 {
        centred[..count - lag].iter().zip(&centred[lag..]).map(|(a, b)| a * b).sum::<f64>() / count as f64
    };
    let variance = covariance(0);
    if variance.is_nan() || variance <= 0.0 {
        return None;
    }
    let mut sum = 0.0;
    for pair in 0..count / 2 {
        let value = (covariance(2 * pair) + covariance(2 * pair + 1)) / variance;
        if value.is_nan() || value <= 0.0 {
            break;
        }
        sum += value;
    }
    Some(2.0 * sum - 1.0)
}
