#![allow(clippy::unwrap_used)]
//! `labels.csv` and `pairs.csv`: what they give, and what each kind of mistake is answered with.

use super::*;
use std::fs;
use tempfile::TempDir;

/// A small picture of one colour.
fn picture(path: &Path, colour: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let bytes = excon_edge::page::png(&Picture { width: 8, height: 8, rgb: vec![colour; 192] }).unwrap();
    fs::write(path, bytes).unwrap();
}

fn options() -> OpenOptions {
    OpenOptions { image_size: Some(8), ..OpenOptions::default() }
}

fn opened(folder: &Path) -> Result<Dataset> {
    open(folder.to_str().unwrap(), &options())
}

/// Twenty pictures with sets of the labels `a b`, `c` and `d`, in no folder of a class.
fn sets(folder: &Path) -> String {
    let mut table = "picture,labels\n".to_string();
    for i in 0..20u8 {
        picture(&folder.join(format!("photos/{i:02}.png")), i);
        let labels = ["", "c", "\"a b;c\"", "d; a b", "d;c;a b"][usize::from(i) % 5];
        table += &format!("photos/{i:02}.png,{labels}\n");
    }
    table
}

#[test]
fn sets_of_labels_are_read_and_divided() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("labels.csv"), sets(folder.path())).unwrap();
    let data = opened(folder.path()).unwrap();
    assert!(data.is_multi_label());
    assert_eq!(data.labels, ["a b", "c", "d"]);
    assert_eq!([&data.train, &data.validation, &data.test].map(Split::len), [14, 3, 3]);
    for split in [&data.train, &data.validation, &data.test] {
        assert_eq!((split.sets.len(), &split.labels), (split.len(), &vec![0; split.len()]));
        for (i, name) in split.names.iter().enumerate() {
            let number = split.picture(i)[0];
            assert_eq!(*name, format!("photos/{number:02}.png"));
            let want: &[usize] = [&[][..], &[1], &[0, 1], &[0, 2], &[0, 1, 2]][usize::from(number) % 5];
            assert_eq!(split.sets[i], want);
        }
    }
    assert_eq!(data.train.subset(&[3, 0]).sets, [data.train.sets[3].clone(), data.train.sets[0].clone()]);
    assert_eq!(data, opened(folder.path()).unwrap());
    // Another label is another data set, though no pixel has changed.
    let table = sets(folder.path()).replace("00.png,\n", "00.png,d\n");
    fs::write(folder.path().join("labels.csv"), table).unwrap();
    assert_ne!(opened(folder.path()).unwrap().digest, data.digest);
    let fewer = open(folder.path().to_str().unwrap(), &OpenOptions { classes: Some(2), ..options() }).unwrap();
    assert_eq!(fewer.labels, ["a b", "c"]);
    assert!(fewer.train.sets.iter().flatten().all(|label| *label < 2));
}

#[test]
fn sets_keep_the_splits_of_their_folders_and_read_from_an_archive() {
    let folder = TempDir::new().unwrap();
    let top = folder.path().join("set");
    let mut table = "labels,picture\n".to_string();
    for i in 0..12u8 {
        let name = format!("{}/{i:02}.png", ["train", "train", "val", "test"][usize::from(i) % 4]);
        picture(&top.join(&name), i);
        table += &format!("{},{name}\n", ["x", "x;y", "y", "x"][usize::from(i) % 4]);
    }
    fs::write(top.join("labels.csv"), table).unwrap();
    let data = opened(&top).unwrap();
    assert_eq!([&data.train, &data.validation, &data.test].map(Split::len), [6, 3, 3]);
    assert!(data.train.names.iter().all(|name| name.starts_with("train/")));

    let archive = folder.path().join("set.tar");
    let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
    builder.append_dir_all("set", &top).unwrap();
    builder.finish().unwrap();
    assert_eq!(opened(&archive).unwrap().digest, data.digest);
}

