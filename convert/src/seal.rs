//! The bundle: model, heads, score model, reference and golden outputs, under one manifest. What comes out has been
//! opened again and has passed its own self-test.

use crate::source::Source;
use crate::{Error, Result, export};
use excon_edge::bundle::{
    BudgetItem, Bundle, CalibrationSet, Golden, MODEL, Manifest, NetworkShapes, Precision, Provenance, SCHEMA, Writer,
};
use excon_edge::fit::Fitted;
use excon_edge::predictor::Predictor;
use excon_train::dataset::Split;
use std::collections::BTreeMap;
use std::path::Path;

/// Golden pictures in a bundle, where there are as many.
pub const GOLDEN_PICTURES: usize = 4;

/// What a seal says beyond the numbers.
#[derive(Debug, Clone)]
pub struct About<'a> {
    /// Model name.
    pub name: &'a str,
    /// Version counter.
    pub version: u64,
    /// Target, such as `cpu`.
    pub target: &'a str,
    /// Numeric form of the model.
    pub precision: Precision,
    /// Budgets and outcome.
    pub budget: Vec<BudgetItem>,
}

/// Seals `model` (an ONNX file) with what was fitted, at `path`. Golden pictures are spread over `validation`; with
/// `calibration` its halves, to fit and to rank, travel along for a re-fit on another engine.
///
/// # Errors
/// When the path cannot be written (what stood there stays), or the bundle would not pass its own checks.
pub fn seal(
    path: &Path,
    source: &Source,
    about: &About,
    model: Vec<u8>,
    fitted: &Fitted,
    validation: &Split,
    calibration: Option<(&Split, &Split)>,
) -> Result<Bundle> {
    let parts = fitted.predictor.parts();
    let shapes = parts.engine.shapes();
    let manifest = Manifest {
        schema: SCHEMA.into(),
        name: about.name.into(),
        version: about.version,
        target: about.target.into(),
        precision: about.precision,
        labels: source.labels.clone(),
        preprocess: source.preprocess.clone(),
        network: NetworkShapes {
            input: shapes.input,
            features: shapes.features,
            input_name: export::INPUT.into(),
            logits_name: export::LOGITS.into(),
            features_name: export::FEATURES.into(),
        },
        calibration: fitted.calibration.clone(),
        shift: fitted.shift.clone(),
        budget: about.budget.clone(),
        provenance: Provenance {
            recipe: source.recipe.clone(),
            network: source.network.name.clone(),
            data: format!("{} {}", source.data, source.data_digest),
            seed: source.seed,
            tool: format!("excon {}", env!("CARGO_PKG_VERSION")),
        },
        files: BTreeMap::new(),
    };
    let mut writer = Writer::new(manifest);
    writer.member(MODEL, model);
    writer.reference(
        &parts.head,
        parts.projection.as_ref(),
        &fitted.scores,
        &fitted.reference,
        fitted.accuracy.as_ref(),
    )?;
    writer.golden(&golden(&fitted.predictor, validation)?)?;
    if let Some((fit, rank)) = calibration {
        let rgb = [&fit.rgb[..], &rank.rgb].concat();
        let labels = [&fit.labels[..], &rank.labels].concat();
        writer.calibration(&CalibrationSet { size: fit.size, rgb, labels, fit: fit.len() })?;
    }
    let bundle = writer.seal(path)?;
    Predictor::from_bundle(&bundle)?;
    Ok(bundle)
}

/// A few pictures, evenly spread, and what the engine says about them.
fn golden(predictor: &Predictor, validation: &Split) -> Result<Golden> {
    let count = GOLDEN_PICTURES.min(validation.len());
    if count == 0 {
        return Err(Error::Pictures { data: "validation".into(), reason: "it holds no pictures".into() });
    }
    let mut inputs = Vec::new();
    for i in 0..count {
        let picture = predictor.resize(&validation.to_picture(i * validation.len() / count));
        predictor.parts().preprocess.normalise(&picture, &mut inputs);
    }
    let outputs = predictor.engine().run(&inputs)?;
    Ok(Golden { count, inputs, logits: outputs.logits, features: outputs.features })
}
