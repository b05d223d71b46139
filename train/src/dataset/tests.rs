#![allow(clippy::unwrap_used)]
//! The built-in photographs, every layout as a folder and as an archive, and what each kind of damage is answered with.

use super::*;
use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io::Cursor;
use tempfile::TempDir;

fn trashnet(options: &OpenOptions) -> Dataset {
    open("trashnet", options).unwrap()
}

#[test]
fn trashnet_has_the_authors_split() {
    let data = trashnet(&OpenOptions::default());
    assert_eq!(data.labels, ["cardboard", "glass", "metal", "paper", "plastic", "trash"]);
    let counts =
        |split: &Split| -> Vec<usize> { (0..6).map(|c| split.labels.iter().filter(|l| **l == c).count()).collect() };
    assert_eq!(counts(&data.train), [287, 354, 286, 403, 347, 91]);
    assert_eq!(counts(&data.validation), [46, 65, 56, 83, 61, 17]);
    assert_eq!(counts(&data.test), [70, 82, 68, 108, 74, 29]);
    assert_eq!(data.test.names[0], "test/cardboard/cardboard105.jpg");
    assert!(data.test.names.is_sorted());
    for split in [&data.train, &data.validation, &data.test] {
        assert_eq!((split.size, split.rgb.len()), (64, split.len() * 64 * 64 * 3));
    }
    assert_eq!(data.digest.len(), 64);
    assert_eq!(data, trashnet(&OpenOptions::default()));
    data.require_training().unwrap();
    let (sum, count) = (data.train.rgb.iter().skip(1).step_by(3).map(|b| f64::from(*b)).sum::<f64>(), 1768.0 * 4096.0);
    assert!((f64::from(data.mean[1]) - sum / count / 255.0).abs() < 1e-6);
    assert!(data.std.iter().all(|s| (0.1..0.35).contains(s)));
}

#[test]
fn options_change_classes_size_and_digest() {
    let whole = trashnet(&OpenOptions::default());
    let some = trashnet(&OpenOptions { classes: Some(2), ..OpenOptions::default() });
    assert_eq!(some.labels, ["cardboard", "glass"]);
    assert_eq!((some.train.len(), some.test.len()), (287 + 354, 70 + 82));
    let small = trashnet(&OpenOptions { image_size: Some(32), ..OpenOptions::default() });
    assert_eq!(small.train.size, 32);
    assert_eq!(small.train.rgb.len(), 1768 * 32 * 32 * 3);
    assert_eq!(BTreeSet::from([&whole.digest, &some.digest, &small.digest]).len(), 3);
}

#[test]
fn validation_halves_are_disjoint_and_even_in_every_class() {
    let validation = trashnet(&OpenOptions::default()).validation;
    let (fit, rank) = split_validation(&validation, 3);
    let all: HashSet<usize> = fit.iter().chain(&rank).copied().collect();
    assert_eq!((all.len(), fit.len() + rank.len()), (328, 328));
    for class in 0..6 {
        let count = |half: &[usize]| half.iter().filter(|i| validation.labels[**i] == class).count();
        assert!(count(&fit).abs_diff(count(&rank)) <= 1);
    }
    assert!(fit.len().abs_diff(rank.len()) <= 2);
    assert_eq!(split_validation(&validation, 3), (fit.clone(), rank));
    assert_ne!(split_validation(&validation, 4).0, fit);
}

#[test]
fn subset_keeps_pictures_labels_and_names_together() {
    let test = trashnet(&OpenOptions::default()).test;
    let subset = test.subset(&[430, 0]);
    assert_eq!(subset.names, [test.names[430].clone(), test.names[0].clone()]);
    assert_eq!((subset.picture(0), subset.labels[0]), (test.picture(430), 5));
    assert_eq!(subset.picture(1), test.picture(0));
    assert_eq!(subset.to_picture(1).rgb, test.picture(0));
}

