//! What a study is about: a sealed model, the pictures it was trained with, and test pictures under corruptions.

use clap::Args;
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_train::corruption::Corruption;
use excon_train::dataset::{self, Dataset, OpenOptions};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::path::PathBuf;

/// Result of a study.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The flags that name it.
#[derive(Args)]
pub struct Subject {
    /// The sealed model
    pub bundle: PathBuf,
    /// Data set it was trained on
    #[arg(long)]
    pub data: String,
    /// It was trained on the first so many classes
    #[arg(long)]
    pub classes: Option<usize>,
    /// Share of the training pictures that were set aside, as in training
    #[arg(long, default_value_t = 0.1)]
    pub validation: f64,
    /// Test pictures, at most
    #[arg(long, default_value_t = 1000)]
    pub pictures: usize,
}

impl Subject {
    /// The first so many classes of a data set at the model's size, split as the model's own was.
    pub fn open(&self, bundle: &Bundle, data: &str, classes: Option<usize>) -> Result<Dataset> {
        let (image_size, seed) = (Some(bundle.manifest.preprocess.size), bundle.manifest.provenance.seed);
        Ok(dataset::open(data, &OpenOptions { image_size, seed, validation: self.validation, classes })?)
    }
}

/// The pictures under a corruption, always the same way.
pub fn corrupted(pictures: &[Picture], corruption: Corruption, severity: usize) -> Result<Vec<Picture>> {
    let mut rng = ChaCha8Rng::seed_from_u64(severity as u64);
    rng.set_stream(corruption as u64);
    Ok(pictures.iter().map(|p| corruption.apply(p, severity, &mut rng)).collect::<std::result::Result<_, _>>()?)
}
