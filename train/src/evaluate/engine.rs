//! The trainer's network as an engine of the edge runtime and as an attacker's target, on the CPU or a graphics card.

use super::WhiteBox;
use crate::config;
use crate::network::{Network, NormMode};
use crate::{Error as TrainError, loss};
use candle_core::{Device, Tensor};
use excon_edge::engine::{Engine, Outputs, Shapes};
use excon_edge::{Error, Result};
use std::sync::Arc;

/// A trained network for pictures of `size × size` on a device. On a graphics card convolutions may round their inputs to
/// TF32; the head is not rounded.
///
/// # Errors
/// When the network cannot take that size, or this build or machine has not the device, saying what to do.
pub fn open(network: Network, size: usize, device: config::Device) -> crate::Result<Arc<dyn WhiteBox>> {
    match device {
        config::Device::Cpu => Ok(Arc::new(NetworkEngine::new(network, size)?)),
        #[cfg(feature = "cuda")]
        config::Device::Cuda => Ok(Arc::new(crate::cuda::CudaNetwork::open(network, size, config::Precision::Tf32)?)),
        #[cfg(not(feature = "cuda"))]
        config::Device::Cuda => Err(config::Device::not_built_in()),
    }
}

/// Runs a [`Network`] in eval mode behind the runtime's [`Engine`] trait: planar in, planar out.
pub struct NetworkEngine {
    network: Network,
    shapes: Shapes,
}

impl NetworkEngine {
    /// The engine of a network for pictures of `size × size`.
    ///
    /// # Errors
    /// When the network cannot take that size.
    pub fn new(network: Network, size: usize) -> crate::Result<Self> {
        let graph = network.graph();
        let channels = graph.channels(0);
        let probe = Tensor::zeros((1, size, size, channels), candle_core::DType::F32, &Device::Cpu)?;
        let (_, height, width, features) = network.infer(&probe, NormMode::Eval, &[graph.features])?[0].dims4()?;
        let shapes = Shapes {
            input: [channels, size, size],
            classes: graph.channels(graph.logits),
            features: [features, height, width],
        };
        Ok(Self { network, shapes })
    }

    fn outputs(&self, images: &[f32], n: usize) -> candle_core::Result<Outputs> {
        let [channels, height, width] = self.shapes.input;
        let graph = self.network.graph();
        let planar = Tensor::from_slice(images, (n, channels, height, width), &Device::Cpu)?;
        let x = planar.permute((0, 2, 3, 1))?.contiguous()?;
        let fetch = [graph.logits, graph.features];
        let out = self.network.infer(&x, NormMode::Eval, &fetch).map_err(candle_core::Error::wrap)?;
        Ok(Outputs {
            logits: out[0].flatten_all()?.to_vec1()?,
            features: out[1].permute((0, 3, 1, 2))?.contiguous()?.flatten_all()?.to_vec1()?,
        })
    }
}

impl Engine for NetworkEngine {
    fn name(&self) -> &str {
        "candle"
    }

    fn shapes(&self) -> Shapes {
        self.shapes
    }

    fn run(&self, images: &[f32]) -> Result<Outputs> {
        let fail = |reason: String| Error::Engine { engine: self.name().into(), reason };
        let each: usize = self.shapes.input.iter().product();
        if images.is_empty() || !images.len().is_multiple_of(each) {
            return Err(fail(format!("{} values are no whole number of pictures of {each}", images.len())));
        }
        self.outputs(images, images.len() / each).map_err(|e| fail(e.to_string()))
    }
}

impl WhiteBox for NetworkEngine {
    fn logits(&self, x: &Tensor) -> crate::Result<Tensor> {
        Ok(self.network.infer(x, NormMode::Eval, &[self.network.graph().logits])?.remove(0))
    }

    fn gradient(&self, x: &Tensor, labels: &[usize]) -> crate::Result<Tensor> {
        let graph = self.network.graph();
        let (input, out) = self.network.forward_from_leaf(x, NormMode::Eval, 0, &[graph.logits])?;
        let gradients = loss::cross_entropy(&out[0], labels)?.backward()?;
        let missing = || TrainError::Graph { node: graph.nodes[0].name.clone(), reason: "got no gradient".into() };
        let gradient = gradients.get(&input).ok_or_else(missing)?;
        // The loss is the mean.
        Ok((gradient * labels.len() as f64)?)
    }
}