#[test]
fn senseless_options_are_refused() {
    for options in [
        OpenOptions { validation: 0.95, ..OpenOptions::default() },
        OpenOptions { validation: f64::NAN, ..OpenOptions::default() },
        OpenOptions { image_size: Some(0), ..OpenOptions::default() },
        OpenOptions { image_size: Some(100_000), ..OpenOptions::default() },
        OpenOptions { classes: Some(1), ..OpenOptions::default() },
    ] {
        assert!(matches!(open("trashnet", &options), Err(Error::Setting { .. })), "{options:?}");
    }
    assert!(
        message("trashnet", &OpenOptions { classes: Some(7), ..OpenOptions::default() }).contains("6 classes, not 7")
    );
}

// --- made-up sets ------------------------------------------------------------------------------------------------

fn message(source: &str, options: &OpenOptions) -> String {
    open(source, options).unwrap_err().to_string()
}

/// The message on opening a folder with the usual options.
fn refusal(folder: &TempDir) -> String {
    message(folder.path().to_str().unwrap(), &OpenOptions::default())
}

fn opened(folder: &TempDir, options: &OpenOptions) -> Dataset {
    open(folder.path().to_str().unwrap(), options).unwrap()
}

fn write(folder: &TempDir, name: &str, bytes: impl AsRef<[u8]>) {
    let path = folder.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A picture file of one colour.
fn picture(format: image::ImageFormat, width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image::RgbImage::from_pixel(width, height, image::Rgb(colour)).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(colour: [u8; 3]) -> Vec<u8> {
    picture(image::ImageFormat::Png, 16, 16, colour)
}

/// Packs a folder as `NAME/…` in a `.tar.gz` inside a new temporary folder.
fn packed(folder: &TempDir, name: &str) -> (TempDir, String) {
    let out = TempDir::new().unwrap();
    let path = out.path().join(format!("{name}.tar.gz"));
    let gzip = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    archive.append_dir_all(name, folder.path()).unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    (out, path.to_str().unwrap().into())
}

/// Two classes with so many pictures each, all different.
fn classes(count: usize) -> TempDir {
    let folder = TempDir::new().unwrap();
    for i in 0..count {
        write(&folder, &format!("cat/{i:02}.png"), png([i as u8, 0, 0]));
        write(&folder, &format!("dog/deep/{i:02}.PNG"), png([i as u8, 255, 0]));
    }
    folder
}

#[test]
fn class_folders_are_split_by_class_and_seed() {
    let folder = classes(20);
    write(&folder, "cat/.DS_Store", "x");
    write(&folder, "cat/notes.txt", "x");
    let data = opened(&folder, &OpenOptions::default());
    assert_eq!(data.labels, ["cat", "dog"]);
    assert_eq!((data.train.len(), data.validation.len(), data.test.len(), data.train.size), (28, 6, 6, 16));
    let names = |d: &Dataset| [&d.train, &d.validation, &d.test].map(|s| s.names.clone());
    assert_eq!(names(&data).concat().into_iter().collect::<HashSet<_>>().len(), 40);
    let other = opened(&folder, &OpenOptions { seed: 2, ..OpenOptions::default() });
    assert_ne!(names(&data), names(&other));
    for (index, name) in data.train.names.iter().enumerate() {
        let number: u8 = name[name.len() - 6..name.len() - 4].parse().unwrap();
        assert_eq!(data.train.picture(index)[..2], [number, if name.starts_with("dog") { 255 } else { 0 }]);
        assert_eq!(data.train.labels[index], usize::from(name.starts_with("dog")));
    }
}

#[test]
fn a_folder_and_its_archive_are_the_same_set() {
    let folder = classes(5);
    let (_keep, archive) = packed(&folder, "pets");
    let from_archive = open(&archive, &OpenOptions::default()).unwrap();
    assert_eq!(from_archive.name, "pets");
    assert_eq!(Dataset { name: "pets".into(), ..opened(&folder, &OpenOptions::default()) }, from_archive);
}

#[test]
fn a_zip_archive_is_the_same_set() {
    let folder = classes(5);
    let mut files = Vec::new();
    for class in ["cat", "dog/deep"] {
        for entry in fs::read_dir(folder.path().join(class)).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("pets/{class}/{}", path.file_name().unwrap().to_str().unwrap());
            files.push((name, fs::read(path).unwrap()));
        }
    }
    let held: Vec<(&str, &[u8], bool)> = files.iter().map(|(n, b)| (n.as_str(), b.as_slice(), true)).collect();
    let path = folder.path().join("pets.zip");
    fs::write(&path, zip::tests::pack(&held, false)).unwrap();
    let from_archive = open(path.to_str().unwrap(), &OpenOptions::default()).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(from_archive.name, "pets");
    assert_eq!(from_archive, Dataset { name: "pets".into(), ..opened(&folder, &OpenOptions::default()) });
}

#[test]
fn photographs_of_any_size_and_grey_ones_are_brought_to_one_form() {
    let folder = classes(4);
    write(&folder, "cat/wide.jpg", picture(image::ImageFormat::Jpeg, 90, 30, [255, 0, 0]));
    let mut grey = Cursor::new(Vec::new());
    image::GrayImage::from_pixel(20, 33, image::Luma([77])).write_to(&mut grey, image::ImageFormat::Jpeg).unwrap();
    write(&folder, "dog/grey.jpeg", grey.into_inner());
    let data = opened(&folder, &OpenOptions::default());
    assert_eq!(data.train.size, 64);
    let found = [&data.train, &data.validation, &data.test].into_iter().find_map(|split| {
        split.names.iter().position(|name| name == "dog/grey.jpeg").map(|i| split.picture(i).to_vec())
    });
    assert!(found.unwrap().iter().all(|byte| byte.abs_diff(77) <= 1));
}

#[test]
fn ready_made_splits_are_kept_and_missing_ones_made() {
    let folder = TempDir::new().unwrap();
    for class in ["a", "b"] {
        for i in 0..10 {
            write(&folder, &format!("train/{class}/{i}.png"), png([i, 0, 0]));
        }
        write(&folder, &format!("val/{class}/x.png"), png([50, 0, 0]));
    }
    let data = opened(&folder, &OpenOptions { validation: 0.2, ..OpenOptions::default() });
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (16, 4, 2));
    assert!(data.test.names.iter().all(|name| name.starts_with("val/")));
    write(&folder, "test/a/t.png", png([60, 0, 0]));
    assert!(refusal(&folder).contains("the test split has no picture of class b"));
    write(&folder, "test/b/t.png", png([60, 0, 0]));
    let data = opened(&folder, &OpenOptions::default());
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (20, 2, 2));
    write(&folder, "test/c/t.png", png([60, 0, 0]));
    assert!(refusal(&folder).contains("the train split has no picture of class c"));
}

