//! Pictures in folders: which picture belongs to which class and split, for class folders and for Tiny ImageNet. Decides
//! by names alone; nothing is decoded here. `labels.csv` and `pairs.csv` have files of their own.

use super::files::Files;
use super::{Normalisation, OpenOptions, kept_classes, partition};
use crate::Result;
use excon_edge::saliency::ObjectBox;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One picture of a split.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub name: String,
    pub label: usize,
    /// All its labels, ascending, of a data set of label sets.
    pub set: Vec<usize>,
    pub object: Option<ObjectBox>,
}

/// What to load.
pub(super) struct Plan {
    pub name: String,
    pub labels: Vec<String>,
    /// Train, validation, test; each in bytewise order of the names.
    pub splits: [Vec<Item>; 3],
    pub normalisation: Option<Normalisation>,
    /// Whether pictures have sets of labels.
    pub sets: bool,
}

/// The usual names of the split folders.
const SPLITS: [(&str, usize); 5] = [("train", 0), ("val", 1), ("valid", 1), ("validation", 1), ("test", 2)];
const SPLIT_NAMES: [&str; 3] = ["train", "val", "test"];
const FOREIGN: [&str; 9] = ["avif", "bmp", "gif", "heic", "jxl", "svg", "tif", "tiff", "webp"];
const ANNOTATIONS: &str = "val/val_annotations.txt";
/// Longest list of boxes, bytes.
const LONGEST: u64 = 64 << 20;
/// Side of the pictures that Tiny ImageNet's boxes are counted on, pixels.
const TINY_SIDE: f32 = 64.0;

/// Whether a file is a picture by its name; other picture formats are refused rather than passed over.
pub(super) fn is_picture(files: &Files, name: &str) -> Result<bool> {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension).to_ascii_lowercase();
    if FOREIGN.contains(&extension.as_str()) {
        return Err(files.error(format!("{name} is neither JPEG nor PNG. Convert it or take it out")));
    }
    Ok(matches!(extension.as_str(), "jpg" | "jpeg" | "png"))
}

/// Whether the files are Tiny ImageNet.
pub(super) fn is_tiny_imagenet(files: &Files) -> bool {
    files.has(ANNOTATIONS)
}

/// Tiny ImageNet: `train/WNID/images/*`, and the annotated `val/images/*` as the test split, as is usual.
/// Classes are in the order of `wnids.txt`, named by the first synonym in `words.txt`.
pub(super) fn tiny_imagenet(files: &Files, options: &OpenOptions) -> Result<Plan> {
    for needed in ["wnids.txt", "words.txt"] {
        if !files.has(needed) {
            return Err(files.error(format!("{needed} is missing: give the whole folder or archive")));
        }
    }
    let wnids_text = files.read_text("wnids.txt")?;
    let wnids: Vec<&str> = wnids_text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if wnids.len() < 2 || wnids.iter().collect::<BTreeSet<_>>().len() != wnids.len() {
        return Err(files.error("wnids.txt must name at least two classes, each once"));
    }
    let classes = kept_classes(files, wnids.len(), options)?;
    let label_of: HashMap<&str, usize> = wnids.iter().enumerate().map(|(label, wnid)| (*wnid, label)).collect();

    let words = files.read_text("words.txt")?;
    let words: HashMap<&str, &str> = words.lines().filter_map(|line| line.split_once('\t')).collect();
    let short: Vec<&str> = wnids
        .iter()
        .map(|wnid| words.get(wnid).and_then(|text| text.split(',').next()).map_or(*wnid, str::trim))
        .collect();
    let unique = |(wnid, name): (&&str, &&str)| {
        if short.iter().filter(|other| *other == name).count() > 1 {
            format!("{name} ({wnid})")
        } else {
            (*name).into()
        }
    };
    let labels: Vec<String> = wnids.iter().zip(&short).map(unique).take(classes).collect();

    let mut train = Vec::new();
    for name in files.names().iter().filter(|name| name.starts_with("train/")) {
        let parts: Vec<&str> = name.split('/').collect();
        if let [_, wnid, "images", _] = parts[..]
            && is_picture(files, name)?
        {
            let Some(&label) = label_of.get(wnid) else {
                return Err(files.error(format!("{name}: class {wnid} is not in wnids.txt")));
            };
            train.push(Item { name: name.clone(), label, set: vec![], object: None });
        }
    }
    add_boxes(files, &wnids, &mut train)?;
    let mut test = Vec::new();
    for (number, line) in files.read_text(ANNOTATIONS)?.lines().enumerate() {
        let mut fields = line.split('\t');
        let (Some(name), Some(wnid)) = (fields.next(), fields.next()) else {
            let reason = format!("{ANNOTATIONS}, line {}: needs name, class and box, tab between", number + 1);
            return Err(files.error(reason));
        };
        let Some(&label) = label_of.get(wnid) else {
            return Err(files.error(format!("{ANNOTATIONS}, line {}: class {wnid} is not in wnids.txt", number + 1)));
        };
        let object = object_box(files, ANNOTATIONS, number + 1, fields)?;
        test.push(Item { name: format!("val/images/{name}"), label, set: vec![], object });
    }
    test.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    if let Some(twice) = test.windows(2).find(|pair| pair[0].name == pair[1].name) {
        return Err(files.error(format!("{ANNOTATIONS} names {} twice", twice[0].name)));
    }
    if let Some(missing) = test.iter().find(|item| !files.has(&item.name)) {
        return Err(files.error(format!("{} is missing, but {ANNOTATIONS} names it", missing.name)));
    }
    train.retain(|item| item.label < classes);
    test.retain(|item| item.label < classes);
    let (train, validation) = hold_out(train, options);
    let splits = [train, validation, test];
    require_all_classes(files, &labels, &splits, options)?;
    let normalisation = Some(([0.4802, 0.4481, 0.3975], [0.2302, 0.2265, 0.2262]));
    Ok(Plan { name: "tiny-imagenet".into(), labels, splits, normalisation, sets: false })
}

