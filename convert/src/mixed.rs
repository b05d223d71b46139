//! Which layers stay float where int8 as a whole costs more than allowed.
//!
//! Layers are ranked by what the logits gain: the model is built with one convolution in float, or with two of which the
//! second alone reads the first (then the map between them is float too), and its squared error of the logits measured on
//! pictures that the ranges were not taken from, on the engine that will run. The best one goes back to float and the way to
//! quantize the rest is chosen anew; again, until the caller finds the budget held, or a few layers have not been enough.

use crate::Result;
use crate::compare::{BudgetLine, Comparison};
use crate::fold::{Folded, LayerId, LayerOp};
use crate::onnx::pb::ModelProto;
use crate::select::{Selection, Trial, Ways, logits, squared_error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Pictures that layers are ranked on.
const PICTURES: usize = 48;
/// Most layers that go back to float: with more of them little is left of int8.
const MOST: usize = 8;
/// Of a ranking so many are measured again for the next step, and all where none of them gains.
const AGAIN: usize = 8;

/// The mixed form of a network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixedReport {
    /// Layers in float, in the order in which they went back, with what each was worth.
    pub float_layers: Vec<KeptFloat>,
    /// Pictures they were ranked on.
    pub pictures: usize,
    /// The way the other layers are quantized.
    pub range: Trial,
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
    pub selection: Selection,
    pub float_layers: Vec<KeptFloat>,
    pub pictures: usize,
}

/// Moves layers to float until `holds` says that a model keeps the budget; `int8` is the best way with none.
pub(crate) fn search(
    ways: &Ways,
    int8: &Selection,
    mut holds: impl FnMut(&ModelProto) -> Result<bool>,
) -> Result<Found> {
    let network = ways.network();
    let (images, wanted) = ways.sample(PICTURES);
    let error_of = |model: &ModelProto| logits(model, images).map(|found| squared_error(wanted, &found));
    let (mut selection, mut float, mut float_layers) = (int8.clone(), BTreeSet::new(), vec![]);
    let mut error = error_of(&selection.model)?;
    let all = candidates(network);
    let (mut measured, mut whole) = (all.clone(), true);
    while float.len() < MOST {
        let mut ranking = vec![];
        for candidate in measured {
            let with: BTreeSet<LayerId> = float.iter().chain(&candidate).copied().collect();
            let added = with.len() - float.len();
            if added > 0 && with.len() <= MOST {
                let left = error_of(&ways.model(&selection.best, &with)?)?;
                ranking.push(((error - left) / added as f64, candidate));
            }
        }
        ranking.sort_by(|a, b| b.0.total_cmp(&a.0));
        let Some((_, best)) = ranking.first().filter(|(gain, _)| *gain > 0.0).cloned() else {
            if whole {
                break;
            }
            (measured, whole) = (all.clone(), true);
            continue;
        };
        let added: Vec<LayerId> = best.into_iter().filter(|&id| float.insert(id)).collect();
        // What was the least evil beside a layer that spoils everything need not be the best way without it.
        selection = ways.select(&float)?;
        let before = std::mem::replace(&mut error, error_of(&selection.model)?);
        float_layers.extend(added.into_iter().map(|id| {
            let layer = network.layers[id].name.clone();
            KeptFloat { layer, error_before: before, error_after: error }
        }));
        if holds(&selection.model)? {
            break;
        }
        measured = ranking.into_iter().skip(1).take(AGAIN).map(|(_, candidate)| candidate).collect();
        whole = false;
    }
    let pictures = images.len() / network.input_shape().iter().product::<usize>().max(1);
    Ok(Found { selection, float_layers, pictures })
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