#[test]
fn bad_class_folders_are_refused_by_name() {
    let empty = TempDir::new().unwrap();
    assert!(refusal(&empty).contains("no pictures found"));
    assert!(open("no/such/folder", &OpenOptions::default()).unwrap_err().to_string().contains("no/such/folder"));

    let folder = TempDir::new().unwrap();
    write(&folder, "cat/1.png", png([0; 3]));
    assert!(refusal(&folder).contains("one class only (cat)"));
    write(&folder, "dog/1.png", png([0; 3]));
    assert!(refusal(&folder).contains("class cat has 1 pictures"));

    let folder = classes(5);
    write(&folder, "cat/broken.jpg", "not a picture");
    assert!(refusal(&folder).contains("cat/broken.jpg"));
    let folder = classes(5);
    let whole = png([1, 2, 3]);
    write(&folder, "dog/cut.png", &whole[..whole.len() / 2]);
    assert!(refusal(&folder).contains("dog/cut.png"));
    let folder = classes(5);
    write(&folder, "cat/new.webp", "RIFF");
    assert!(refusal(&folder).contains("cat/new.webp is neither JPEG nor PNG"));
    let folder = classes(5);
    write(&folder, "loose.png", png([0; 3]));
    assert!(refusal(&folder).contains("loose.png lies in no class folder"));
    let folder = TempDir::new().unwrap();
    write(&folder, "train/a/1.png", png([0; 3]));
    write(&folder, "train/b/1.png", png([0; 3]));
    assert!(refusal(&folder).contains("neither test/ nor val/"));
}