/// Gives the training pictures of Tiny ImageNet the boxes of `train/WNID/WNID_boxes.txt`, where there are any.
fn add_boxes(files: &Files, wnids: &[&str], train: &mut [Item]) -> Result<()> {
    let lists: Vec<String> = wnids.iter().map(|wnid| format!("train/{wnid}/{wnid}_boxes.txt")).collect();
    let lists: Vec<&str> = lists.iter().map(String::as_str).filter(|name| files.has(name)).collect();
    let mut boxes = HashMap::new();
    for (list, bytes) in lists.iter().zip(files.read(&lists, LONGEST)?) {
        let text = String::from_utf8(bytes).map_err(|_| files.error(format!("{list} is not UTF-8 text")))?;
        let folder = list.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in text.lines().enumerate() {
            let mut fields = line.split('\t');
            let name = format!("{folder}/images/{}", fields.next().unwrap_or_default());
            boxes.insert(name, object_box(files, list, number + 1, fields)?);
        }
    }
    for item in train {
        item.object = boxes.get(&item.name).copied().flatten();
    }
    Ok(())
}

/// The box in the fields of a line: first and last column and row that belong to it; none where the line ends before.
fn object_box<'a>(
    files: &Files,
    list: &str,
    line: usize,
    fields: impl Iterator<Item = &'a str>,
) -> Result<Option<ObjectBox>> {
    let fields: Vec<&str> = fields.collect();
    if fields.is_empty() {
        return Ok(None);
    }
    let wrong = || files.error(format!("{list}, line {line}: {} is no box x0, y0, x1, y1 in 0..63", fields.join(" ")));
    let values: Vec<f32> =
        fields.iter().map(|f| f.trim().parse()).collect::<std::result::Result<_, _>>().map_err(|_| wrong())?;
    let [left, top, right, bottom] = values[..] else { return Err(wrong()) };
    let span = |low: f32, high: f32| low >= 0.0 && low <= high && high < TINY_SIDE;
    if !(span(left, right) && span(top, bottom)) {
        return Err(wrong());
    }
    let edge = |pixel: f32| pixel / TINY_SIDE;
    let (right, bottom) = (edge(right + 1.0), edge(bottom + 1.0));
    Ok(Some(ObjectBox { left: edge(left), top: edge(top), right, bottom }))
}

/// Class folders: `train|val|test/CLASS/*`, or `CLASS/*`, split here. Classes are in bytewise order of their names.
/// Files in `foreign` are not pictures of the set.
pub(super) fn class_folders(files: &Files, foreign: &BTreeSet<&str>, options: &OpenOptions) -> Result<Plan> {
    let divided = is_divided(files.names());
    let mut classes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut loose = None;
    for name in files.names().iter().filter(|name| !foreign.contains(name.as_str())) {
        let rest = match split_of(name) {
            Some((_, rest)) if divided => rest,
            None if divided => continue,
            _ => name,
        };
        if !is_picture(files, name)? {
            continue;
        }
        match rest.split_once('/') {
            Some((class, _)) => classes.entry(class.into()).or_default().push(name.clone()),
            None => loose = Some(name),
        }
    }
    if let Some(name) = loose {
        return Err(files.error(format!("{name} lies in no class folder. Put each picture in the folder of its class")));
    }
    if classes.is_empty() {
        return Err(files.error(
            "no pictures found. Give CIFAR-10 or CIFAR-100 (binary), Tiny ImageNet, or class folders with JPEG or PNG: \
             CLASS/*.jpg, or train/, val/ and test/ with CLASS/*.jpg",
        ));
    }
    if let [class] = classes.keys().collect::<Vec<_>>()[..] {
        return Err(files.error(format!("it holds one class only ({class}). A classifier needs at least two")));
    }
    let kept = kept_classes(files, classes.len(), options)?;
    let labels: Vec<String> = classes.keys().take(kept).cloned().collect();
    let of_class = |(label, names): (usize, Vec<String>)| {
        names.into_iter().map(move |name| Item { name, label, set: vec![], object: None })
    };
    let items: Vec<Item> = classes.into_values().take(kept).enumerate().flat_map(of_class).collect();
    if !divided {
        require_three_each(files, &labels, &items)?;
    }
    let splits = divide(files, items, options)?;
    require_all_classes(files, &labels, &splits, options)?;
    Ok(Plan { name: source_name(files), labels, splits, normalisation: None, sets: false })
}

