//! Supervised contrastive loss, L_out form, with the three treatments of background samples of ExCon and ExConB.
//!
//! `L = (τ/β) · mean over anchors i of [ −mean over p in P(i) of (z_i·z_p/τ − log Σ_{a in D(i)} exp(z_i·z_a/τ)) ]` where
//! `z` are the L2-normalised rows, `P(i)` the other anchors of i's label and `D(i)` every row but i. Background rows
//! are nothing (`off`), members of `D` only (`negatives`), or one more class with anchors of its own (`class`).

use super::attach;
use super::rows::contrast;
use crate::{Error, Result};
use candle_core::Tensor;
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

impl SupCon {
    /// The loss of `projections` (R × D, not normalised): first one row per entry of `labels`, such as view 1 and view 2
    /// of the same pictures, then G background rows, twice. `background` is ignored when G is 0.
    ///
    /// # Errors
    /// When the rows do not fit the labels, when there are background rows although it is off, or on a bad constant.
    pub fn loss(&self, projections: &Tensor, labels: &[usize], background: Background) -> Result<SupConLoss> {
        let (rows, _) = projections.dims2()?;
        let real = labels.len();
        self.check(rows, real, background)?;
        let own = labels.iter().max().map_or(0, |m| m + 1);
        let label = |i: usize| if i < real { labels[i] } else { own };
        let anchors = if background == Background::Class { rows } else { real };
        let scale = self.temperature / self.base / anchors as f64;
        // An anchor alone in its class has the term 0, the released code's patch; with its twin beside it, none is.
        let out = contrast(projections, self.temperature, scale, anchors, |i, weights| {
            let positive = |a: &usize| *a != i && label(*a) == label(i);
            let each = 1.0 / (0..anchors).filter(positive).count() as f64;
            (0..anchors).filter(positive).for_each(|a| weights[a] = each);
        })?;
        Ok(SupConLoss { loss: attach(projections, out.value, out.gradient)?, per_anchor: out.per_anchor })
    }

    pub(super) fn check_constants(&self) -> Result<()> {
        if self.temperature > 0.0 && self.base > 0.0 {
            return Ok(());
        }
        let reason = "temperature and base must be positive".into();
        Err(Error::Setting { name: "contrast.temperature".into(), reason })
    }

    fn check(&self, rows: usize, real: usize, background: Background) -> Result<()> {
        let fail = |name: &str, reason: String| Err(Error::Setting { name: name.into(), reason });
        self.check_constants()?;
        if real == 0 || rows < real || !(rows - real).is_multiple_of(2) {
            return fail("projections", format!("{rows} rows do not fit {real} real rows and background in pairs"));
        }
        if rows > real && background == Background::Off {
            return fail("background", "is off, but background rows are given".into());
        }
        Ok(())
    }
}
