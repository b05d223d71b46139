//! Explanations on a batch while training: which pixels speak for a class, the masked picture they leave, and whether
//! the network still sees the class in it.
//!
//! Per picture the definitions are those of [`excon_edge::saliency`], so that a training mask is the mask a board would
//! make. No gradient flows through anything here. Two sources of maps: the exact class-activation map of the last
//! feature map (the board's own explanation), or Grad-CAM at an inner convolution as the released ExCon code takes it.

mod maps;

pub use maps::{class_activation_maps, grad_cam};

use crate::network::{Network, NormMode};
use crate::{Error, Result};
use candle_core::Tensor;
use excon_edge::saliency::{Map, keep_above, keep_top};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Which statistics the explainer's batch norms use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExplainerNorm {
    /// Batch statistics, and each of the three passes moves the running statistics: the released code.
    Train,
    /// Batch statistics, running statistics untouched.
    TrainNoUpdate,
    /// Running statistics: what a board does.
    Eval,
}

impl ExplainerNorm {
    pub(crate) fn mode(self) -> NormMode {
        match self {
            Self::Train => NormMode::Train,
            Self::TrainNoUpdate => NormMode::Batch,
            Self::Eval => NormMode::Eval,
        }
    }
}

/// Where the map is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CamLayer {
    /// Exact class-activation map of the last feature map.
    Last,
    /// Grad-CAM at the graph's `paper_cam` convolution.
    Paper,
}

/// Which pixels stay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskRule {
    /// Those whose min–max-normalised value is above this, in 0..1.
    Value(f32),
    /// This fraction of the pixels, the highest, in 0..1.
    Top(f64),
}

/// What replaces a removed pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// The data set's mean colour: 0 after normalisation.
    Mean,
    /// Black: `−mean/std` after normalisation.
    Black,
}

impl Fill {
    /// The value of a replaced pixel, where a black one is `black`.
    pub(crate) fn colour(self, black: [f32; 3]) -> [f32; 3] {
        if self == Self::Mean { [0.0; 3] } else { black }
    }
}

/// Which class is explained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The picture's label.
    Label,
    /// The network's prediction on the whole picture.
    Pred,
}

/// How pictures are explained and masked while training; every field is an ablation switch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainConfig {
    /// Statistics of batch norm in the explainer's passes.
    pub explainer_bn: ExplainerNorm,
    /// Whether negative evidence is cut off before normalisation; the released code leaves it in.
    pub cam_relu: bool,
    /// Source of the map.
    pub cam_layer: CamLayer,
    /// Which pixels stay.
    pub mask_rule: MaskRule,
    /// What the others become.
    pub fill: Fill,
    /// Which class is explained.
    pub explain_target: Target,
}

impl ExplainConfig {
    /// The board's own explanation: exact map, running statistics.
    pub fn device() -> Self {
        Self {
            explainer_bn: ExplainerNorm::Eval,
            cam_relu: false,
            cam_layer: CamLayer::Last,
            mask_rule: MaskRule::Value(0.5),
            fill: Fill::Mean,
            explain_target: Target::Label,
        }
    }

    /// The released code: Grad-CAM inside the network, train-mode batch norm that moves the running statistics.
    pub fn paper() -> Self {
        Self { explainer_bn: ExplainerNorm::Train, cam_layer: CamLayer::Paper, ..Self::device() }
    }
}

impl ExplainConfig {
    /// Checks the mask rule.
    ///
    /// # Errors
    /// When its limit or fraction is outside 0..1.
    pub fn check(&self) -> Result<()> {
        let inside = match self.mask_rule {
            MaskRule::Value(limit) => (0.0..1.0).contains(&limit),
            MaskRule::Top(fraction) => fraction > 0.0 && fraction <= 1.0,
        };
        let reason = || format!("{:?} is outside 0..1", self.mask_rule);
        if inside { Ok(()) } else { Err(Error::Setting { name: "explain.mask_rule".into(), reason: reason() }) }
    }
}

/// What the explainer says about a batch.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Signed map of the target class at the resolution of its layer, one per picture.
    pub maps: Vec<Map>,
    /// Upsampled to the picture and min–max normalised to 0..1.
    pub normalised: Vec<Map>,
    /// Pixels that stay, row-major, one mask per picture.
    pub keep: Vec<Vec<bool>>,
    /// N × H × W × 3, masked pictures Z.
    pub masked: Tensor,
    /// Predicted class on the whole picture S.
    pub predicted: Vec<usize>,
    /// Predicted class on Z.
    pub predicted_masked: Vec<usize>,
    /// Whether the network still gives Z its label.
    pub passes: Vec<bool>,
}

/// Signed maps of a batch, and what the network saw.
#[derive(Debug, Clone)]
pub struct Saliency {
    /// Signed map of the target class at the resolution of its layer, one per picture; positive only with `cam_relu`.
    pub maps: Vec<Map>,
    /// Predicted class of each picture.
    pub predicted: Vec<usize>,
}

