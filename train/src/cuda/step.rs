//! One training step of each method on the device, from rendered views to moved parameters; nothing waits for the host.
//!
//! Twins of `recipe` and `explain`. The masked pictures that fail are not counted on the host, as that would mean waiting:
//! ExConB's batch always holds one row for each masked picture, weighted 2 where it is background (it stands for the two
//! equal copies of the CPU's batch) and 0 where it is not. Batch statistics, loss and gradients heed the weights, so the
//! result is the same.

use super::kernels::{Map, Matrix, Sgd, Weights};
use super::memory::Block;
use super::walk::{Pass, Walker, Wanted};
use crate::config::{RecipeName, TrainConfig};
use crate::explain::{CamLayer, ExplainConfig, Fill, MaskRule, Target};
use crate::loss::{Background, SupCon};
use crate::network::{NodeId, NormMode};
use crate::{Error, Result};
use std::ops::Range;

/// What a method does in a step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    /// Cross entropy on one view.
    CrossEntropy,
    /// The contrastive loss on two views.
    Contrast {
        loss: SupCon,
        /// Weight of the classifier's cross entropy on both views, where it is joint.
        joint: Option<f32>,
        /// Whether and how view 1 is explained.
        explain: Option<Explain>,
    },
}

/// What ExCon adds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Explain {
    pub settings: ExplainConfig,
    pub background: Background,
    /// First epoch (from 1) with explanations.
    pub from_epoch: usize,
    /// Control: view 1 is the clean picture, nothing is explained.
    pub unmasked: bool,
    /// Whether masked views are mirrored with probability 0.5.
    pub flip: bool,
    /// What replaces a removed pixel.
    pub fill: [f32; 3],
}

impl Method {
    /// The method of a configuration. `black` is a black pixel after normalisation.
    ///
    /// # Errors
    /// When it does not run on the graphics card.
    pub fn of(config: &TrainConfig, black: [f32; 3]) -> Result<Self> {
        let refuse = |name: &str, what: &str| {
            let reason = format!("{what} does not run on the graphics card yet; train with --device cpu");
            Err(Error::Setting { name: name.into(), reason })
        };
        let (explains, unmasked) = match config.recipe {
            RecipeName::CrossEntropy => return Ok(Self::CrossEntropy),
            RecipeName::Supcon | RecipeName::SupconTwoStage => (false, false),
            RecipeName::Excon | RecipeName::ExconB => (true, config.view1_unmasked),
            RecipeName::Control => (true, true),
            other => return refuse("recipe", other.as_str()),
        };
        config.explain.check()?;
        if explains && !unmasked && config.explain.cam_layer == CamLayer::Paper {
            return refuse("explain.cam_layer", "Grad-CAM inside the network (`paper`)");
        }
        let explain = Explain {
            settings: config.explain,
            background: config.background,
            from_epoch: config.exp_epochs,
            unmasked,
            flip: config.flip_on_masked,
            fill: if config.explain.fill == Fill::Mean { [0.0; 3] } else { black },
        };
        Ok(Self::Contrast {
            loss: config.contrast,
            joint: config.joint.then_some(config.cross_entropy_weight as f32),
            explain: explains.then_some(explain),
        })
    }

    /// What is explained in this epoch.
    pub fn explains(&self, epoch: usize) -> Option<Explain> {
        match self {
            Self::Contrast { explain: Some(explain), .. } if epoch >= explain.from_epoch => Some(*explain),
            _ => None,
        }
    }

    /// Rows of the batch that a step on `pictures` pictures learns from.
    pub fn rows(&self, pictures: usize, epoch: usize) -> usize {
        match self {
            Self::CrossEntropy => pictures,
            Self::Contrast { .. } => match self.explains(epoch) {
                Some(e) if e.background != Background::Off && !e.unmasked => 3 * pictures,
                _ => 2 * pictures,
            },
        }
    }

    /// Nodes whose outputs the loss is made of.
    pub fn outputs(&self, walker: &Walker) -> Vec<NodeId> {
        let graph = &walker.graph;
        match self {
            Self::CrossEntropy => vec![graph.logits],
            Self::Contrast { joint, .. } => [graph.projection].into_iter().chain(joint.map(|_| graph.logits)).collect(),
        }
    }
}

/// What a step learns from.
pub(super) struct Batch {
    /// [`Method::rows`] views: view 1 (or its backup) of each picture, view 2 of each, then room for masked ones.
    pub views: Map,
    /// The clean pictures, where they are explained.
    pub standard: Option<Map>,
    /// Class of each picture, `i32`.
    pub labels: Block,
    /// Pictures.
    pub count: usize,
    /// Which masked views are mirrored, a byte per picture.
    pub mirror: Option<Block>,
    /// From 1.
    pub epoch: usize,
}

impl Method {
    /// Makes a step and returns its four sums, see `totals` in `loss.cu`.
    ///
    /// # Errors
    /// When the device refuses.
    pub fn step(&self, walker: &Walker, batch: &Batch, learns: &[Range<usize>], sgd: Sgd) -> Result<Block> {
        let totals = self.gradients(walker, batch)?;
        walker.parameters.step(learns, sgd)?;
        Ok(totals)
    }

