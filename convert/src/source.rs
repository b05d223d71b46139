//! What a conversion starts from: a trained network with its labels, preprocessing and origin.

use crate::weights::Weights;
use crate::{Error, Result};
use excon_edge::bundle::{ProjectionHead, Tensor, Tensors};
use excon_edge::image::Preprocess;
use excon_train::network::Graph;
use std::path::PathBuf;

/// A trained network, ready to be converted.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it comes from; appears in errors.
    pub path: PathBuf,
    /// The network.
    pub graph: Graph,
    /// Its numbers.
    pub weights: Weights,
    /// Class names in the order of the logits.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Recipe in words, such as `excon (device, joint)`.
    pub recipe: String,
    /// Name of the data set it was trained on.
    pub data: String,
    /// Digest of that data set.
    pub data_digest: String,
    /// Training seed, which also splits validation into halves.
    pub seed: u64,
}

impl Source {
    /// The projection head of contrastive training, if the run has one.
    ///
    /// # Errors
    /// When its tensors do not fit each other.
    pub fn projection(&self) -> Result<Option<ProjectionHead>> {
        let head: Tensors = self
            .weights
            .iter()
            .filter(|(name, ..)| name.starts_with("head."))
            .map(|(name, shape, values)| (name.to_string(), Tensor::f32(shape, values.to_vec())))
            .collect();
        let channels = self.graph.channels(self.graph.features);
        ProjectionHead::from_tensors(&head, channels)
            .map_err(|reason| Error::Weights { path: self.weights.path().into(), reason })
    }
}
