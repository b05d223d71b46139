//! Data sets as bytes at network size: TrashNet (built in), CIFAR-10 and CIFAR-100 in their binary layout, Tiny
//! ImageNet, folders of photographs by class, and photographs with sets of labels, each as a folder or as the archive it
//! comes in. Opening is deterministic: the same files, options and seed give the same splits in the same order and the
//! same digest.

mod cifar;
pub(crate) mod files;
mod labels;
mod pairs;
mod partition;
mod pictures;
mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
mod tree;
mod zip;

pub use pairs::Pairs;
pub use partition::split_validation;

use crate::{Error, Result};
use excon_edge::image::Picture;
use excon_edge::saliency::ObjectBox;
use files::Files;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The quick-start photographs: TrashNet at 64×64 (MIT), with the authors' split.
const TRASHNET: &[u8] = include_bytes!("../../../assets/trashnet/trashnet-64.tar.gz");

/// Mean and standard deviation of R, G, B in 0..1.
pub(crate) type Normalisation = ([f32; 3], [f32; 3]);

/// What [`open`] may be told.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenOptions {
    /// Side of the square pictures. Default: their own if all are equal and square, else 64.
    pub image_size: Option<usize>,
    /// Seed of the splits that are made here.
    pub seed: u64,
    /// Share of the training pictures held out for validation where the source has no validation split: 0 to 0.9.
    pub validation: f64,
    /// Keep only the first so many classes.
    pub classes: Option<usize>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self { image_size: None, seed: 1, validation: 0.1, classes: None }
    }
}

/// Labelled pictures, all `size × size`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Split {
    /// Side of every picture, pixels.
    pub size: usize,
    /// `n × size × size × 3` bytes, RGB interleaved, rows top to bottom.
    pub rgb: Vec<u8>,
    /// Class of each picture, an index into [`Dataset::labels`]; 0 where pictures have sets of labels.
    pub labels: Vec<usize>,
    /// Name of each picture: its path below the data set's top folder, or `FILE#RECORD`.
    pub names: Vec<String>,
    /// All labels of each picture, ascending; no entries where pictures have one class each.
    pub sets: Vec<Vec<usize>>,
    /// Box around the object of each picture, where the data set has one; empty for a data set without boxes.
    pub boxes: Vec<Option<ObjectBox>>,
}

impl Split {
    /// Number of pictures.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no picture.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The `size × size × 3` bytes of one picture.
    ///
    /// # Panics
    /// If `index` is not below [`Split::len`].
    pub fn picture(&self, index: usize) -> &[u8] {
        let bytes = self.size * self.size * 3;
        &self.rgb[index * bytes..(index + 1) * bytes]
    }

    /// The box around the object of one picture, where there is one.
    pub fn object(&self, index: usize) -> Option<&ObjectBox> {
        self.boxes.get(index)?.as_ref()
    }

    /// One picture in the form the edge runtime takes.
    ///
    /// # Panics
    /// If `index` is not below [`Split::len`].
    pub fn to_picture(&self, index: usize) -> Picture {
        Picture { width: self.size, height: self.size, rgb: self.picture(index).to_vec() }
    }

    /// The chosen pictures, in the order given.
    ///
    /// # Panics
    /// If an index is not below [`Split::len`].
    pub fn subset(&self, indices: &[usize]) -> Self {
        let mut subset = Self { size: self.size, ..Self::default() };
        subset.rgb.reserve_exact(indices.len() * self.size * self.size * 3);
        for &index in indices {
            subset.rgb.extend_from_slice(self.picture(index));
            subset.labels.push(self.labels[index]);
            subset.names.push(self.names[index].clone());
            subset.sets.extend(self.sets.get(index).cloned());
            subset.boxes.extend(self.boxes.get(index));
        }
        subset
    }
}