/// The maps of a batch of pictures (N × H × W × 3, normalised).
///
/// # Errors
/// When the labels do not fit the batch or the classes, or a tensor operation fails.
pub fn saliency(network: &Network, config: &ExplainConfig, images: &Tensor, labels: &[usize]) -> Result<Saliency> {
    let n = images.dim(0)?;
    let graph = network.graph();
    let classes = graph.channels(graph.logits);
    if n != labels.len() || labels.iter().any(|&l| l >= classes) {
        let reason = format!("{} labels below {classes} are needed for {n} pictures", n);
        return Err(Error::Setting { name: "labels".into(), reason });
    }
    let norm = config.explainer_bn.mode();
    let (mut maps, predicted) = match config.cam_layer {
        CamLayer::Last => {
            let out = network.infer(images, norm, &[graph.features, graph.logits])?;
            let predicted = argmax(&out[1])?;
            let target = if config.explain_target == Target::Label { labels } else { &predicted[..] };
            (class_activation_maps(&out[0], &network_head(network)?, target)?, predicted)
        }
        CamLayer::Paper => grad_cam(network, images, norm, graph.paper_cam, |predicted| {
            if config.explain_target == Target::Label { labels.to_vec() } else { predicted.to_vec() }
        })?,
    };
    if config.cam_relu {
        maps.iter_mut().flat_map(|m| &mut m.values).for_each(|v| *v = v.max(0.0));
    }
    Ok(Saliency { maps, predicted })
}

/// Explains and masks a batch of clean pictures `standard` (N × H × W × 3, normalised) and tests the masked ones.
///
/// `black` is the value of a black pixel after normalisation, per channel.
///
/// # Errors
/// When the labels do not fit the batch or the classes, or a tensor operation fails.
pub fn explain(
    network: &Network,
    config: &ExplainConfig,
    standard: &Tensor,
    labels: &[usize],
    black: [f32; 3],
) -> Result<Explained> {
    let Saliency { maps, predicted } = saliency(network, config, standard, labels)?;
    let (_, height, width, _) = standard.dims4()?;
    let normalised: Vec<Map> = maps.par_iter().map(|m| m.upsample(width, height).normalised()).collect();
    let keep: Vec<Vec<bool>> = normalised.par_iter().map(|m| kept(m, config.mask_rule)).collect();
    let masked = occlude(standard, &keep, config.fill.colour(black))?;

    let norm = config.explainer_bn.mode();
    let logits = network.graph().logits;
    let predicted_masked = argmax(&network.infer(&masked, norm, &[logits])?[0])?;
    if config.explainer_bn == ExplainerNorm::Train {
        // The released code predicts on S once more. Only the running statistics notice.
        network.infer(standard, norm, &[logits])?;
    }
    let passes = predicted_masked.iter().zip(labels).map(|(p, l)| p == l).collect();
    Ok(Explained { maps, normalised, keep, masked, predicted, predicted_masked, passes })
}

/// The pixels of a normalised map that stay.
pub(crate) fn kept(map: &Map, rule: MaskRule) -> Vec<bool> {
    match rule {
        MaskRule::Value(limit) => keep_above(map, limit),
        MaskRule::Top(fraction) => keep_top(map, fraction),
    }
}

/// Replaces the pixels that do not stay; `images` is N × H × W × 3.
pub(crate) fn occlude(images: &Tensor, keep: &[Vec<bool>], fill: [f32; 3]) -> Result<Tensor> {
    let mut values = images.flatten_all()?.to_vec1::<f32>()?;
    let each = values.len() / keep.len().max(1);
    values.par_chunks_mut(each.max(1)).zip(keep).for_each(|(image, keep)| {
        for (pixel, _) in image.chunks_exact_mut(3).zip(keep).filter(|(_, k)| !**k) {
            pixel.copy_from_slice(&fill);
        }
    });
    Ok(Tensor::from_vec(values, images.shape(), images.device())?)
}

/// Index of the largest entry of each row, the first of equals.
pub(crate) fn argmax(logits: &Tensor) -> Result<Vec<usize>> {
    let (_, classes) = logits.dims2()?;
    let values = logits.flatten_all()?.to_vec1::<f32>()?;
    let first_largest = |row: &[f32]| (1..classes).fold(0, |best, k| if row[k] > row[best] { k } else { best });
    Ok(values.chunks_exact(classes).map(first_largest).collect())
}

/// The network's linear classifier as the runtime reads it.
///
/// # Errors
/// When the graph's classifier has no weight and bias.
pub fn network_head(network: &Network) -> Result<excon_edge::saliency::LinearHead> {
    let graph = network.graph();
    let name = &graph.nodes[graph.logits].name;
    let parameters = network.parameters();
    let find = |part: &str| {
        let wanted = format!("{name}.{part}");
        let found = parameters.iter().find(|(n, _)| *n == wanted);
        let missing = || Error::Graph { node: name.clone(), reason: format!("has no {part}") };
        Ok::<_, Error>(found.ok_or_else(missing)?.1.as_tensor().detach())
    };
    let (weight, bias) = (find("weight")?, find("bias")?);
    let (classes, channels) = weight.dims2()?;
    Ok(excon_edge::saliency::LinearHead {
        classes,
        channels,
        weight: weight.flatten_all()?.to_vec1()?,
        bias: bias.to_vec1()?,
    })
}

#[cfg(test)]
mod tests;
