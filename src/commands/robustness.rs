//! The long parts of `excon evaluate`, each with its progress bar: explanations on a sample, attacks, corruptions.

use crate::failure::Result;
use crate::terminal::Progress;
use excon_edge::engine::Engine;
use excon_edge::image::Preprocess;
use excon_edge::probability::Scaling;
use excon_edge::saliency::LinearHead;
use excon_train::dataset::Split;
use excon_train::evaluate::{
    Attack, Attacked, Cell, Corrupted, Explanations, SEVERITIES, Source, WhiteBox, attacked, corrupted, explanations,
};

/// Measures explanations and embeddings on a sample.
pub fn explain(
    engine: &dyn Engine,
    head: &LinearHead,
    split: &Split,
    p: &Preprocess,
    limit: usize,
) -> Result<Option<Explanations>> {
    let pictures = limit.min(split.len());
    let progress = Progress::start("explain", pictures as u64);
    progress.say("deletion, insertion, occlusion", true);
    let found = explanations(engine, head, split, p, limit, &mut |done| progress.at(done as u64))?;
    if found.is_some() {
        progress.finish(&format!("{pictures} pictures, deletion, insertion, occlusion"));
    }
    Ok(found)
}

/// Measures every attack.
pub fn attack(
    network: &dyn WhiteBox,
    split: &Split,
    p: &Preprocess,
    scaling: &Scaling,
    seed: u64,
) -> Result<Vec<Attacked>> {
    let progress = Progress::start("attacks", Attack::ALL.len() as u64);
    let mut all = Vec::new();
    for attack in Attack::ALL {
        progress.say(&attack.name(), true);
        all.push(attacked(network, split, p, scaling, attack, seed)?);
        progress.at(all.len() as u64);
    }
    progress.finish(&format!("{} pictures, {} ways", split.len(), all.len()));
    Ok(all)
}

/// Measures every corruption of a source.
pub fn corrupt(engine: &dyn Engine, source: &dyn Source, p: &Preprocess, scaling: &Scaling) -> Result<Corrupted> {
    let cells = source.corruptions().len() * SEVERITIES;
    let progress = Progress::start("corrupt", cells as u64);
    let mut count = 0;
    let mut done = |cell: &Cell| {
        count += 1;
        progress.at(count);
        progress.say(&format!("{}, severity {}", cell.corruption, cell.severity), cell.severity == SEVERITIES);
    };
    let table = corrupted(engine, source, p, scaling, &mut done)?;
    progress.finish(&format!("{} pictures, {cells} cells", table.pictures));
    Ok(table)
}
