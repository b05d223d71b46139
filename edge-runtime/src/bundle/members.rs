//! What the members mean: heads, golden outputs and calibration pictures, with the shapes the manifest demands.

use super::{Data, Manifest, Tensor, Tensors};
use crate::accuracy::AccuracyModel;
use crate::fit::Labelled;
use crate::saliency::LinearHead;
use crate::shift::{self, Reference, ScoreModel};

/// The network, ONNX.
pub const MODEL: &str = "model.onnx";
/// Heads and shift reference.
pub const REFERENCE: &str = "reference.safetensors";
/// Inputs and the outputs they must give.
pub const GOLDEN: &str = "golden.safetensors";
/// Optional labelled pictures.
pub const CALIBRATION: &str = "calibration.safetensors";

/// Weight of the linear head in [`REFERENCE`], f32 `K × C`.
pub const HEAD_WEIGHT: &str = "classifier.weight";
/// Bias of the linear head in [`REFERENCE`], f32 `K`.
pub const HEAD_BIAS: &str = "classifier.bias";

/// The linear head among the reference tensors.
pub(super) fn linear_head(tensors: &Tensors, manifest: &Manifest) -> Result<LinearHead, String> {
    let (classes, channels) = (manifest.labels.len(), manifest.network.features[0]);
    let weight = values(tensors, HEAD_WEIGHT, &[classes, channels])?;
    let bias = values(tensors, HEAD_BIAS, &[classes])?;
    LinearHead::new(classes, channels, weight, bias).map_err(|e| e.to_string())
}

/// What the monitor needs among the reference tensors: score model, shift reference and, where there is one, the
/// accuracy estimate.
pub(super) fn shift(
    tensors: &Tensors,
    manifest: &Manifest,
) -> Result<(ScoreModel, Reference, Option<AccuracyModel>), String> {
    let wide = |(name, tensor): (&String, &Tensor)| match &tensor.data {
        Data::F64(values) => Some((name.clone(), (tensor.shape.clone(), values.clone()))),
        _ => None,
    };
    let tensors: shift::Tensors = tensors.iter().filter_map(wide).collect();
    let accuracy = AccuracyModel::from_tensors(&tensors).map_err(|e| e.to_string())?;
    let scores = ScoreModel::from_tensors(&tensors).map_err(|e| e.to_string())?;
    let reference = Reference::from_tensors(&tensors).map_err(|e| e.to_string())?;
    let expected = [manifest.labels.len(), manifest.network.features[0]];
    if tensors.get("scores.class_means").is_none_or(|(shape, _)| *shape != expected) {
        return Err(format!("tensor scores.class_means does not have shape {expected:?}"));
    }
    let declared = &manifest.shift;
    if declared.reference_frames != reference.frames() || declared.independent != reference.independent() {
        return Err("the shift reference is not the one the manifest describes".into());
    }
    Ok((scores, reference, accuracy))
}

/// All tensors of [`REFERENCE`].
pub(super) fn reference_tensors(
    head: &LinearHead,
    projection: Option<&ProjectionHead>,
    scores: &ScoreModel,
    reference: &Reference,
    accuracy: Option<&AccuracyModel>,
) -> Tensors {
    let mut tensors = projection.map(ProjectionHead::to_tensors).unwrap_or_default();
    tensors.insert(HEAD_WEIGHT.into(), Tensor::f32(&[head.classes, head.channels], head.weight.clone()));
    tensors.insert(HEAD_BIAS.into(), Tensor::f32(&[head.classes], head.bias.clone()));
    let accuracy = accuracy.map(AccuracyModel::to_tensors).unwrap_or_default();
    let shift = scores.to_tensors().into_iter().chain(reference.to_tensors()).chain(accuracy);
    tensors.extend(shift.map(|(name, (shape, values))| (name, Tensor::f64(&shape, values))));
    tensors
}

fn values(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
    let tensor = tensors.get(name).ok_or_else(|| format!("tensor {name} is missing"))?;
    tensor.finite_f32(shape).map(<[f32]>::to_vec).map_err(|e| format!("tensor {name} {e}"))
}

/// The projection head of contrastive training: linear layers with ReLU between, named `head.0`, `head.2`, ….
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectionHead {
    /// Each layer's weight (`out × in`, row-major) and bias (`out`), in order.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
}

impl ProjectionHead {
    /// The head among named tensors; none when `head.0.weight` is not there.
    ///
    /// # Errors
    /// A sentence fragment when a layer's shape does not follow from the one before, starting at `channels`.
    pub fn from_tensors(tensors: &Tensors, channels: usize) -> Result<Option<Self>, String> {
        let mut layers = Vec::new();
        let mut input = channels;
        while let Some(weight) = tensors.get(&format!("head.{}.weight", 2 * layers.len())) {
            let prefix = format!("head.{}", 2 * layers.len());
            let output = weight.shape.first().copied().unwrap_or(0);
            let weight = values(tensors, &format!("{prefix}.weight"), &[output, input])?;
            let bias = values(tensors, &format!("{prefix}.bias"), &[output])?;
            if output == 0 {
                return Err(format!("tensor {prefix}.weight is empty"));
            }
            layers.push((weight, bias));
            input = output;
        }
        Ok((!layers.is_empty()).then_some(Self { layers }))
    }

