//! `excon evaluate`: what a run or a bundle is worth on a data set.

use super::{figures, multi_label, robustness};
use crate::evaluation::{self, Report};
use crate::failure::{Failure, Result};
use crate::model::{self, Model};
use crate::terminal::{self, Format, Progress};
use clap::Args;
use excon_train::config::Device;
use excon_train::corruption::Published;
use excon_train::dataset::{Dataset, Split};
use excon_train::evaluate::{self, Regenerated, Source};
use std::path::PathBuf;

/// Measures accuracy, calibration, explanations and robustness on a data set
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon evaluate runs/trashnet --data trashnet
  excon evaluate runs/trashnet --data trashnet --attacks --corruptions
  excon evaluate runs/cifar --data data/cifar-10-batches-bin --corrupted data/CIFAR-10-C
  excon evaluate runs/cifar --data data/cifar-10-batches-bin --attacks --corruptions --device cuda
  excon evaluate runs/demo/trashnet.excon --data PHOTOS --split validation --limit 200
  excon evaluate runs/leoclr --data trashnet --probe

A bundle brings its calibration. For a run a temperature is fitted on one half of the validation pictures. Intervals are 95 %
bootstrap intervals. --corruptions regenerates the corruptions from the pictures, --corrupted reads published files:
figures of the two are not comparable digit by digit, and every result says which it is.
What a run comes to on its whole test split is kept in RUN/evaluation.json, where `excon report` finds it; attacks and
corruptions that were measured before stay in it. docs/evaluation.md describes every key.")]
pub struct Evaluate {
    /// A run folder or a bundle
    #[arg(value_name = "RUN|FILE.excon")]
    model: PathBuf,
    /// Data set, as for `excon train`
    #[arg(long, value_name = "PATH")]
    data: String,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: Which,
    /// Measure also under FGSM (1, 2, 4, 8 /255) and PGD-20 (8/255); needs a run
    #[arg(long)]
    attacks: bool,
    /// Measure also on every corruption at five severities
    #[arg(long)]
    corruptions: bool,
    /// The same on the published files of CIFAR-10-C or CIFAR-100-C, instead of regenerating them
    #[arg(long, value_name = "FOLDER", conflicts_with = "corruptions")]
    corrupted: Option<PathBuf>,
    /// Measure the features too: a linear classifier fitted on the training pictures, and 20 nearest neighbours
    #[arg(long)]
    probe: bool,
    /// Measure on so many pictures, spread evenly over the split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Deletion, insertion and occlusion on so many pictures, 75 passes each; 0 leaves them out
    #[arg(long, value_name = "N", default_value_t = 256)]
    explained: u32,
    /// Where a run's network is executed: cpu or cuda, the first NVIDIA graphics card
    #[arg(long, value_name = "NAME", value_parser = model::device, default_value = "cpu", env = "EXCON_DEVICE",
        hide_env_values = true)]
    device: Device,
    /// Write the result as JSON here too
    #[arg(long, value_name = "FILE.json")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// Pictures that nothing was chosen on.
    Test,
    /// Pictures that epoch and temperature are chosen on.
    Validation,
    /// Pictures the network was trained on.
    Train,
}

impl Which {
    /// The split.
    pub fn of(self, data: &Dataset) -> &Split {
        match self {
            Self::Test => &data.test,
            Self::Validation => &data.validation,
            Self::Train => &data.train,
        }
    }

    /// Its name.
    pub fn word(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

impl Evaluate {
    /// Measures.
    pub fn run(&self, format: Format) -> Result<()> {
        if self.attacks && !self.model.is_dir() {
            return Err(Failure::usage(
                "--attacks needs gradients, which a bundle has not. Give the run it was made from",
            ));
        }
        let model = Model::open(&self.model, self.device)?;
        let data = model.data(&self.data)?;
        let split = self.split.of(&data);
        let split = &match self.limit {
            Some(limit) => split.subset(&evaluate::spread(split.len(), limit as usize)),
            None => split.clone(),
        };
        if data.is_multi_label() {
            if self.attacks || self.corruptions || self.corrupted.is_some() || self.probe {
                return Err(Failure::usage(
                    "--attacks, --corruptions, --corrupted and --probe are defined for one class per picture; this run \
                     has sets of labels",
                ));
            }
            return multi_label::evaluate(&self.model, &model, &data, split, &self.split.word(), format);
        }
        // Files that do not fit are refused before anything is measured.
        let published = self.corrupted.as_ref().map(|folder| Published::open(folder, split)).transpose()?;
        let regenerated = Regenerated { split, seed: model.seed };
        let progress = Progress::start("evaluate", 1);
        progress.say(&format!("{} pictures", split.len()), true);
        let (scaling, temperature_fitted_on) = model.scaling(&data)?;
        let evaluation = model.evaluate(split, &scaling)?;
        progress.finish(&format!("{} pictures with {}", split.len(), evaluation.engine));
        let (engine, preprocess, seed) = (model.engine.as_ref(), &model.preprocess, model.seed);
        let explanations = robustness::explain(engine, &model.head, split, preprocess, self.explained as usize)?;
        let attacks = match (&model.white_box, self.attacks) {
            (Some(network), true) => Some(robustness::attack(network.as_ref(), split, preprocess, &scaling, seed)?),
            _ => None,
        };
        let corruptions = match &published {
            Some(published) => Some(published as &dyn Source),
            None => self.corruptions.then_some(&regenerated as &dyn Source),
        };
        let corruptions =
            corruptions.map(|source| robustness::corrupt(engine, source, preprocess, &scaling)).transpose()?;
        let probe = match self.probe {
            true => Some(evaluate::probe(engine, &data, split, preprocess, seed)?),
            false => None,
        };
        let mut report = Report {
            schema: evaluation::SCHEMA.into(),
            tool: format!("excon {}", env!("CARGO_PKG_VERSION")),
            model: self.model.clone(),
            model_digest: model.digest.clone(),
            data: data.name.clone(),
            data_digest: data.digest.clone(),
            split: self.split.word(),
            limit: self.limit.map(|l| l as usize),
            seed,
            temperature_fitted_on,
            evaluation,
            explanations,
            attacks,
            corruptions,
            probe,
        };
        let kept = self.keep(&mut report);
        if let Some(out) = &self.out {
            report.write(out)?;
        }
        if format == Format::Json {
            return terminal::json(&report);
        }
        figures::print(&report)?;
        let name = self.model.display();
        let mut next = vec![match self.model.is_dir() {
            true => format!("excon convert {name} --data {} --target cpu --out {name}.excon", self.data),
            false => format!("excon-edge predict {name} IMAGE --explain maps"),
        }];
        next.extend(kept.map(|path| format!("excon report {name} OTHER_RUNS    # from {}", path.display())));
        terminal::next(&next)
    }

    /// Keeps the evaluation of a whole test split in the run's folder, with what an earlier one measured besides. Where
    /// the folder cannot be written, the result is still printed.
    fn keep(&self, report: &mut Report) -> Option<PathBuf> {
        if !self.model.join("run.json").is_file() || !report.is_whole_test() {
            return None;
        }
        let path = self.model.join(evaluation::NAME);
        // One that cannot be read is of an older version, or damaged: nothing to keep.
        if let Ok(earlier) = Report::read(&path) {
            report.keep(earlier);
        }
        match report.write(&path) {
            Ok(()) => Some(path),
            Err(failure) => {
                terminal::note(&format!("not kept in the run: {}", failure.message));
                None
            }
        }
    }
}