    /// A step without its last part: the gradients lie in the parameters' buffers.
    pub fn gradients(&self, walker: &Walker, batch: &Batch) -> Result<Block> {
        let (graph, machine) = (&walker.graph, &walker.machine);
        let outputs = self.outputs(walker);
        let forward = |weights: Option<&Weights>| {
            walker.forward(&batch.views, &Wanted { mode: NormMode::Train, fetch: &outputs, weights, backward: true })
        };
        let Self::Contrast { loss, joint, .. } = *self else {
            let pass = forward(None)?;
            let logits = pass.matrix(graph, graph.logits)?;
            let (gradient, losses, hits) =
                machine.cross_entropy(logits, &batch.labels, batch.count, batch.count, 1.0)?;
            walker.backward(pass, vec![(graph.logits, gradient)])?;
            return machine.totals(None, Some((&losses, &hits, batch.count)), None, &batch.labels, batch.count);
        };
        let real = 2 * batch.count;
        let (mut predicted, mut weights, mut own_class) = (None, None, false);
        if let (Some(explain), Some(standard)) = (self.explains(batch.epoch).filter(|e| !e.unmasked), &batch.standard) {
            let seen = explain.masks(walker, batch, standard)?;
            if explain.background != Background::Off {
                weights = Some(machine.row_weights(&seen, &batch.labels, real, batch.views.rows)?);
                own_class = explain.background == Background::Class;
            }
            predicted = Some(seen);
        }
        let pass = forward(weights.as_ref())?;
        let (gradient, terms) = contrast(walker, &pass, &loss, batch, weights.as_ref(), own_class)?;
        let mut gradients = vec![(graph.projection, gradient)];
        let mut entropy = None;
        if let Some(weight) = joint {
            let logits = pass.matrix(graph, graph.logits)?;
            let (gradient, losses, hits) = machine.cross_entropy(logits, &batch.labels, batch.count, real, weight)?;
            gradients.push((graph.logits, gradient));
            entropy = Some((losses, hits));
        }
        walker.backward(pass, gradients)?;
        let entropy = entropy.as_ref().map(|(losses, hits)| (losses, hits, real));
        machine.totals(Some((&terms, batch.views.rows)), entropy, predicted.as_ref(), &batch.labels, batch.count)
    }
}

/// The gradient of the projections and the loss' terms.
fn contrast(
    walker: &Walker,
    pass: &Pass,
    loss: &SupCon,
    batch: &Batch,
    weights: Option<&Weights>,
    own_class: bool,
) -> Result<(Matrix, Block)> {
    let machine = &walker.machine;
    let projections = pass.matrix(&walker.graph, walker.graph.projection)?;
    let Matrix { rows, columns, .. } = *projections;
    let (temperature, base) = (loss.temperature as f32, loss.base as f32);
    let (z, norms) = machine.normalise_rows(projections)?;
    let similarity = machine.matrix(rows, rows)?;
    let (z_at, s_at) = (z.at(), similarity.at());
    machine.product([rows, rows, columns], [false, true], (z_at, z_at, s_at), (1.0 / temperature, false, true))?;
    let counts = (batch.count, 2 * batch.count);
    let terms = machine.supcon(&similarity, &batch.labels, counts, weights, own_class, (temperature, base))?;
    // s = z z', so both sides of z get their share.
    let gradient = machine.matrix(rows, columns)?;
    let product = [rows, columns, rows];
    machine.product(product, [false, false], (s_at, z_at, gradient.at()), (1.0, false, true))?;
    machine.product(product, [true, false], (s_at, z_at, gradient.at()), (1.0, true, true))?;
    machine.normalise_rows_gradient(&gradient, &z, &norms)?;
    Ok((gradient, terms))
}

impl Explain {
    /// Explains and masks the clean pictures, puts the masked ones that pass into view 1 and, with a background, all of
    /// them behind the views; returns the classes that the masked ones are taken for.
    fn masks(&self, walker: &Walker, batch: &Batch, standard: &Map) -> Result<Block> {
        let (graph, machine) = (&walker.graph, &walker.machine);
        let settings = &self.settings;
        let mode = settings.explainer_bn.mode();
        let look =
            |x: &Map, fetch: &[NodeId]| walker.forward(x, &Wanted { mode, fetch, weights: None, backward: false });
        let pass = look(standard, &[graph.features, graph.logits])?;
        let predicted = match settings.explain_target {
            Target::Label => None,
            Target::Pred => Some(machine.predict(pass.matrix(graph, graph.logits)?)?),
        };
        let features = pass.map(graph, graph.features)?;
        let (weight, _) = walker.parameters.linear(graph.logits);
        let target = predicted.as_ref().unwrap_or(&batch.labels);
        let maps = machine.activation_map(features, weight, target, settings.cam_relu)?;
        let resolution = (features.height, features.width);
        drop(pass);
        let maps = machine.normalise_maps(&maps, standard.rows, resolution, standard.width)?;

        let masked = machine.like(standard)?;
        let mut places = vec![masked.at()];
        if self.background != Background::Off {
            places.push(machine.row(&batch.views, 2 * batch.count));
        }
        for place in places {
            match settings.mask_rule {
                MaskRule::Value(limit) => machine.mask_above(&maps, standard, limit, self.fill, place)?,
                MaskRule::Top(fraction) => {
                    let count = (fraction * standard.area() as f64) as usize;
                    machine.mask_top(&maps, standard, count, self.fill, place)?;
                }
            }
        }
        let seen = machine.predict(look(&masked, &[graph.logits])?.matrix(graph, graph.logits)?)?;
        if mode == NormMode::Train {
            // The released code predicts on the clean pictures once more. Only the running statistics notice.
            look(standard, &[graph.logits])?;
        }
        machine.choose_view(&masked, &seen, &batch.labels, batch.mirror.as_ref(), &batch.views)?;
        Ok(seen)
    }
}