    /// The head as named tensors.
    pub fn to_tensors(&self) -> Tensors {
        let mut tensors = Tensors::new();
        for (position, (weight, bias)) in self.layers.iter().enumerate() {
            let shape = [bias.len(), weight.len() / bias.len()];
            tensors.insert(format!("head.{}.weight", 2 * position), Tensor::f32(&shape, weight.clone()));
            tensors.insert(format!("head.{}.bias", 2 * position), Tensor::f32(&shape[..1], bias.clone()));
        }
        tensors
    }

    /// The projected embedding, not normalised. `pooled` has the channels of the last feature map.
    pub fn project(&self, pooled: &[f32]) -> Vec<f32> {
        let mut values = pooled.to_vec();
        for (position, (weight, bias)) in self.layers.iter().enumerate() {
            if position > 0 {
                values.iter_mut().for_each(|v| *v = v.max(0.0));
            }
            let rows = weight.chunks_exact(values.len());
            values =
                rows.zip(bias).map(|(row, b)| b + row.iter().zip(&values).map(|(w, x)| w * x).sum::<f32>()).collect();
        }
        values
    }
}

/// A few inputs and the outputs they gave when the bundle was sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct Golden {
    /// Number of pictures, at least 1.
    pub count: usize,
    /// Normalised inputs, `count × 3 × H × W`.
    pub inputs: Vec<f32>,
    /// `count × classes`.
    pub logits: Vec<f32>,
    /// `count × C × h × w`.
    pub features: Vec<f32>,
}

impl Golden {
    /// As named tensors: `inputs`, `logits`, `features`.
    pub fn to_tensors(&self, manifest: &Manifest) -> Tensors {
        let n = self.count;
        let network = &manifest.network;
        let map = |[c, h, w]: [usize; 3]| [n, c, h, w];
        [
            ("inputs", Tensor::f32(&map(network.input), self.inputs.clone())),
            ("logits", Tensor::f32(&[n, manifest.labels.len()], self.logits.clone())),
            ("features", Tensor::f32(&map(network.features), self.features.clone())),
        ]
        .map(|(name, tensor)| (name.to_string(), tensor))
        .into()
    }

    pub(super) fn from_tensors(tensors: &Tensors, manifest: &Manifest) -> Result<Self, String> {
        let count = tensors.get("inputs").and_then(|t| t.shape.first().copied()).unwrap_or(0);
        if count == 0 {
            return Err("it holds no inputs".into());
        }
        let map = |[c, h, w]: [usize; 3]| [count, c, h, w];
        Ok(Self {
            count,
            inputs: values(tensors, "inputs", &map(manifest.network.input))?,
            logits: values(tensors, "logits", &[count, manifest.labels.len()])?,
            features: values(tensors, "features", &map(manifest.network.features))?,
        })
    }
}

/// Labelled pictures at network size, disjoint from training and test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationSet {
    /// Side of the square pictures, pixels.
    pub size: usize,
    /// `n × size × size × 3` bytes, interleaved.
    pub rgb: Vec<u8>,
    /// One class index per picture.
    pub labels: Vec<usize>,
    /// So many pictures at the start are the fit half, those behind it the rank half.
    pub fit: usize,
}

impl CalibrationSet {
    /// The half that constants are fitted on, and the disjoint one that prediction sets and shift reference rank against.
    pub fn halves(&self) -> (Labelled<'_>, Labelled<'_>) {
        let (fit, rank) = self.labels.split_at(self.fit);
        let (fit_rgb, rank_rgb) = self.rgb.split_at(self.fit * self.size * self.size * 3);
        let half = |rgb, labels| Labelled { size: self.size, rgb, labels };
        (half(fit_rgb, fit), half(rank_rgb, rank))
    }

    /// As named tensors: `pictures`, `labels`, `fit`.
    pub fn to_tensors(&self) -> Tensors {
        let n = self.labels.len();
        [
            ("pictures", Tensor::u8(&[n, self.size, self.size, 3], self.rgb.clone())),
            ("labels", Tensor::i64(&[n], self.labels.iter().map(|&l| l as i64).collect())),
            ("fit", Tensor::i64(&[1], vec![self.fit as i64])),
        ]
        .map(|(name, tensor)| (name.to_string(), tensor))
        .into()
    }

    pub(super) fn from_tensors(tensors: &Tensors, manifest: &Manifest) -> Result<Self, String> {
        let size = manifest.preprocess.size;
        let (Some(pictures), Some(labels)) = (tensors.get("pictures"), tensors.get("labels")) else {
            return Err("tensor pictures or labels is missing".into());
        };
        let (Data::U8(rgb), Data::I64(labels)) = (&pictures.data, &labels.data) else {
            return Err("pictures must be bytes and labels 64-bit integers".into());
        };
        if pictures.shape != [labels.len(), size, size, 3] || labels.is_empty() {
            return Err(format!("pictures have shape {:?} for {} labels", pictures.shape, labels.len()));
        }
        let class = |&l: &i64| usize::try_from(l).ok().filter(|&l| l < manifest.labels.len());
        let labels = labels.iter().map(class).collect::<Option<Vec<_>>>().ok_or("a label is out of range")?;
        let fit = match tensors.get("fit").map(|t| &t.data) {
            Some(Data::I64(count)) => count.first().and_then(|&n| usize::try_from(n).ok()),
            _ => None,
        };
        let fit =
            fit.filter(|&n| n <= labels.len()).ok_or("tensor fit does not say how many pictures are the fit half")?;
        Ok(Self { size, rgb: rgb.clone(), labels, fit })
    }
}
