//! Stochastic gradient descent with momentum: heavy ball or Nesterov, weight decay on every parameter.
//!
//! As PyTorch defines it: g ← gradient + decay · p; b ← momentum · b + g (the first step: b = g);
//! p ← p − lr · b, or with Nesterov p − lr · (g + momentum · b). Parameters change in place, in one pass.

use crate::{Error, Result};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor, Var, bail};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Numbers that one thread updates at a time.
const CHUNK: usize = 64 * 1024;

/// Settings of [`Sgd`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SgdConfig {
    /// Share of the old direction, 0 up to below 1.
    pub momentum: f64,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f64,
    /// Look ahead by one momentum step.
    pub nesterov: bool,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 1e-4, nesterov: false }
    }
}

/// The optimizer with its momentum buffers.
pub struct Sgd {
    parameters: Vec<(String, Var)>,
    config: SgdConfig,
    /// One per parameter, empty before its first step.
    buffers: Vec<Vec<f32>>,
}

impl Sgd {
    /// An optimizer of these parameters, without momentum yet.
    ///
    /// # Errors
    /// When a setting is out of range.
    pub fn new(parameters: Vec<(String, Var)>, config: SgdConfig) -> Result<Self> {
        let fail = |name: &str, reason: &str| Err(Error::Setting { name: name.into(), reason: reason.into() });
        if !(0.0..1.0).contains(&config.momentum) {
            return fail("momentum", "must be at least 0 and below 1");
        }
        if !(config.weight_decay >= 0.0 && config.weight_decay.is_finite()) {
            return fail("weight_decay", "must be a finite number, at least 0");
        }
        if config.nesterov && config.momentum == 0.0 {
            return fail("nesterov", "needs a momentum above 0");
        }
        let buffers = vec![vec![]; parameters.len()];
        Ok(Self { parameters, config, buffers })
    }

    /// Names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    /// Moves every parameter that has a gradient.
    ///
    /// # Errors
    /// When a gradient is not a `f32` tensor of the parameter's shape.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        for ((_, parameter), buffer) in self.parameters.iter().zip(&mut self.buffers) {
            if let Some(gradient) = gradients.get(parameter) {
                let update = Update { config: self.config, rate: learning_rate as f32, buffer: Mutex::new(buffer) };
                parameter.inplace_op2(&gradient.contiguous()?, &update)?;
            }
        }
        Ok(())
    }

    /// The momentum buffers as tensors, named `momentum.PARAMETER`; parameters without a step yet are left out.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for ((name, parameter), buffer) in self.parameters.iter().zip(&self.buffers) {
            if !buffer.is_empty() {
                let tensor = Tensor::from_slice(buffer, parameter.shape(), &Device::Cpu)?;
                state.insert(format!("momentum.{name}"), tensor);
            }
        }
        Ok(state)
    }

    /// Takes over buffers made by [`Self::state`]; parameters that are not named start without momentum. On an error
    /// nothing has changed.
    ///
    /// # Errors
    /// When a name is unknown or a shape or type differs.
    pub fn load(&mut self, state: &BTreeMap<String, Tensor>) -> Result<()> {
        let mut buffers = vec![vec![]; self.parameters.len()];
        for (name, tensor) in state {
            let fail = |reason: String| Err(Error::Graph { node: name.clone(), reason });
            let position = self.parameters.iter().position(|(p, _)| name.strip_prefix("momentum.") == Some(p));
            let Some(position) = position else { return fail("belongs to no parameter of the optimizer".into()) };
            let parameter = &self.parameters[position].1;
            if tensor.dims() != parameter.dims() || tensor.dtype() != DType::F32 {
                let (got, dtype) = (tensor.dims(), tensor.dtype());
                return fail(format!("is {got:?} of {dtype:?}; needed is {:?} of F32", parameter.dims()));
            }
            buffers[position] = tensor.flatten_all()?.to_vec1()?;
        }
        self.buffers = buffers;
        Ok(())
    }
}