#[test]
fn mistakes_in_labels_are_named_with_their_line() {
    let folder = TempDir::new().unwrap();
    let good = sets(folder.path());
    for (from, to, words) in [
        ("picture,labels", "picture,tags", "\"tags\""),
        ("picture,labels", "picture", "\"labels\" is missing"),
        ("photos/03.png", "photos/99.png", "line 5"),
        ("photos/03.png", "photos/04.png", "twice"),
        ("photos/03.png", "labels.csv", "neither JPEG nor PNG"),
        ("photos/01.png,c", "photos/01.png,c,d", "line 3: 3 fields"),
        ("photos/01.png,c", "photos/01.png,\"c", "line 3: a quoted field"),
        ("d", "c", "class"),
    ] {
        let table = if from == "d" {
            "picture,labels\nphotos/00.png,c\nphotos/01.png,c\n".into()
        } else {
            good.replacen(from, to, 1)
        };
        fs::write(folder.path().join("labels.csv"), table).unwrap();
        let error = opened(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Dataset { .. }) && error.to_string().contains(words), "{to}: {error}");
    }
    fs::write(folder.path().join("labels.csv"), "").unwrap();
    assert!(opened(folder.path()).unwrap_err().to_string().contains("no header"));
}

/// Two classes of ten pictures, and a positive for the even ones, brighter by a hundred.
fn paired(folder: &Path) -> String {
    let mut table = "picture,positive,label,share\n".to_string();
    for i in 0..20u8 {
        let name = format!("{}/{i:02}.png", ["cat", "dog"][usize::from(i) / 10]);
        picture(&folder.join(&name), i);
        if i % 2 == 0 {
            picture(&folder.join(format!("made/{i:02}.png")), 100 + i);
            table += &format!("{name},made/{i:02}.png,{}\n", if i == 4 { "dog,0.25" } else { "," });
        }
    }
    table
}

#[test]
fn pairs_are_positives_of_training_pictures_only() {
    let folder = TempDir::new().unwrap();
    let table = paired(folder.path());
    fs::write(folder.path().join("pairs.csv"), &table).unwrap();
    let data = opened(folder.path()).unwrap();
    assert_eq!(data.labels, ["cat", "dog"], "positives are no class");
    let pairs = data.pairs.as_ref().unwrap();
    let all = [&data.train, &data.validation, &data.test];
    assert_eq!(all.iter().map(|s| s.len()).sum::<usize>(), 20);
    assert_eq!(pairs.of.len(), data.train.len());
    for (index, positives) in pairs.of.iter().enumerate() {
        let number = data.train.picture(index)[0];
        assert_eq!(positives.len(), usize::from(number.is_multiple_of(2)));
        for &positive in positives {
            assert_eq!(pairs.pictures.picture(positive)[0], 100 + number);
            assert_eq!(pairs.pictures.labels[positive], data.train.labels[index]);
            assert_eq!(pairs.towards[positive], (number == 4).then_some((1, 0.25)));
        }
    }
    assert!(pairs.pictures.len() < 10, "some of the ten belong to pictures that are held out");
    // They are part of what the data set is.
    picture(&folder.path().join(&pairs.pictures.names[0]), 250);
    assert_ne!(opened(folder.path()).unwrap().digest, data.digest);
    fs::remove_file(folder.path().join("pairs.csv")).unwrap();
    assert!(opened(folder.path()).unwrap().pairs.is_none());
}

#[test]
fn mistakes_in_pairs_are_named_with_their_line() {
    let folder = TempDir::new().unwrap();
    let good = paired(folder.path());
    // Not divided into splits by folders, so that this is a class of its own.
    ["a", "b", "c"].iter().for_each(|name| picture(&folder.path().join(format!("test/cat/{name}.png")), 1));
    for (from, to, words) in [
        ("cat/02.png", "cat/99.png", "line 3"),
        ("made/02.png", "made/99.png", "made/99.png"),
        ("made/02.png", "test/cat/a.png", "held out"),
        ("made/02.png", "cat/00.png", "cat/00.png is a positive"),
        ("dog,0.25", "dog,1.25", "line 4"),
        ("dog,0.25", ",0.25", "need each other"),
        ("dog,0.25", "horse,0.25", "\"horse\""),
        ("positive", "twin", "\"twin\""),
    ] {
        fs::write(folder.path().join("pairs.csv"), good.replacen(from, to, 1)).unwrap();
        let error = opened(folder.path()).unwrap_err();
        assert!(error.to_string().contains(words), "{to}: {error}");
    }
}
