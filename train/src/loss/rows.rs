//! What the contrastive losses share: unit rows, the way back through their normalisation, and the weighted sum over
//! anchors that every loss of in-batch positives is.

use crate::Result;
use candle_core::{DType, Tensor};

/// Norms below this are treated as this, so that a zero row has gradient zero instead of NaN.
const SMALLEST_NORM: f64 = 1e-12;

/// L2-normalised rows in f64, detached, and their norms (R × 1).
pub(super) struct UnitRows {
    pub z: Tensor,
    norm: Tensor,
}

impl UnitRows {
    /// The rows of an R × D matrix of any float type.
    pub fn of(rows: &Tensor) -> Result<Self> {
        let raw = rows.detach().to_dtype(DType::F64)?;
        let norm = raw.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(SMALLEST_NORM)?;
        Ok(Self { z: raw.broadcast_div(&norm)?, norm })
    }

    /// The gradient by the rows as they were, from that by the unit rows: its radial part goes.
    pub fn through(&self, gradient: &Tensor) -> Result<Tensor> {
        let along = (gradient * &self.z)?.sum_keepdim(1)?;
        Ok((gradient - self.z.broadcast_mul(&along)?)?.broadcast_div(&self.norm)?)
    }
}

/// A contrastive sum: its value, its gradient by the rows (R × D), and each anchor's term before `scale`.
pub(super) struct Contrasted {
    pub value: f64,
    pub gradient: Tensor,
    pub per_anchor: Vec<f64>,
}

/// `scale · Σ over anchors i of [ −Σ_p w_ip (z_i·z_p/τ − log Σ_{a≠i} exp(z_i·z_a/τ)) ]`.
///
/// The first `anchors` rows are anchors, every row is in the denominators. `weigh(i, w)` fills in the weights of anchor
/// i's positives into zeros; an anchor without any has the term 0.
pub(super) fn contrast(
    rows: &Tensor,
    temperature: f64,
    scale: f64,
    anchors: usize,
    weigh: impl Fn(usize, &mut [f64]),
) -> Result<Contrasted> {
    let unit = UnitRows::of(rows)?;
    let z = &unit.z;
    let count = z.dim(0)?;
    let similarity = (z.matmul(&z.t()?.contiguous()?)? / temperature)?;
    let similarity = similarity.flatten_all()?.to_vec1::<f64>()?;
    let mut per_anchor = Vec::with_capacity(anchors);
    // Gradient by the similarities, row per anchor.
    let mut slope = vec![0f64; count * count];
    let mut weights = vec![0f64; count];
    for i in 0..anchors {
        weights.fill(0.0);
        weigh(i, &mut weights);
        let total: f64 = weights.iter().sum();
        if total == 0.0 {
            per_anchor.push(0.0);
            continue;
        }
        let s = &similarity[i * count..(i + 1) * count];
        let others = || (0..count).filter(move |&a| a != i);
        let top = others().map(|a| s[a]).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = others().map(|a| (s[a] - top).exp()).sum();
        let pulled: f64 = others().map(|a| weights[a] * s[a]).sum();
        per_anchor.push(total * (top + sum.ln()) - pulled);
        for a in others() {
            slope[i * count + a] = scale / temperature * (total * (s[a] - top).exp() / sum - weights[a]);
        }
    }
    let slope = Tensor::from_vec(slope, (count, count), z.device())?;
    let gradient = (slope.matmul(z)? + slope.t()?.contiguous()?.matmul(z)?)?;
    Ok(Contrasted { value: scale * per_anchor.iter().sum::<f64>(), gradient: unit.through(&gradient)?, per_anchor })
}