/// The data set's name: that of its folder or archive.
pub(super) fn source_name(files: &Files) -> String {
    let name = files.path().file_name().and_then(|name| name.to_str()).unwrap_or("photographs");
    [".gz", ".tgz", ".tar", ".zip"].iter().fold(name, |name, ending| name.trim_end_matches(ending)).to_string()
}

/// Whether pictures are divided into `train/` and others.
fn is_divided(names: &[String]) -> bool {
    names.iter().any(|name| name.starts_with("train/"))
}

/// The split that a name's first folder stands for, and the rest of the name.
fn split_of(name: &str) -> Option<(usize, &str)> {
    let (top, rest) = name.split_once('/')?;
    SPLITS.iter().find(|(split, _)| *split == top).map(|(_, index)| (*index, rest))
}

/// Train, validation and test by the folders `train/`, `val/` and `test/` where there is a `train/`, else 70/15/15 of each
/// class by seeded hash; what is missing is made from what is there. Each in bytewise order of the names.
pub(super) fn divide(files: &Files, items: Vec<Item>, options: &OpenOptions) -> Result<[Vec<Item>; 3]> {
    let mut splits: [Vec<Item>; 3] = Default::default();
    if !is_divided(files.names()) {
        splits = three_ways(items, options);
    } else {
        for item in items {
            if let Some((split, _)) = split_of(&item.name) {
                splits[split].push(item);
            }
        }
        if splits[2].is_empty() {
            // As with Tiny ImageNet: the official labelled pictures outside of training are what is reported on.
            splits.swap(1, 2);
        }
        if splits[2].is_empty() {
            return Err(files.error(
                "train/ is there, but neither test/ nor val/. Add test/, or give the folder train itself to have it split",
            ));
        }
        if splits[1].is_empty() {
            let (train, validation) = hold_out(std::mem::take(&mut splits[0]), options);
            (splits[0], splits[1]) = (train, validation);
        }
    }
    for split in &mut splits {
        split.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(splits)
}

/// Takes the validation share out of the training pictures.
fn hold_out(items: Vec<Item>, options: &OpenOptions) -> (Vec<Item>, Vec<Item>) {
    let parts = dealt(&items, options.seed, "validation", |n, _| vec![partition::share(n, options.validation)]);
    let (validation, train): (Vec<_>, Vec<_>) = items.into_iter().zip(parts).partition(|(_, part)| *part == 0);
    (train.into_iter().map(|(item, _)| item).collect(), validation.into_iter().map(|(item, _)| item).collect())
}

fn require_three_each(files: &Files, labels: &[String], items: &[Item]) -> Result<()> {
    for (label, class) in labels.iter().enumerate() {
        let count = items.iter().filter(|item| item.label == label).count();
        if count < 3 {
            let reason = format!("class {class} has {count} pictures. Splitting needs at least 3, one for each split");
            return Err(files.error(reason));
        }
    }
    Ok(())
}

/// 70 % train, 15 % validation, 15 % test of each class.
fn three_ways(items: Vec<Item>, options: &OpenOptions) -> [Vec<Item>; 3] {
    let parts = dealt(&items, options.seed, "three splits", |n, _| {
        let held_out = partition::share(n, 0.15);
        vec![n - 2 * held_out, held_out]
    });
    let mut splits: [Vec<Item>; 3] = Default::default();
    for (item, part) in items.into_iter().zip(parts) {
        splits[part].push(item);
    }
    splits
}

fn dealt(items: &[Item], seed: u64, purpose: &str, counts: impl Fn(usize, usize) -> Vec<usize>) -> Vec<usize> {
    let names: Vec<String> = items.iter().map(|item| item.name.clone()).collect();
    let labels: Vec<usize> = items.iter().map(|item| item.label).collect();
    partition::deal(&names, &labels, seed, purpose, counts)
}

fn require_all_classes(files: &Files, labels: &[String], splits: &[Vec<Item>; 3], options: &OpenOptions) -> Result<()> {
    for (split, name) in splits.iter().zip(SPLIT_NAMES) {
        // An empty validation split can be asked for.
        if name == "val" && split.is_empty() && options.validation == 0.0 {
            continue;
        }
        if split.is_empty() {
            return Err(files.error(format!("the {name} split has no pictures")));
        }
        let seen: BTreeSet<usize> = split.iter().map(|item| item.label).collect();
        let missing: Vec<&str> = labels
            .iter()
            .enumerate()
            .filter(|(label, _)| !seen.contains(label))
            .map(|(_, name)| name.as_str())
            .collect();
        if !missing.is_empty() {
            return Err(files.error(format!("the {name} split has no picture of class {}", missing.join(", "))));
        }
    }
    Ok(())
}
