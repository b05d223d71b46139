//! What a conversion starts from: a trained network with its labels, preprocessing and origin.

use crate::feeding::Feeding;
use crate::fold::Folded;
use crate::import::Imported;
use crate::weights::Weights;
use crate::{Error, Result};
use excon_edge::bundle::{ProjectionHead, Tensor, Tensors};
use excon_edge::image::Preprocess;
use excon_train::checkpoint::{self, Run};
use excon_train::dataset::{Dataset, OpenOptions};
use excon_train::network::Graph;
use std::path::{Path, PathBuf};

/// A trained network, ready to be converted.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it comes from; appears in errors.
    pub path: PathBuf,
    /// The network with its numbers.
    pub network: Folded,
    /// The projection head of contrastive training.
    pub projection: Option<ProjectionHead>,
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
    /// What a reader of the conversion's report should know about it.
    pub notes: Vec<String>,
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
        let unfinished = run.path.join(checkpoint::LAST).exists();
        let note =
            "the run is not finished: its best epoch so far is converted. `excon train --resume` goes on with it";
        let weights = Weights::from_arrays(&run.path.join("model.safetensors"), arrays)?;
        Ok(Self {
            path: run.path.clone(),
            network: Folded::new(&manifest.graph, &weights, manifest.preprocess.size)?,
            projection: projection(&manifest.graph, &weights)?,
            labels: manifest.labels.clone(),
            preprocess: manifest.preprocess.clone(),
            recipe: manifest.config.title(),
            data: manifest.data.clone(),
            data_digest: manifest.data_digest.clone(),
            seed: manifest.seed,
            notes: unfinished.then(|| note.to_string()).into_iter().collect(),
        })
    }

    /// Takes over a network of another program, to be converted with `data` (its pictures at the network's size, its
    /// classes in the order of the logits: see [`relabelled`]).
    ///
    /// # Errors
    /// When the network has another number of classes than the data set, or how it was fed is out of range.
    pub fn from_onnx(path: &Path, imported: Imported, data: &Dataset, feeding: &Feeding) -> Result<Self> {
        let Imported { network, size, input, mut notes, .. } = imported;
        if network.classes() != data.labels.len() {
            let (classes, labels) = (network.classes(), data.labels.len());
            let reason =
                format!("the network has {classes} classes and the data set {labels}; give the data it was trained on");
            return Err(Error::Pictures { data: data.name.clone(), reason });
        }
        let preprocess = feeding.preprocess(size, data, input)?;
        notes.push(
            "the network was trained elsewhere: whether it has seen the validation pictures is not known. Where it has, \
             temperature, prediction sets and alarm are too sure"
                .into(),
        );
        Ok(Self {
            path: path.to_path_buf(),
            network,
            projection: None,
            labels: data.labels.clone(),
            preprocess,
            recipe: "imported".into(),
            data: data.name.clone(),
            data_digest: data.digest.clone(),
            seed: OpenOptions::default().seed,
            notes,
        })
    }
}

/// The projection head of contrastive training, if the run has one.
fn projection(graph: &Graph, weights: &Weights) -> Result<Option<ProjectionHead>> {
    let head: Tensors = weights
        .iter()
        .filter(|(name, ..)| name.starts_with("head."))
        .map(|(name, shape, values)| (name.to_string(), Tensor::f32(shape, values.to_vec())))
        .collect();
    ProjectionHead::from_tensors(&head, graph.channels(graph.features))
        .map_err(|reason| Error::Weights { path: weights.path().into(), reason })
}

/// A data set with its classes in another order: that of a network's logits.
///
/// # Errors
/// When they are not the same classes.
pub fn relabelled(mut data: Dataset, labels: Vec<String>) -> Result<Dataset> {
    let place: Option<Vec<usize>> = data.labels.iter().map(|l| labels.iter().position(|m| m == l)).collect();
    let Some(place) = place.filter(|_| labels.len() == data.labels.len()) else {
        let reason = format!(
            "its classes ({}) are not the labels given ({}). Give one name a line, as the data set spells them, in the \
             order of the network's outputs",
            data.labels.join(", "),
            labels.join(", ")
        );
        return Err(Error::Pictures { data: data.name, reason });
    };
    for split in [&mut data.train, &mut data.validation, &mut data.test] {
        split.labels.iter_mut().for_each(|label| *label = place[*label]);
    }
    data.labels = labels;
    Ok(data)
}
