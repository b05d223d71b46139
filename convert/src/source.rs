//! What a conversion starts from: a trained network with its labels, preprocessing and origin.

use crate::weights::Weights;
use crate::{Error, Result};
use excon_edge::bundle::{ProjectionHead, Tensor, Tensors};
use excon_edge::image::Preprocess;
use excon_train::checkpoint::Run;
use excon_train::network::Graph;
use std::path::{Path, PathBuf};

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
    /// Reads a run folder.
    ///
    /// # Errors
    /// When it is missing, damaged or half written.
    pub fn open(run: &Path) -> Result<Self> {
        Self::from_run(&Run::open(run)?)
    }

    /// Takes over a run that is read already.
    ///
    /// # Errors
    /// When a weight is not finite.
    pub fn from_run(run: &Run) -> Result<Self> {
        let mut arrays = Vec::with_capacity(run.state.len());
        for (name, tensor) in &run.state {
            let values = tensor.flatten_all().and_then(|t| t.to_vec1::<f32>()).map_err(excon_train::Error::from)?;
            arrays.push((name.clone(), tensor.dims().to_vec(), values));
        }
        let manifest = &run.manifest;
        Ok(Self {
            path: run.path.clone(),
            graph: manifest.graph.clone(),
            weights: Weights::from_arrays(&run.path.join("model.safetensors"), arrays)?,
            labels: manifest.labels.clone(),
            preprocess: manifest.preprocess.clone(),
            recipe: manifest.config.title(),
            data: manifest.data.clone(),
            data_digest: manifest.data_digest.clone(),
            seed: manifest.seed,
        })
    }

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
