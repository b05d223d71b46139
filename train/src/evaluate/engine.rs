//! The trainer's network as an engine of the edge runtime.

use crate::network::{Network, NormMode};
use candle_core::{Device, Tensor};
use excon_edge::engine::{Engine, Outputs, Shapes};
use excon_edge::{Error, Result};

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

    /// The network inside.
    pub fn network(&self) -> &Network {
        &self.network
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
