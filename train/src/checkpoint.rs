//! Run folders: `run.json` (what the run is), `model.safetensors` (its weights), `last.safetensors` while it is
//! unfinished (to go on from, see [`Last`]), and `checkpoints/` with those of the last epochs where more than one is kept.
//!
//! Every file is written beside its place and renamed into it. `run.json` holds the digest of the weights it belongs
//! to, so a truncated, damaged or mixed-up folder is recognised before any weight is used.

mod last;

pub(crate) use last::same;
pub use last::{Last, NAME as LAST, Progress};

use crate::config::TrainConfig;
use crate::network::{Graph, Network, Op};
use crate::recipe::{Purpose, stream};
use crate::trainer::EpochRecord;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use excon_edge::file::{PARTIAL, replace};
use excon_edge::image::Preprocess;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Schema identifier of `run.json`.
pub const SCHEMA: &str = "excon.run/1";
/// Largest `run.json` that is read, bytes.
const MANIFEST_LIMIT: u64 = 16 << 20;
/// Largest weights file that is read, bytes.
const WEIGHTS_LIMIT: u64 = 4 << 30;
/// Folder of the last epochs' checkpoints in a run folder.
const OLDER: &str = "checkpoints";

/// Tensors by name.
pub type State = BTreeMap<String, Tensor>;

/// What a run is: the content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunManifest {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// All settings.
    pub config: TrainConfig,
    /// The network.
    pub graph: Graph,
    /// Class names, in the order of the logits.
    pub labels: Vec<String>,
    /// From picture to input.
    pub preprocess: Preprocess,
    /// Name of the data set.
    pub data: String,
    /// Digest of the data set.
    pub data_digest: String,
    /// Seed of the run.
    pub seed: u64,
    /// Whether training came to its end.
    pub finished: bool,
    /// Epoch the weights are from, from 1.
    pub epoch: usize,
    /// Accuracy on the fit half of validation, 0..1.
    pub validation_accuracy: f64,
    /// Mean negative log-likelihood on the fit half of validation, nats.
    pub validation_nll: f64,
    /// L2 strength of the refitted head; absent where the trained one was kept.
    pub refit_l2: Option<f64>,
    /// Seconds of training so far.
    pub seconds: f64,
    /// SHA-256 of `model.safetensors`, lower-case hex.
    pub weights_sha256: String,
    /// Version of the tool.
    pub tool: String,
}

impl RunManifest {
    /// Names the epoch whose weights the run keeps.
    pub(crate) fn keep(&mut self, record: &EpochRecord) {
        self.epoch = record.epoch;
        (self.validation_accuracy, self.validation_nll) = (record.validation_accuracy, record.validation_nll);
    }
}

/// A run that has been read and checked.
#[derive(Debug, Clone)]
pub struct Run {
    /// The folder.
    pub path: PathBuf,
    /// What it is.
    pub manifest: RunManifest,
    /// Weights and running statistics.
    pub state: State,
}

impl Run {
    /// Reads what a run is, without its weights.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] when `run.json` is missing, damaged or of another version.
    pub fn manifest(path: &Path) -> Result<RunManifest> {
        let file = path.join("run.json");
        let bytes = read_bounded(&file, MANIFEST_LIMIT)?;
        let manifest: RunManifest = serde_json::from_slice(&bytes).map_err(|e| refuse(&file, e.to_string()))?;
        if manifest.schema != SCHEMA {
            return Err(refuse(&file, format!("schema is {:?}, this version reads {SCHEMA:?}", manifest.schema)));
        }
        Ok(manifest)
    }

    /// Reads a run folder.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] naming the file that is missing, truncated, damaged or of another run.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.join("run.json");
        let manifest = Self::manifest(path)?;
        let roles = [manifest.graph.features, manifest.graph.pooled, manifest.graph.logits, manifest.graph.projection];
        let graph = rebuild(&manifest.graph).map_err(|e| refuse(&file, e.to_string()))?;
        if roles.into_iter().chain([graph.paper_cam]).any(|r| r >= graph.nodes.len()) {
            return Err(refuse(&file, "the graph names a node that does not exist".into()));
        }
        if graph.channels(graph.logits) != manifest.labels.len() {
            return Err(refuse(&file, "the number of labels is not the number of outputs".into()));
        }
        let weights = path.join("model.safetensors");
        let bytes = read_bounded(&weights, WEIGHTS_LIMIT)?;
        if hex(&Sha256::digest(&bytes)) != manifest.weights_sha256 {
            return Err(refuse(
                &weights,
                "it is not the file that run.json describes (damaged or half written)".into(),
            ));
        }
        let run = Self { path: path.into(), manifest, state: parse_weights(&weights, &bytes)? };
        run.network()?;
        Ok(run)
    }

    /// The network with the run's weights.
    ///
    /// # Errors
    /// When the weights do not fit the graph.
    pub fn network(&self) -> Result<Network> {
        let file = self.path.join("model.safetensors");
        let mut network = Network::new(self.manifest.graph.clone(), &mut stream(0, Purpose::Weights, 0, 0))?;
        network.load(&self.state).map_err(|e| refuse(&file, e.to_string()))?;
        Ok(network)
    }
}