#[test]
fn damaged_archives_are_refused() {
    let (keep, archive) = packed(&classes(5), "pets");
    let whole = fs::read(&archive).unwrap();
    for length in (0..whole.len()).step_by(97) {
        fs::write(&archive, &whole[..length]).unwrap();
        let answer = open(&archive, &OpenOptions::default()).map(|_| ());
        assert!(matches!(answer, Err(Error::Dataset { .. })), "cut at {length}: {answer:?}");
    }
    fs::write(&archive, b"PK\x03\x04rest").unwrap();
    assert!(message(&archive, &OpenOptions::default()).contains("cut short"));
    drop(keep);
}

// --- CIFAR -------------------------------------------------------------------------------------------------------

/// So many records; labels count up within their range, pixels tell record and channel.
fn records(count: usize, labels: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in 0..count {
        bytes.extend(labels.iter().map(|range| (i % range) as u8));
        for channel in 0..3u8 {
            bytes.extend((0..1024usize).map(|p| (i as u8).wrapping_add(channel * 80).wrapping_add(p as u8)));
        }
    }
    bytes
}

fn cifar10(train: bool) -> TempDir {
    let folder = TempDir::new().unwrap();
    let names = "airplane automobile bird cat deer dog frog horse ship truck".replace(' ', "\n") + "\n\n";
    write(&folder, "batches.meta.txt", names);
    write(&folder, "test_batch.bin", records(20, &[10]));
    if train {
        for i in 1..=5 {
            write(&folder, &format!("data_batch_{i}.bin"), records(20, &[10]));
        }
    }
    folder
}

#[test]
fn cifar10_opens_whole_and_for_evaluation() {
    let data = opened(&cifar10(true), &OpenOptions { validation: 0.2, ..OpenOptions::default() });
    assert_eq!((data.name.as_str(), data.labels[9].as_str()), ("cifar-10", "truck"));
    assert_eq!((data.train.len(), data.validation.len(), data.test.len(), data.train.size), (80, 20, 20, 32));
    assert_eq!(data.mean, [0.4914, 0.4822, 0.4465]);
    assert_eq!(data.test.names[3], "test_batch.bin#00003");
    assert_eq!(data.test.picture(3)[..6], [3, 83, 163, 4, 84, 164]);
    assert_eq!(data.test.labels[13], 3);

    let folder = cifar10(false);
    let (_keep, archive) = packed(&folder, "cifar-10-batches-bin");
    for data in [opened(&folder, &OpenOptions::default()), open(&archive, &OpenOptions::default()).unwrap()] {
        assert!(data.train.is_empty() && data.validation.is_empty());
        assert_eq!(data.test.len(), 20);
        assert!(data.require_training().unwrap_err().to_string().contains("data_batch_1.bin"));
    }
    let few = opened(&folder, &OpenOptions { classes: Some(3), image_size: Some(40), ..OpenOptions::default() });
    assert_eq!((few.labels.len(), few.test.len(), few.test.size, few.test.rgb.len()), (3, 6, 40, 6 * 40 * 40 * 3));
}

