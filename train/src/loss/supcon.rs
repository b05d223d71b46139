//! Supervised contrastive loss, L_out form, with the three treatments of background samples of ExCon and ExConB.
//!
//! `L = (τ/β) · mean over anchors i of [ −mean over p in P(i) of (z_i·z_p/τ − log Σ_{a in D(i)} exp(z_i·z_a/τ)) ]` where
//! `z` are the L2-normalised rows, `P(i)` the other anchors of i's label and `D(i)` every row but i. Background rows
//! are nothing (`off`), members of `D` only (`negatives`), or one more class with anchors of its own (`class`).

use super::attach;
use crate::{Error, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// What happens to a masked view that fails the label-consistency test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Background {
    /// It is dropped: ExCon.
    Off,
    /// It is a further negative of every anchor: ExConB as published.
    Negatives,
    /// It belongs to a class of its own and is an anchor too.
    Class,
}

/// Constants of the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SupCon {
    /// τ, positive.
    pub temperature: f64,
    /// β, positive: `τ/β` multiplies the loss, and so the effective learning rate.
    pub base: f64,
}

impl Default for SupCon {
    fn default() -> Self {
        Self { temperature: 0.1, base: 0.07 }
    }
}

/// The loss and its parts.
#[derive(Debug, Clone)]
pub struct SupConLoss {
    /// Scalar, differentiable by the projections.
    pub loss: Tensor,
    /// One term per anchor, before the factor τ/β; order of the rows.
    pub per_anchor: Vec<f64>,
}

/// Norms below this are treated as this, so that a zero row has gradient zero instead of NaN.
const SMALLEST_NORM: f64 = 1e-12;

impl SupCon {
    /// The loss of `projections` (R × D, not normalised) with R = 2B + 2G rows: view 1, view 2 (both in the order of
    /// the B `labels`), then the G background rows twice. `background` is ignored when G is 0.
    ///
    /// # Errors
    /// When the rows do not fit the labels, when there are background rows although it is off, or on a bad constant.
    pub fn loss(&self, projections: &Tensor, labels: &[usize], background: Background) -> Result<SupConLoss> {
        let (rows, _) = projections.dims2()?;
        let real = 2 * labels.len();
        self.check(rows, real, background)?;
        let own = labels.iter().max().map_or(0, |m| m + 1);
        let row_label = |i: usize| if i < real { labels[i % labels.len()] } else { own };
        let anchors = if background == Background::Class { rows } else { real };

        let raw = projections.detach().to_dtype(DType::F64)?;
        let norm = raw.sqr()?.sum_keepdim(1)?.sqrt()?.maximum(SMALLEST_NORM)?;
        let z = raw.broadcast_div(&norm)?;
        let similarity = (z.matmul(&z.t()?.contiguous()?)? / self.temperature)?;
        let similarity = similarity.flatten_all()?.to_vec1::<f64>()?;

        let scale = self.temperature / self.base / anchors as f64;
        let mut per_anchor = Vec::with_capacity(anchors);
        // Gradient by the similarities (already divided by τ), row per anchor.
        let mut slope = vec![0f64; rows * rows];
        for i in 0..anchors {
            let s = &similarity[i * rows..(i + 1) * rows];
            let others = || (0..rows).filter(move |&a| a != i);
            let is_positive = |a: usize| a < anchors && row_label(a) == row_label(i);
            let positives = others().filter(|&a| is_positive(a)).count();
            if positives == 0 {
                // No twin: the released code's patch makes the term 0. Cannot happen with two views of each row.
                per_anchor.push(0.0);
                continue;
            }
            let top = others().map(|a| s[a]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = others().map(|a| (s[a] - top).exp()).sum();
            let mean_positive = others().filter(|&a| is_positive(a)).map(|a| s[a]).sum::<f64>() / positives as f64;
            per_anchor.push(top + sum.ln() - mean_positive);
            for a in others() {
                let pull = if is_positive(a) { 1.0 / positives as f64 } else { 0.0 };
                slope[i * rows + a] = scale / self.temperature * ((s[a] - top).exp() / sum - pull);
            }
        }
        let loss = scale * per_anchor.iter().sum::<f64>();

        let slope = Tensor::from_vec(slope, (rows, rows), raw.device())?;
        let grad_z = (slope.matmul(&z)? + slope.t()?.contiguous()?.matmul(&z)?)?;
        let along = (&grad_z * &z)?.sum_keepdim(1)?;
        let gradient = (grad_z - z.broadcast_mul(&along)?)?.broadcast_div(&norm)?;
        Ok(SupConLoss { loss: attach(projections, loss, gradient)?, per_anchor })
    }

    fn check(&self, rows: usize, real: usize, background: Background) -> Result<()> {
        let fail = |name: &str, reason: String| Err(Error::Setting { name: name.into(), reason });
        if !(self.temperature > 0.0 && self.base > 0.0) {
            return fail("contrast.temperature", "temperature and base must be positive".into());
        }
        if real == 0 || rows < real || !(rows - real).is_multiple_of(2) {
            return fail("projections", format!("{rows} rows do not fit {real} real rows and background in pairs"));
        }
        if rows > real && background == Background::Off {
            return fail("background", "is off, but background rows are given".into());
        }
        Ok(())
    }
}
