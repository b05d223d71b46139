//! The linear head refitted to convergence: multinomial logistic regression with L2 on frozen, clean-train features.
//!
//! The refitted head is kept only where it lowers the negative log-likelihood of the trained one on the fit half of
//! validation. No randomness.

use super::logistic::LogisticRegression;
use super::{Validation, standard, validate};
use crate::Result;
use crate::dataset::{Dataset, Split};
use crate::network::{Network, NormMode};
use crate::trainer::accelerator::{Accelerator, Wanted};
use candle_core::{DType, Device, Tensor};

/// Up to so many training pictures their mirror images take part too.
const MIRROR_LIMIT: usize = 20_000;
/// Pictures per forward pass.
const BATCH: usize = 128;

/// A refitted head and what it reaches on the fit half of validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fitted {
    /// Chosen L2 strength.
    pub l2: f64,
    /// Accuracy, 0..1.
    pub accuracy: f64,
    /// Mean negative log-likelihood, nats.
    pub nll: f64,
}

/// Refits the classifier of `network` on `data.train`; returns `None` and leaves the network as it was where the trained
/// head is at least as good on `fit`. An accelerator runs the network in the CPU's place.
///
/// # Errors
/// When a tensor operation fails.
pub(crate) fn refit_head(
    network: &mut Network,
    data: &Dataset,
    fit: &Split,
    accelerator: &mut Option<Box<dyn Accelerator>>,
) -> Result<Option<Fitted>> {
    let mut eye = Eye { data, accelerator };
    let classes = data.labels.len();
    let before = eye.validate(network, fit)?.nll;
    let (train, labels) = eye.train_features(network)?;
    let held_out = (eye.features(network, fit, false)?, &fit.labels[..]);
    let fitted = LogisticRegression::fit(&train, &labels, classes, (&held_out.0, held_out.1))?;
    if fitted.nll >= before {
        return Ok(None);
    }

    let old = network.state()?;
    let name = &network.graph().nodes[network.graph().logits].name;
    let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
    let LogisticRegression { weight, bias, l2, .. } = fitted;
    let mut state =
        old.iter().map(|(k, t)| Ok((k.clone(), t.copy()?))).collect::<Result<std::collections::BTreeMap<_, _>>>()?;
    let channels = weight.len() / classes;
    state.insert(weight_name, Tensor::from_vec(weight, (classes, channels), &Device::Cpu)?);
    state.insert(bias_name, Tensor::from_vec(bias, classes, &Device::Cpu)?);
    network.load(&state)?;
    let after = eye.validate(network, fit)?;
    Ok(Some(Fitted { l2, accuracy: after.accuracy, nll: after.nll }))
}

/// What looks at pictures through the network: the CPU, or an accelerator.
struct Eye<'a> {
    data: &'a Dataset,
    accelerator: &'a mut Option<Box<dyn Accelerator>>,
}

impl Eye<'_> {
    fn validate(&mut self, network: &Network, split: &Split) -> Result<Validation> {
        let Some(accelerator) = self.accelerator else { return validate(network, self.data, split) };
        accelerator.load(network)?;
        Ok(Validation::of(&accelerator.infer(split, false, Wanted::Logits)?, self.data, split))
    }

    /// Pooled features of train, mirror images after the pictures where there are few, and their labels.
    fn train_features(&mut self, network: &Network) -> Result<(Tensor, Vec<usize>)> {
        let train = &self.data.train;
        let plain = self.features(network, train, false)?;
        if train.len() > MIRROR_LIMIT {
            return Ok((plain, train.labels.clone()));
        }
        let both = Tensor::cat(&[plain, self.features(network, train, true)?], 0)?;
        Ok((both, [train.labels.clone(), train.labels.clone()].concat()))
    }

    /// Pooled features of a split in eval mode, n × C, f64.
    fn features(&mut self, network: &Network, split: &Split, mirror: bool) -> Result<Tensor> {
        if let Some(accelerator) = self.accelerator {
            accelerator.load(network)?;
            let rows: Vec<f64> = accelerator.infer(split, mirror, Wanted::Pooled)?.into_iter().map(f64::from).collect();
            let columns = rows.len() / split.len().max(1);
            return Ok(Tensor::from_vec(rows, (split.len(), columns), &Device::Cpu)?);
        }
        let mut parts = Vec::new();
        for indices in (0..split.len()).collect::<Vec<_>>().chunks(BATCH) {
            let mut images = standard(split, indices, self.data)?;
            if mirror {
                let reversed: Vec<u32> = (0..split.size as u32).rev().collect();
                images = images.index_select(&Tensor::new(reversed, &Device::Cpu)?, 2)?;
            }
            let pooled = network.infer(&images, NormMode::Eval, &[network.graph().pooled])?.remove(0);
            parts.push(pooled.detach().to_dtype(DType::F64)?);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }
}