/// Pushes the nodes of a graph that was read anew, so that its invariants hold.
fn rebuild(read: &Graph) -> Result<Graph> {
    let missing = || Error::Graph { node: "input".into(), reason: "the graph does not begin with its input".into() };
    let Some(Op::Input { channels }) = read.nodes.first().map(|n| n.op.clone()) else { return Err(missing()) };
    let mut graph = Graph::new(read.name.clone(), channels);
    for node in &read.nodes[1..] {
        graph.push(node.name.clone(), node.op.clone(), &node.inputs)?;
    }
    Ok(Graph { nodes: graph.nodes, ..read.clone() })
}

/// Writes a run folder.
#[derive(Debug)]
pub struct RunWriter {
    path: PathBuf,
}

impl RunWriter {
    /// Creates the folder if needed; files of an earlier run stay until they are replaced.
    ///
    /// # Errors
    /// When the folder cannot be created or written to.
    pub fn create(path: &Path) -> Result<Self> {
        let cannot = |source| Error::Edge(excon_edge::Error::Write { path: path.into(), source });
        std::fs::create_dir_all(path).map_err(cannot)?;
        tempfile::NamedTempFile::new_in(path).map_err(cannot)?;
        // What a process that was killed while it wrote has left.
        for entry in std::fs::read_dir(path).map_err(cannot)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                std::fs::remove_file(entry.path()).map_err(cannot)?;
            }
        }
        Ok(Self { path: path.into() })
    }

    /// Refuses a folder that holds a run: an unfinished one with at least one epoch, or a finished one.
    ///
    /// # Errors
    /// [`Error::Occupied`].
    pub fn require_vacant(path: &Path) -> Result<()> {
        let occupied = |what: String, remedy: &str| {
            Err(Error::Occupied { path: path.into(), what, remedy: format!("{remedy} to train anew over it") })
        };
        match Last::find(path) {
            Ok(Some(last)) if !last.progress.records.is_empty() => {
                let (done, of) = (last.progress.records.len(), last.progress.config.epochs);
                let what = format!("an unfinished run, {done} of {of} epochs");
                occupied(what, "--resume to go on with it, --overwrite")
            }
            Err(e) => occupied(format!("an unfinished run that cannot go on ({e})"), "--overwrite"),
            Ok(_) if path.join("run.json").exists() => occupied("a run".into(), "--overwrite"),
            Ok(_) => Ok(()),
        }
    }

    /// Saves what the training can go on from. Where the settings keep more than one checkpoint, `checkpoints/` holds
    /// those of the last epochs under their numbers; copied over `last.safetensors`, an older one is gone on from.
    ///
    /// # Errors
    /// When the file cannot be written; the old one stays.
    pub fn checkpoint(&self, last: &Last) -> Result<()> {
        let path = self.path.join(LAST);
        replace(&path, &last.bytes()?)?;
        let (epoch, keep) = (last.progress.records.len(), last.progress.config.keep);
        let folder = self.path.join(OLDER);
        if epoch == 0 && folder.exists() {
            // Those of an earlier run.
            return std::fs::remove_dir_all(&folder)
                .map_err(|source| Error::Edge(excon_edge::Error::Write { path: folder, source }));
        }
        if keep < 2 || epoch == 0 {
            return Ok(());
        }
        let name = |epoch: usize| folder.join(format!("epoch-{epoch:04}.safetensors"));
        let cannot = |source| Error::Edge(excon_edge::Error::Write { path: name(epoch), source });
        std::fs::create_dir_all(&folder).map_err(cannot)?;
        if name(epoch).exists() {
            std::fs::remove_file(name(epoch)).map_err(cannot)?;
        }
        // A second name for the same bytes: the next checkpoint takes over only the first one.
        std::fs::hard_link(&path, name(epoch))
            .or_else(|_| std::fs::copy(&path, name(epoch)).map(drop))
            .map_err(cannot)?;
        match epoch.checked_sub(keep).map(name) {
            Some(old) if old.exists() => std::fs::remove_file(old).map_err(cannot),
            _ => Ok(()),
        }
    }

    /// Removes what the training could go on from: the run is finished.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn finish(&self) -> Result<()> {
        let path = self.path.join(LAST);
        std::fs::remove_file(&path).map_err(|source| Error::Edge(excon_edge::Error::Write { path, source }))
    }

    /// Saves weights, then the manifest with their digest.
    ///
    /// # Errors
    /// When a file cannot be written; the old ones stay.
    pub fn save(&self, manifest: &mut RunManifest, state: &State) -> Result<()> {
        let bytes = weights_bytes(state, None)?;
        manifest.weights_sha256 = hex(&Sha256::digest(&bytes));
        let text = serde_json::to_string_pretty(manifest).map_err(|e| refuse(&self.path, e.to_string()))?;
        replace(&self.path.join("model.safetensors"), &bytes)?;
        Ok(replace(&self.path.join("run.json"), (text + "\n").as_bytes())?)
    }
}