#[test]
fn bad_cifar_files_are_refused_with_the_place() {
    let folder = cifar10(true);
    fs::remove_file(folder.path().join("data_batch_4.bin")).unwrap();
    assert!(refusal(&folder).contains("data_batch_4.bin is missing"));

    let folder = cifar10(false);
    write(&folder, "test_batch.bin", &records(20, &[10])[..3073 * 7 + 100]);
    let text = refusal(&folder);
    assert!(text.contains("record size 3073") && text.contains("byte 21511"), "{text}");
    let mut bytes = records(20, &[10]);
    bytes[3073 * 2] = 10;
    write(&folder, "test_batch.bin", bytes);
    assert!(refusal(&folder).contains("label 10 at byte 6146 is not below 10"));
    write(&folder, "test_batch.bin", "");
    assert!(refusal(&folder).contains("record size 3073"));
    write(&folder, "test_batch.bin", records(9, &[10]));
    assert!(refusal(&folder).contains("class truck has no test picture"));
    write(&folder, "test_batch.bin", records(20, &[10]));
    write(&folder, "batches.meta.txt", "airplane\n");
    assert!(refusal(&folder).contains("names 1 classes, not 10"));
    fs::remove_file(folder.path().join("batches.meta.txt")).unwrap();
    assert!(refusal(&folder).contains("batches.meta.txt is missing"));

    let folder = TempDir::new().unwrap();
    write(&folder, "fine_label_names.txt", (0..100).map(|i| format!("c{i}\n")).collect::<String>());
    write(&folder, "train.bin", records(200, &[20, 100]));
    assert!(refusal(&folder).contains("test.bin is missing"));
    let mut bytes = records(100, &[20, 100]);
    bytes[3074 + 1] = 100;
    write(&folder, "test.bin", &bytes);
    assert!(refusal(&folder).contains("fine label 100 at byte 3075"));
    write(&folder, "test.bin", records(100, &[20, 100]));
    let data = opened(&folder, &OpenOptions { validation: 0.5, ..OpenOptions::default() });
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (100, 100, 100));
}

// --- Tiny ImageNet -----------------------------------------------------------------------------------------------

fn tiny_imagenet() -> TempDir {
    let folder = TempDir::new().unwrap();
    write(&folder, "wnids.txt", "n2\nn1\n");
    write(&folder, "words.txt", "n1\tcrane, a bird\nn2\tcrane\n");
    for i in 0..10u8 {
        for wnid in ["n1", "n2"] {
            write(
                &folder,
                &format!("train/{wnid}/images/{wnid}_{i}.JPEG"),
                picture(image::ImageFormat::Jpeg, 64, 64, [i * 20; 3]),
            );
        }
    }
    let boxes = |wnid: &str| (0..10).map(|i| format!("{wnid}_{i}.JPEG\t{i}\t0\t{}\t31\n", i + 15)).collect::<String>();
    write(&folder, "train/n1/n1_boxes.txt", boxes("n1"));
    for i in 0..2 {
        write(&folder, &format!("val/images/val_{i}.JPEG"), picture(image::ImageFormat::Jpeg, 64, 64, [100; 3]));
    }
    write(&folder, "val/val_annotations.txt", "val_0.JPEG\tn2\t0\t0\t1\t1\nval_1.JPEG\tn1\t0\t0\t1\t1\n");
    write(&folder, "test/images/test_0.JPEG", "never read");
    folder
}

#[test]
fn tiny_imagenet_takes_its_val_as_test() {
    let data = opened(&tiny_imagenet(), &OpenOptions::default());
    assert_eq!((data.name.as_str(), data.mean), ("tiny-imagenet", [0.4802, 0.4481, 0.3975]));
    assert_eq!(data.labels, ["crane (n2)", "crane (n1)"]);
    assert_eq!((data.train.len(), data.validation.len(), data.test.len(), data.train.size), (18, 2, 2, 64));
    assert_eq!(data.test.labels, [0, 1]);
}

#[test]
fn tiny_imagenet_carries_its_boxes() {
    let folder = tiny_imagenet();
    let data = opened(&folder, &OpenOptions::default());
    // Columns 0 to 1 of 64 are the fractions 0 to 2/64.
    let whole = ObjectBox { left: 0.0, top: 0.0, right: 0.03125, bottom: 0.03125 };
    assert_eq!(data.test.boxes, [Some(whole), Some(whole)]);
    for split in [&data.train, &data.validation] {
        assert_eq!(split.boxes.len(), split.len());
        for (index, name) in split.names.iter().enumerate() {
            let Some(number) = name.strip_prefix("train/n1/images/n1_").and_then(|rest| rest.strip_suffix(".JPEG"))
            else {
                assert_eq!(split.object(index), None, "n2 has no list");
                continue;
            };
            let first: f32 = number.parse().unwrap();
            let edges = [first / 64.0, 0.0, (first + 16.0) / 64.0, 0.5];
            assert_eq!(split.object(index).map(|b| [b.left, b.top, b.right, b.bottom]), Some(edges));
        }
    }
    let reversed: Vec<usize> = (0..data.train.len()).rev().collect();
    assert_eq!(data.train.subset(&reversed).object(0), data.train.object(data.train.len() - 1));
    // Boxes are no part of what a run is bound to.
    fs::remove_file(folder.path().join("train/n1/n1_boxes.txt")).unwrap();
    let without = opened(&folder, &OpenOptions::default());
    assert_eq!((without.digest, without.train.boxes.len()), (data.digest, 0));
    for wrong in ["0\t0\t64\t1", "5\t0\t4\t1", "0\t0\t1", "a\t0\t1\t1", "-1\t0\t1\t1"] {
        write(&folder, "train/n1/n1_boxes.txt", format!("n1_0.JPEG\t{wrong}\n"));
        assert!(refusal(&folder).contains("n1_boxes.txt, line 1"), "{wrong}: {}", refusal(&folder));
    }
}