/// An opened data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// `trashnet`, `cifar-10`, `cifar-100`, `tiny-imagenet`, or the name of the folder of photographs.
    pub name: String,
    /// Class names, by label.
    pub labels: Vec<String>,
    /// SHA-256 (hex) over class names and the names, labels and pixels of all splits; boxes are not part of it.
    pub digest: String,
    /// Mean of R, G, B in 0..1: the published one of the benchmark sets, else of the training pictures.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B in 0..1, positive; from where the mean comes from.
    pub std: [f32; 3],
    /// Training pictures. Empty where only the test pictures of CIFAR are at hand: see [`Dataset::require_training`].
    pub train: Split,
    /// Validation pictures, disjoint from `train`.
    pub validation: Split,
    /// Test pictures. The labelled `val` of Tiny ImageNet, and of class folders without `test`, is used as test.
    pub test: Split,
    /// Positives of the training pictures that were made elsewhere, where `pairs.csv` names any.
    pub pairs: Option<Arc<Pairs>>,
}

impl Dataset {
    /// Whether pictures have sets of labels and not one class each.
    pub fn is_multi_label(&self) -> bool {
        [&self.train, &self.validation, &self.test].iter().any(|split| !split.sets.is_empty())
    }

    /// Refuses a data set that can only be evaluated on, naming the files that training needs.
    pub fn require_training(&self) -> Result<()> {
        if !self.train.is_empty() {
            return Ok(());
        }
        let missing = match self.name.as_str() {
            "cifar-10" => "data_batch_1.bin, data_batch_2.bin, data_batch_3.bin, data_batch_4.bin and data_batch_5.bin",
            "cifar-100" => "train.bin",
            _ => "train/",
        };
        Err(Error::Dataset {
            path: PathBuf::from(&self.name),
            reason: format!(
                "it holds no training pictures, only {} for evaluation. To train, add {missing}",
                self.test.len()
            ),
        })
    }
}

/// Opens a data set: `trashnet` for the built-in photographs, else the path of a folder, `.tar.gz`, `.tar` or `.zip`.
///
/// Recognised by content: CIFAR-10 (`test_batch.bin`), CIFAR-100 (`test.bin`, `train.bin`), Tiny ImageNet
/// (`val/val_annotations.txt`), sets of labels (`labels.csv`: `picture,labels`), else class folders:
/// `train|val|test/CLASS/*` or `CLASS/*`, which is split 70/15/15 by class and seeded hash, with positives from
/// `pairs.csv` ([`Pairs`]: `picture,positive[,label,share]`) where it is there. JPEG and PNG of any size are brought to
/// the network's size as the board does it.
///
/// # Errors
/// Options out of range; files that are missing, damaged, of the wrong size, or inconsistent, by name and place.
pub fn open(source: &str, options: &OpenOptions) -> Result<Dataset> {
    check(options)?;
    let files =
        if source == "trashnet" { Files::embedded("trashnet", TRASHNET)? } else { Files::open(Path::new(source))? };
    let (mut dataset, normalisation) = if let Some(kind) = cifar::recognise(&files) {
        cifar::open(&files, kind, options)?
    } else {
        let lines = pairs::Lines::read(&files)?;
        let plan = if tree::is_tiny_imagenet(&files) {
            tree::tiny_imagenet(&files, options)?
        } else if labels::recognise(&files) {
            labels::plan(&files, options)?
        } else {
            let foreign = lines.as_ref().map_or_else(BTreeSet::new, pairs::Lines::positives);
            tree::class_folders(&files, &foreign, options)?
        };
        let [train, validation, test] = pictures::load(&files, &plan.splits, options.image_size)?;
        let pairs = lines.map(|lines| lines.load(&files, &plan, train.size)).transpose()?;
        let [train, validation, test] = with_sets([train, validation, test], &plan);
        let dataset = Dataset {
            name: plan.name,
            labels: plan.labels,
            digest: String::new(),
            mean: [0.5; 3],
            std: [1.0; 3],
            train,
            validation,
            test,
            pairs: pairs.map(Arc::new),
        };
        (dataset, plan.normalisation)
    };
    (dataset.mean, dataset.std) = normalisation.unwrap_or_else(|| measure(&dataset.train));
    dataset.digest = digest(&dataset);
    Ok(dataset)
}