/// One parameter's step.
struct Update<'a> {
    config: SgdConfig,
    rate: f32,
    buffer: Mutex<&'a mut Vec<f32>>,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn cpu_fwd(&self, p: &mut CpuStorage, lp: &Layout, g: &CpuStorage, lg: &Layout) -> candle_core::Result<()> {
        let (Some(at), Some((from, to))) = (lp.contiguous_offsets(), lg.contiguous_offsets()) else {
            bail!("parameters and gradients must be contiguous");
        };
        let CpuStorage::F32(p) = p else { bail!("parameters must be f32") };
        let (p, g) = (&mut p[at.0..at.1], &g.as_slice::<f32>()?[from..to]);
        if p.len() != g.len() {
            bail!("a gradient of {} numbers for a parameter of {}", g.len(), p.len());
        }
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.resize(p.len(), 0.0);
        let (momentum, decay) = (self.config.momentum as f32, self.config.weight_decay as f32);
        // From zero the recursion gives b = g, which is what the first step wants.
        let chunks = p.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK)).zip(buffer.par_chunks_mut(CHUNK));
        chunks.for_each(|((p, g), b)| {
            for ((p, g), b) in p.iter_mut().zip(g).zip(b) {
                let g = g + decay * *p;
                *b = momentum * *b + g;
                let direction = if self.config.nesterov { g + momentum * *b } else { *b };
                *p -= self.rate * direction;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parameters() -> Vec<(String, Var)> {
        let var = |values: &[f32]| Var::new(values, &Device::Cpu).unwrap();
        vec![("a".into(), var(&[1.0, -2.0])), ("b".into(), var(&[3.0]))]
    }

    /// One step on the loss Σ a².
    fn step(optimizer: &mut Sgd, a: &Var) {
        let loss = a.sqr().unwrap().sum_all().unwrap();
        optimizer.step(&loss.backward().unwrap(), 0.1).unwrap();
    }

    #[test]
    fn saved_momentum_continues_the_same_run() {
        let config = SgdConfig { momentum: 0.5, weight_decay: 0.0, nesterov: false };
        let vars = parameters();
        let mut optimizer = Sgd::new(vars.clone(), config).unwrap();
        step(&mut optimizer, &vars[0].1);
        // g = (2, −4), so a = (0.8, −1.6); b has no gradient and no momentum.
        assert_eq!(vars[0].1.to_vec1::<f32>().unwrap(), [0.8, -1.6]);
        assert_eq!(vars[1].1.to_vec1::<f32>().unwrap(), [3.0]);
        let state = optimizer.state().unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["momentum.a"]);
        let copy = vec![("a".into(), Var::from_tensor(&vars[0].1.copy().unwrap()).unwrap())];
        let mut resumed = Sgd::new(copy.clone(), config).unwrap();
        resumed.load(&state).unwrap();
        step(&mut optimizer, &vars[0].1);
        step(&mut resumed, &copy[0].1);
        // b = 0.5 · 2 + 1.6 = 2.6.
        let a: Vec<f32> = vars[0].1.to_vec1().unwrap();
        assert!((a[0] - 0.54).abs() < 1e-6, "{a:?}");
        assert_eq!(copy[0].1.to_vec1::<f32>().unwrap(), a);
    }

    #[test]
    fn settings_and_states_that_make_no_sense_are_refused() {
        let new = |momentum, weight_decay, nesterov| {
            Sgd::new(parameters(), SgdConfig { momentum, weight_decay, nesterov }).map(drop).map_err(|e| e.to_string())
        };
        assert!(new(1.0, 0.0, false).unwrap_err().contains("momentum"));
        assert!(new(f64::NAN, 0.0, false).unwrap_err().contains("momentum"));
        assert!(new(0.9, -1.0, false).unwrap_err().contains("weight_decay"));
        assert!(new(0.0, 0.0, true).unwrap_err().contains("nesterov"));
        let mut optimizer = Sgd::new(parameters(), SgdConfig::default()).unwrap();
        for (name, len) in [("momentum.c", 2), ("momentum.a", 3), ("a", 2)] {
            let tensor = Tensor::zeros(len, DType::F32, &Device::Cpu).unwrap();
            let error = optimizer.load(&BTreeMap::from([(name.into(), tensor)])).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        assert!(optimizer.state().unwrap().is_empty());
    }
}
