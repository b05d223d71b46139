//! Act one: the photographs that ship with the project become a trained network.

use super::Options;
use crate::failure::Result;
use crate::terminal::{done, percent};
use crate::training::{Training, open};
use excon_train::checkpoint::Run;
use excon_train::config::TrainConfig;
use excon_train::dataset::Dataset;
use excon_train::trainer::{self, EpochRecord};
use std::time::Instant;
use toml::Table;

/// The settings, as a user would write them.
const SETTINGS: &str = include_str!("settings.toml");
/// Epochs of the quick demo.
const QUICK: i64 = 2;

/// What the act leaves.
pub struct Trained {
    /// The photographs.
    pub data: Dataset,
    /// The run folder, read back as any later command would.
    pub run: Run,
    /// Every epoch.
    pub epochs: Vec<EpochRecord>,
}

/// Opens the photographs and trains.
pub fn play(options: &Options) -> Result<Trained> {
    let mut overrides = Table::new();
    overrides.insert("data".into(), "trashnet".into());
    overrides.insert("seed".into(), i64::from(options.seed).into());
    if options.quick {
        overrides.insert("epochs".into(), QUICK.into());
    }
    let config = TrainConfig::resolve(Some(SETTINGS), &overrides)?;
    let started = Instant::now();
    let data = open(&config)?;
    let sizes = [&data.train, &data.validation, &data.test].map(|s| s.len());
    let detail = format!(
        "{} of {} classes: {} train, {} validation, {} test",
        data.name,
        data.labels.len(),
        sizes[0],
        sizes[1],
        sizes[2]
    );
    done("data", &detail, started.elapsed());
    let folder = options.out.join("run");
    let mut progress = Training::start(&config);
    let trained = trainer::train(&config, &data, Some(&folder), &mut progress)?;
    let accuracy = percent(trained.manifest.validation_accuracy);
    progress.finish(&format!(
        "{} {}, {} epochs, validation accuracy {accuracy}",
        config.network,
        config.title(),
        config.epochs
    ));
    Ok(Trained { data, run: Run::open(&folder)?, epochs: trained.epochs })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_demo_is_joint_excon_in_device_mode() {
        let config = TrainConfig::resolve(Some(SETTINGS), &Table::new()).unwrap();
        assert_eq!(config.title(), "excon (device, joint)");
    }
}