#[test]
fn bad_tiny_imagenet_is_refused_with_the_line() {
    let folder = tiny_imagenet();
    write(&folder, "val/val_annotations.txt", "val_0.JPEG\tn2\t0\t0\t1\t1\nval_1.JPEG\tn9\t0\t0\t1\t1\n");
    assert!(refusal(&folder).contains("line 2: class n9"));
    write(&folder, "val/val_annotations.txt", "val_0.JPEG\n");
    assert!(refusal(&folder).contains("line 1"));
    write(&folder, "val/val_annotations.txt", "val_7.JPEG\tn2\n");
    assert!(refusal(&folder).contains("val_7.JPEG is missing"));
    write(&folder, "val/val_annotations.txt", "val_0.JPEG\tn2\n");
    assert!(refusal(&folder).contains("the test split has no picture of class crane (n1)"));
    fs::remove_file(folder.path().join("words.txt")).unwrap();
    assert!(refusal(&folder).contains("words.txt is missing"));
}

// --- the real sets, where they are at hand -----------------------------------------------------------------------

/// The path of a data set beside the repository, or a message that the test is skipped.
fn shared(name: &str) -> Option<String> {
    let path = format!("{}/../../shared/data/{name}", env!("CARGO_MANIFEST_DIR"));
    if Path::new(&path).exists() {
        return Some(path);
    }
    println!("skipped: {path} is not there");
    None
}

#[test]
fn the_real_cifar10_test_batch_opens() {
    let Some(path) = shared("cifar10-test/cifar-10-binary-test.tar.gz") else { return };
    let data = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!(data.test.len(), 10_000);
    assert!((0..10).all(|c| data.test.labels.iter().filter(|l| **l == c).count() == 1000));
    let (mean, std) = measure(&data.test);
    for c in 0..3 {
        assert!((mean[c] - data.mean[c]).abs() < 0.005 && (std[c] - data.std[c]).abs() < 0.005, "{mean:?} {std:?}");
    }
}

#[test]
fn the_real_cifar100_opens() {
    let Some(path) = shared("cifar100/cifar-100-binary.tar.gz") else { return };
    let data = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len()), (45_000, 5_000, 10_000));
    assert_eq!((data.labels[0].as_str(), data.labels[99].as_str()), ("apple", "worm"));
    let (mean, std) = measure(&data.train);
    for c in 0..3 {
        assert!((mean[c] - data.mean[c]).abs() < 0.002 && (std[c] - data.std[c]).abs() < 0.002, "{mean:?} {std:?}");
    }
}

#[test]
fn the_real_tiny_imagenet_opens() {
    let Some(path) = shared("tiny-imagenet-20/tiny-imagenet-20.tar.gz") else { return };
    let data = open(&path, &OpenOptions::default()).unwrap();
    assert_eq!((data.train.len(), data.validation.len(), data.test.len(), data.train.size), (9_000, 1_000, 1_000, 64));
    assert_eq!((data.labels[0].as_str(), data.labels[5].as_str()), ("bullfrog", "goldfish"));
    for split in [&data.train, &data.validation, &data.test] {
        assert!((0..split.len()).all(|i| split.object(i).is_some()));
    }
}
