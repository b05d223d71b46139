//! `excon embed`: the network's vector of every picture, as a NumPy array.

use super::evaluate::Which;
use crate::failure::Result;
use crate::model::Model;
use crate::terminal::{self, Format, Progress};
use clap::Args;
use excon_edge::file::replace;
use excon_train::checkpoint::Run;
use excon_train::config::Device;
use excon_train::evaluate::{Embedding, embeddings};
use excon_train::npy;
use serde_json::json;
use std::path::PathBuf;

/// Writes the embedding of every picture as a NumPy array
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon embed runs/mine --data PHOTOS --out mine.npy
  excon embed runs/mine --data PHOTOS --split train --projection --out train.npy

FILE.npy holds pictures × channels 32-bit floats. Beside it, FILE.labels.tsv has a line a picture in the same order:
label, class and name, tab between. In Python:
  X = numpy.load(\"mine.npy\"); y = numpy.loadtxt(\"mine.labels.tsv\", dtype=int, delimiter=\"\\t\", usecols=0)")]
pub struct Embed {
    /// A run folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Data set, as for `excon train`
    #[arg(long, value_name = "PATH")]
    data: String,
    /// Array to write
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: Which,
    /// The projection head's output, of length 1, instead of the pooled features that the classifier reads
    #[arg(long)]
    projection: bool,
}

impl Embed {
    /// Embeds.
    pub fn run(&self, format: Format) -> Result<()> {
        let run = Run::open(&self.run)?;
        let model = Model::from_run(&run, Device::Cpu)?;
        let data = model.data(&self.data)?;
        let split = self.split.of(&data);
        let progress = Progress::start("embed", 1);
        progress.say(&format!("{} pictures", split.len()), true);
        let which = if self.projection { Embedding::Projection } else { Embedding::Pooled };
        let (values, channels) = embeddings(&run.network()?, split, &model.preprocess, which)?;
        replace(&self.out, &npy::floats(&values, [split.len(), channels]))?;
        let plain = |text: &str| text.replace(['\t', '\n', '\r'], " ");
        let line =
            |(label, name): (&usize, &String)| format!("{label}\t{}\t{}\n", plain(&data.labels[*label]), plain(name));
        let labels = self.out.with_extension("labels.tsv");
        replace(&labels, split.labels.iter().zip(&split.names).map(line).collect::<String>().as_bytes())?;
        progress.finish(&format!("{} pictures, {channels} channels", split.len()));
        let kind = if self.projection { "projection" } else { "pooled" };
        if format == Format::Json {
            return terminal::json(
                &json!({ "schema": "excon.embedding/1", "model": self.run, "model_digest": model.digest,
                "data": data.name, "data_digest": data.digest, "split": self.split.word(), "embedding": kind,
                "shape": [split.len(), channels], "array": self.out, "labels": labels }),
            );
        }
        terminal::rows(&[
            ("pictures", format!("{} ({} of {})", split.len(), self.split.word(), data.name)),
            ("embedding", format!("{kind}, {channels} channels")),
            ("array", self.out.display().to_string()),
            ("labels", labels.display().to_string()),
        ])
    }
}