fn check(options: &OpenOptions) -> Result<()> {
    let refuse = |name: &str, reason: &str| Err(Error::Setting { name: name.into(), reason: reason.into() });
    if !(0.0..=0.9).contains(&options.validation) {
        return refuse("validation", "the share held out for validation lies in 0..0.9");
    }
    if options.image_size.is_some_and(|size| !(8..=1024).contains(&size)) {
        return refuse("image_size", "pictures are 8 to 1024 pixels wide");
    }
    if options.classes.is_some_and(|classes| classes < 2) {
        return refuse("classes", "a classifier needs at least 2 classes");
    }
    Ok(())
}

/// The number of classes to keep of those there are, or why not.
fn kept_classes(files: &Files, available: usize, options: &OpenOptions) -> Result<usize> {
    match options.classes {
        Some(wanted) if wanted > available => {
            Err(files.error(format!("it has {available} classes, not {wanted}: ask for fewer")))
        }
        wanted => Ok(wanted.unwrap_or(available)),
    }
}

/// The splits with the label sets of the plan, where it has any.
fn with_sets(splits: [Split; 3], plan: &tree::Plan) -> [Split; 3] {
    let mut planned = plan.splits.iter();
    splits.map(|split| {
        let items = planned.next().filter(|_| plan.sets).into_iter().flatten();
        Split { sets: items.map(|item| item.set.clone()).collect(), ..split }
    })
}

/// Mean and standard deviation per channel, by exact integer sums.
fn measure(split: &Split) -> Normalisation {
    let (mut sum, mut squares) = ([0u64; 3], [0u64; 3]);
    for pixel in split.rgb.chunks_exact(3) {
        for c in 0..3 {
            let value = u64::from(pixel[c]);
            sum[c] += value;
            squares[c] += value * value;
        }
    }
    let count = (split.rgb.len() / 3).max(1) as f64;
    let mean = sum.map(|s| s as f64 / count);
    // A set without contrast must not divide by zero: one level is the least.
    let std: [f64; 3] =
        std::array::from_fn(|c| (squares[c] as f64 / count - mean[c] * mean[c]).max(0.0).sqrt().max(1.0));
    (mean.map(|m| (m / 255.0) as f32), std.map(|s| (s / 255.0) as f32))
}

fn digest(dataset: &Dataset) -> String {
    let mut hash = Sha256::new();
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for label in &dataset.labels {
        text(&mut hash, label);
    }
    for (name, split) in [("train", &dataset.train), ("validation", &dataset.validation), ("test", &dataset.test)] {
        text(&mut hash, name);
        hash.update((split.len() as u64).to_le_bytes());
        hash.update((split.size as u64).to_le_bytes());
        for (name, label) in split.names.iter().zip(&split.labels) {
            text(&mut hash, name);
            hash.update((*label as u64).to_le_bytes());
        }
        hash.update(&split.rgb);
        // Only where there are any, so that the digests of all other sets stay what they were.
        for set in &split.sets {
            hash.update((set.len() as u64).to_le_bytes());
            set.iter().for_each(|label| hash.update((*label as u64).to_le_bytes()));
        }
    }
    if let Some(pairs) = &dataset.pairs {
        text(&mut hash, "pairs");
        for of in &pairs.of {
            hash.update((of.len() as u64).to_le_bytes());
            for &positive in of {
                text(&mut hash, &pairs.pictures.names[positive]);
                let (label, share) = pairs.towards[positive].map_or((u64::MAX, 0.0), |(l, share)| (l as u64, share));
                hash.update(label.to_le_bytes());
                hash.update(share.to_le_bytes());
            }
        }
        hash.update(&pairs.pictures.rgb);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
