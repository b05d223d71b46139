//! Supervised contrastive loss for sets of labels: one SupCon term for each label of each anchor.
//!
//! `L = (τ/β) · 1/Σ|Y_i| · Σ_i Σ_{y in Y_i} [ −mean over p in P(i, y) of (z_i·z_p/τ − log Σ_{a≠i} exp(z_i·z_a/τ)) ]` where
//! `Y_i` are the labels of row i and `P(i, y)` the other rows that have label y: MulSupCon (Zhang and Wu, AAAI 2024) with
//! its uniform weights, on the rows of the batch. With one label each it is [`SupCon::loss`].

use super::rows::contrast;
use super::{SupCon, SupConLoss, attach};
use crate::{Error, Result};
use candle_core::Tensor;

impl SupCon {
    /// The loss of `projections` (R × D, not normalised) whose rows have these label sets, each without repeats.
    ///
    /// # Errors
    /// When there is not one set per row, no row has a label, or on a bad constant.
    pub fn multi_label_loss(&self, projections: &Tensor, sets: &[Vec<usize>]) -> Result<SupConLoss> {
        let (rows, _) = projections.dims2()?;
        self.check_constants()?;
        let pairs: usize = sets.iter().map(Vec::len).sum();
        if rows != sets.len() {
            let reason = format!("{} label sets do not fit {rows} rows", sets.len());
            return Err(Error::Setting { name: "labels".into(), reason });
        }
        let classes = sets.iter().flatten().max().map_or(0, |m| m + 1);
        let mut members = vec![Vec::new(); classes];
        sets.iter().enumerate().for_each(|(row, set)| set.iter().for_each(|&label| members[label].push(row)));
        // A batch in which no picture has a label has nothing to pull together: the loss is 0.
        let scale = self.temperature / self.base / pairs.max(1) as f64;
        let out = contrast(projections, self.temperature, scale, rows, |i, weights| {
            for &label in &sets[i] {
                let others = || members[label].iter().filter(|&&a| a != i);
                let each = 1.0 / others().count() as f64;
                others().for_each(|&a| weights[a] += each);
            }
        })?;
        Ok(SupConLoss { loss: attach(projections, out.value, out.gradient)?, per_anchor: out.per_anchor })
    }
}