/// Loads starting weights into a network: from a run folder or a `.safetensors` file. Tensors are matched by name;
/// classifier and projection head may be absent or of another shape, everything else must fit. Returns the names of
/// the tensors that kept their fresh values.
///
/// # Errors
/// [`Error::Checkpoint`] when the file cannot be used or an encoder tensor is missing or of another shape.
pub fn initialise(network: &mut Network, source: &Path) -> Result<Vec<String>> {
    let given = if source.is_dir() {
        Run::open(source)?.state
    } else {
        parse_weights(source, &read_bounded(source, WEIGHTS_LIMIT)?)?
    };
    let mut state = network.state()?;
    let encoder = encoder_nodes(network.graph());
    let mut fresh = Vec::new();
    for (name, tensor) in &mut state {
        let node = name.rsplit_once('.').map_or(name.as_str(), |(node, _)| node);
        match given.get(name) {
            Some(found) if found.shape() == tensor.shape() => *tensor = found.clone(),
            _ if !encoder.contains(&node) => fresh.push(name.clone()),
            Some(found) => {
                let reason = format!("{name} has shape {:?} instead of {:?}", found.dims(), tensor.dims());
                return Err(refuse(source, reason));
            }
            None => return Err(refuse(source, format!("{name} is missing"))),
        }
    }
    network.load(&state)?;
    Ok(fresh)
}

/// Names of the convolutions and norms.
fn encoder_nodes(graph: &Graph) -> Vec<&str> {
    let encodes = |op: &Op| matches!(op, Op::Conv { .. } | Op::Norm { .. });
    graph.nodes.iter().filter(|n| encodes(&n.op)).map(|n| n.name.as_str()).collect()
}

/// Names of the encoder nodes in the first `count` stages: the stem, then each group of nodes whose names share the
/// part before the first dot.
///
/// # Errors
/// When the network has fewer stages.
pub fn frozen_nodes(graph: &Graph, count: usize) -> Result<Vec<String>> {
    let nodes = encoder_nodes(graph);
    let stage = |name: &str| name.split(['.', '_']).next().unwrap_or_default().to_string();
    let mut stages: Vec<String> = nodes.iter().map(|n| stage(n)).collect();
    stages.dedup();
    if count > stages.len() {
        let reason = format!("{count} is more than the {} stages of {}", stages.len(), graph.name);
        return Err(Error::Setting { name: "freeze".into(), reason });
    }
    Ok(nodes.iter().filter(|n| stages[..count].contains(&stage(n))).map(|n| n.to_string()).collect())
}

fn parse_weights(path: &Path, bytes: &[u8]) -> Result<State> {
    let tensors =
        candle_core::safetensors::load_buffer(bytes, &Device::Cpu).map_err(|e| refuse(path, e.to_string()))?;
    let mut state = State::new();
    for (name, tensor) in tensors {
        let tensor = tensor.to_dtype(DType::F32)?;
        if !tensor.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite()) {
            return Err(refuse(path, format!("{name} holds values that are not finite")));
        }
        state.insert(name, tensor);
    }
    Ok(state)
}

fn weights_bytes(state: &State, metadata: Option<HashMap<String, String>>) -> Result<Vec<u8>> {
    let mut raw = BTreeMap::new();
    for (name, tensor) in state {
        let values = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        raw.insert(name.clone(), (tensor.dims().to_vec(), bytes));
    }
    let wrong = |e: safetensors::SafeTensorError| refuse(Path::new("model.safetensors"), e.to_string());
    let mut views = Vec::with_capacity(raw.len());
    for (name, (shape, bytes)) in &raw {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(wrong)?));
    }
    safetensors::serialize(views, metadata).map_err(wrong)
}

fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let size = std::fs::metadata(path).map_err(|e| refuse(path, e.to_string()))?.len();
    if size > limit {
        return Err(refuse(path, format!("{size} bytes are more than the {limit} this version reads")));
    }
    std::fs::read(path).map_err(|e| refuse(path, e.to_string()))
}

/// Adds to the end of a file, which is made if needed.
pub(crate) fn append(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = |source| Error::Edge(excon_edge::Error::Write { path: path.into(), source });
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(cannot)?;
    file.write_all(bytes).map_err(cannot)
}

fn refuse(path: &Path, reason: String) -> Error {
    Error::Checkpoint { path: path.into(), reason }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests;
