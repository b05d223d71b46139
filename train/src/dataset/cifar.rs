//! CIFAR-10 and CIFAR-100 in the authors' binary layout: records of label bytes, then 1024 red, green and blue bytes.

use super::files::Files;
use super::{Dataset, Normalisation, OpenOptions, Split, kept_classes, partition, pictures};
use crate::Result;
use rayon::prelude::*;

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Longest `.bin` file, bytes: six times the longest official one.
const LONGEST: u64 = 1 << 30;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Cifar10,
    Cifar100,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10",
            Self::Cifar100 => "cifar-100",
        }
    }

    fn train_files(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Self::Cifar100 => &["train.bin"],
        }
    }

    fn test_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "test_batch.bin",
            Self::Cifar100 => "test.bin",
        }
    }

    fn label_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "batches.meta.txt",
            Self::Cifar100 => "fine_label_names.txt",
        }
    }

    /// The label bytes of a record: what each means and how many values it has. The last one is the class.
    fn label_bytes(self) -> &'static [(&'static str, usize)] {
        match self {
            Self::Cifar10 => &[("label", 10)],
            Self::Cifar100 => &[("coarse label", 20), ("fine label", 100)],
        }
    }

    /// Mean and standard deviation of the training pixels as published.
    fn normalisation(self) -> Normalisation {
        match self {
            Self::Cifar10 => ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
            Self::Cifar100 => ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
        }
    }
}

/// Whether the files are one of the two sets.
pub(super) fn recognise(files: &Files) -> Option<Kind> {
    [Kind::Cifar10, Kind::Cifar100]
        .into_iter()
        .find(|kind| files.has(kind.test_file()) || kind.train_files().iter().any(|name| files.has(name)))
}

/// Opens the set. Without any training file it opens for evaluation; with some of them it is refused.
pub(super) fn open(files: &Files, kind: Kind, options: &OpenOptions) -> Result<(Dataset, Option<Normalisation>)> {
    let missing: Vec<&str> = kind.train_files().iter().copied().filter(|name| !files.has(name)).collect();
    if !missing.is_empty() && missing.len() < kind.train_files().len() {
        return Err(files.error(format!("{} is missing beside the other training files", missing.join(", "))));
    }
    for needed in [kind.test_file(), kind.label_file()] {
        if !files.has(needed) {
            return Err(files.error(format!("{needed} is missing: give the whole {} folder or archive", kind.name())));
        }
    }
    let mut names = vec![kind.label_file(), kind.test_file()];
    if missing.is_empty() {
        names.extend(kind.train_files());
    }
    let mut contents = files.read(&names, LONGEST)?.into_iter();
    let all = kind.label_bytes()[kind.label_bytes().len() - 1].1;
    let labels = label_names(files, kind, &contents.next().unwrap_or_default(), all)?;
    let classes = kept_classes(files, labels.len(), options)?;
    let mut parts = Vec::new();
    for (name, bytes) in names[1..].iter().zip(contents) {
        parts.push(records(files, kind, name, &bytes, classes)?);
    }
    let mut parts = parts.into_iter();
    let test = parts.next().unwrap_or_default();
    let mut whole = Split { size: SIDE, ..Split::default() };
    for part in parts {
        whole.rgb.extend(part.rgb);
        whole.labels.extend(part.labels);
        whole.names.extend(part.names);
    }
    let held_out = |n: usize, _| vec![partition::share(n, options.validation)];
    let part = partition::deal(&whole.names, &whole.labels, options.seed, "validation", held_out);
    let (validation, train): (Vec<usize>, Vec<usize>) = (0..whole.len()).partition(|&i| part[i] == 0);
    let size = options.image_size.unwrap_or(SIDE);
    let dataset = Dataset {
        name: kind.name().into(),
        labels: labels.into_iter().take(classes).collect(),
        digest: String::new(),
        mean: [0.5; 3],
        std: [1.0; 3],
        train: resized(whole.subset(&train), size),
        validation: resized(whole.subset(&validation), size),
        test: resized(test, size),
        pairs: None,
    };
    for (name, split) in [("training", &dataset.train), ("test", &dataset.test)] {
        let seen = |class| split.labels.contains(&class);
        if let Some(class) = (0..classes).find(|class| !seen(*class)).filter(|_| name == "test" || !split.is_empty()) {
            return Err(files.error(format!("class {} has no {name} picture", dataset.labels[class])));
        }
    }
    Ok((dataset, Some(kind.normalisation())))
}

fn label_names(files: &Files, kind: Kind, bytes: &[u8], expected: usize) -> Result<Vec<String>> {
    let text = String::from_utf8_lossy(bytes);
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    if names.len() != expected {
        let reason = format!("{} names {} classes, not {expected}", kind.label_file(), names.len());
        return Err(files.error(reason));
    }
    Ok(names)
}

/// Reads the records of one file, keeping those of the first `classes` classes.
fn records(files: &Files, kind: Kind, name: &str, bytes: &[u8], classes: usize) -> Result<Split> {
    let head = kind.label_bytes().len();
    let record = head + 3 * PLANE;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        return Err(files.error(format!(
            "{name} has {} bytes, not a multiple of the record size {record}: byte {} begins a record that is cut short. \
             Fetch it again",
            bytes.len(),
            bytes.len() / record * record
        )));
    }
    let mut split = Split { size: SIDE, ..Split::default() };
    for (index, bytes) in bytes.chunks_exact(record).enumerate() {
        for (at, ((what, values), byte)) in kind.label_bytes().iter().zip(bytes).enumerate() {
            if usize::from(*byte) >= *values {
                let place = index * record + at;
                return Err(files.error(format!("{name}: {what} {byte} at byte {place} is not below {values}")));
            }
        }
        let label = usize::from(bytes[head - 1]);
        if label >= classes {
            continue;
        }
        let (red, rest) = bytes[head..].split_at(PLANE);
        let (green, blue) = rest.split_at(PLANE);
        for ((r, g), b) in red.iter().zip(green).zip(blue) {
            split.rgb.extend([*r, *g, *b]);
        }
        split.labels.push(label);
        split.names.push(format!("{name}#{index:05}"));
    }
    Ok(split)
}

fn resized(split: Split, size: usize) -> Split {
    if size == split.size || split.is_empty() {
        return Split { size, ..split };
    }
    let rgb = (0..split.len()).into_par_iter().flat_map_iter(|i| pictures::resize(&split.to_picture(i), size).rgb);
    Split { size, rgb: rgb.collect(), ..split }
}
