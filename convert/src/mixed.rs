//! Which layers stay float where int8 as a whole costs more than allowed.
//!
//! Layers are ranked by what the logits gain: the model is built with one convolution in float, or with two of which the
//! second alone reads the first (then the map between them is float too), and its squared error of the logits measured on
//! pictures that the ranges were not taken from, on the engine that will run. The best one goes back to float; again, until
//! the caller finds the budget held, or a few layers have not been enough.

use crate::compare::{BudgetLine, Comparison};
use crate::fold::{Folded, LayerId, LayerOp};
use crate::quantize::Codes;
use crate::select::{Selection, squared_error};
use crate::{Result, export, onnx};
use excon_edge::engine;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Pictures that layers are ranked on.
const PICTURES: usize = 48;
/// Most layers that go back to float: with more of them little is left of int8.
const MOST: usize = 8;
/// Of the first ranking so many are measured again for every further step.
const AGAIN: usize = 8;

/// The mixed form of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixedReport {
    /// Layers in float, in the order in which they went back, with what each was worth.
    pub float_layers: Vec<KeptFloat>,
    /// Pictures they were ranked on.
    pub pictures: usize,
    /// Float against mixed (under `int8`) on the rank half.
    pub comparison: Comparison,
    /// Budgets of the mixed form.
    pub budget: Vec<BudgetLine>,
}

/// A layer that stays float.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptFloat {
    /// The convolution's node.
    pub layer: String,
    /// Mean squared error of the logits before it went back to float.
    pub error_before: f64,
    /// The same after, and after the one that went with it.
    pub error_after: f64,
}

impl KeptFloat {
    /// In words, such as `layer1.0.conv2 (squared error of the logits 3.1 → 0.02)`.
    pub fn words(&self) -> String {
        format!("{} (squared error of the logits {:.2e} → {:.2e})", self.layer, self.error_before, self.error_after)
    }
}

/// What was found: the model with the last set of float layers that was tried.
pub(crate) struct Found {
    pub model: Vec<u8>,
    pub float_layers: Vec<KeptFloat>,
    pub pictures: usize,
}

/// Moves layers to float until `holds` says that a model keeps the budget. `images` are planar and normalised.
pub(crate) fn search(
    selection: &Selection,
    codes: Codes,
    labels: &[String],
    images: &[f32],
    mut holds: impl FnMut(&[u8]) -> Result<bool>,
) -> Result<Found> {
    let network = &selection.network;
    let one = network.input_shape().iter().product::<usize>().max(1);
    let pictures = (images.len() / one).min(PICTURES);
    let images = &images[..pictures * one];
    let logits = |model: &[u8]| -> Result<Vec<f32>> { Ok(engine::open(model, "model.onnx")?.run(images)?.logits) };
    let wanted = logits(&onnx::encode(&export::float(network, &[])))?;
    let build = |float: &BTreeSet<LayerId>| selection.mixed(codes, float, labels).map(|m| onnx::encode(&m));
    let mut float = BTreeSet::new();
    let mut model = build(&float)?;
    let mut error = squared_error(&wanted, &logits(&model)?);
    let (mut candidates, mut float_layers) = (candidates(network), vec![]);
    while float.len() < MOST {
        let mut ranking = vec![];
        for candidate in candidates {
            let with: BTreeSet<LayerId> = float.iter().chain(&candidate).copied().collect();
            let added = with.len() - float.len();
            if added > 0 && with.len() <= MOST {
                let left = squared_error(&wanted, &logits(&build(&with)?)?);
                ranking.push(((error - left) / added as f64, left, candidate));
            }
        }
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((_, left, best)) = ranking.first().filter(|(gain, ..)| *gain > 0.0).cloned() else { break };
        for id in best.into_iter().filter(|&id| float.insert(id)) {
            let layer = network.layers[id].name.clone();
            float_layers.push(KeptFloat { layer, error_before: error, error_after: left });
        }
        (error, model) = (left, build(&float)?);
        if holds(&model)? {
            break;
        }
        candidates = ranking.into_iter().skip(1).take(AGAIN).map(|(.., candidate)| candidate).collect();
    }
    Ok(Found { model, float_layers, pictures })
}

/// Every convolution, and every two with one map between them that nothing else reads.
fn candidates(network: &Folded) -> Vec<Vec<LayerId>> {
    let conv = |id: LayerId| matches!(network.layers[id].op, LayerOp::Conv { .. });
    let convolutions = (0..network.layers.len()).filter(|&id| conv(id));
    let pair = |id: LayerId| {
        let mut readers = (0..network.layers.len()).filter(|&r| network.layers[r].inputs.contains(&id));
        match (readers.next(), readers.next()) {
            (Some(reader), None) if conv(reader) => Some(vec![id, reader]),
            _ => None,
        }
    };
    convolutions.clone().map(|id| vec![id]).chain(convolutions.filter_map(pair)).collect()
}
