//! The published files of CIFAR-10-C and CIFAR-100-C: an array `NAME.npy` a corruption, 50,000 × 32 × 32 × 3 bytes, the
//! severities one after the other, each in the order of the test set; and `labels.npy`, likewise.

use super::Corruption;
use crate::dataset::Split;
use crate::evaluate::{Origin, SEVERITIES, Source};
use crate::npy::Array;
use crate::{Error, Result};
use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Bytes of one picture.
const PICTURE: usize = 32 * 32 * 3;

/// The corrupted forms of a split of CIFAR's test pictures, read one severity at a time.
pub struct Published<'a> {
    folder: PathBuf,
    split: &'a Split,
    /// Place of each picture of the split in the test set.
    rows: Vec<usize>,
    /// Pictures of a severity.
    count: usize,
}

impl<'a> Published<'a> {
    /// Opens the folder for a split, any part of the test pictures; labels must agree.
    ///
    /// # Errors
    /// [`Error::Dataset`] when the folder is of another data set, or a file is missing or damaged.
    pub fn open(folder: &Path, split: &'a Split) -> Result<Self> {
        let refuse = |reason: String| Error::Dataset { path: folder.into(), reason };
        let place = |name: &String| {
            let (file, row) = name.rsplit_once('#')?;
            row.parse::<usize>().ok().filter(|_| file.starts_with("test"))
        };
        let rows: Option<Vec<usize>> = split.names.iter().map(place).collect();
        let rows = rows.filter(|rows| !rows.is_empty()).ok_or_else(|| {
            refuse(
                "published corruptions are those of the test pictures of CIFAR-10 and CIFAR-100, which these are not"
                    .into(),
            )
        })?;
        let labels = Array::open(&folder.join("labels.npy"))?.whole_numbers()?;
        let count = labels.len() / SEVERITIES;
        let agrees = |row: usize, label: usize| (0..SEVERITIES).all(|s| labels.get(s * count + row) == Some(&label));
        let wrong = rows.iter().zip(&split.labels).find(|(row, label)| **row >= count || !agrees(**row, **label));
        if let Some((row, label)) = wrong {
            return Err(refuse(format!(
                "its labels are not those of this test set: picture {row} has class {label} there. CIFAR-10-C belongs to \
                 CIFAR-10, CIFAR-100-C to CIFAR-100"
            )));
        }
        let published = Self { folder: folder.into(), split, rows, count };
        if published.corruptions().is_empty() {
            return Err(refuse("it holds no array of a corruption, such as fog.npy".into()));
        }
        Ok(published)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.npy"))
    }
}

impl Source for Published<'_> {
    fn origin(&self) -> Origin {
        Origin::Published
    }

    fn corruptions(&self) -> Vec<String> {
        let names = Corruption::ALL.into_iter().filter_map(Corruption::benchmark_name);
        names.filter(|name| self.file(name).is_file()).map(String::from).collect()
    }

    fn pictures(&self, corruption: &str, severity: usize) -> Result<Cow<'_, Split>> {
        let mut array = Array::open(&self.file(corruption))?;
        if array.shape != [SEVERITIES * self.count, 32, 32, 3] {
            let reason = format!("it has the shape {:?}, not {} × 32 × 32 × 3", array.shape, SEVERITIES * self.count);
            return Err(array.error(reason));
        }
        let block = array.bytes((severity - 1) * self.count * PICTURE, self.count * PICTURE)?;
        let mut rgb = Vec::with_capacity(self.rows.len() * PICTURE);
        for row in &self.rows {
            rgb.extend_from_slice(&block[row * PICTURE..(row + 1) * PICTURE]);
        }
        let (labels, names) = (self.split.labels.clone(), self.split.names.clone());
        Ok(Cow::Owned(Split { size: 32, rgb, labels, names, ..Split::default() }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn npy(path: PathBuf, shape: &str, data: &[u8]) {
        let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n");
        let length = (header.len() as u16).to_le_bytes();
        fs::write(path, [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()).unwrap();
    }

    /// Three pictures; the byte of a picture tells severity and place.
    fn files(labels: [u8; 3]) -> TempDir {
        let folder = TempDir::new().unwrap();
        npy(folder.path().join("labels.npy"), "(15,)", &labels.repeat(5));
        let bytes: Vec<u8> = (0..15u8).flat_map(|i| vec![10 * (i / 3 + 1) + i % 3; PICTURE]).collect();
        npy(folder.path().join("fog.npy"), "(15, 32, 32, 3)", &bytes);
        npy(folder.path().join("frost.npy"), "(15, 32, 32, 3)", &bytes);
        folder
    }

    fn split(rows: &[usize]) -> Split {
        let names = rows.iter().map(|row| format!("test_batch.bin#{row:05}")).collect();
        // A network may be fed at another size; the published files keep theirs.
        Split { size: 64, labels: rows.iter().map(|row| row + 4).collect(), names, ..Split::default() }
    }

    #[test]
    fn pictures_of_a_severity_come_in_the_order_of_the_split() {
        let (folder, split) = (files([4, 5, 6]), split(&[2, 0]));
        let published = Published::open(folder.path(), &split).unwrap();
        assert_eq!(published.corruptions(), ["frost", "fog"]);
        for severity in [1, 5] {
            let found = published.pictures("fog", severity).unwrap();
            assert_eq!((found.size, found.len(), &found.labels), (32, 2, &split.labels));
            let tens = 10 * severity as u8;
            assert!(found.picture(0).iter().all(|b| *b == tens + 2) && found.picture(1).iter().all(|b| *b == tens));
        }
    }

    #[test]
    fn files_of_another_set_and_other_pictures_are_refused() {
        let refusal =
            |labels, split: &Split| Published::open(files(labels).path(), split).map(|_| ()).unwrap_err().to_string();
        assert!(refusal([4, 5, 7], &split(&[0, 2])).contains("CIFAR-10-C belongs to"));
        assert!(refusal([4, 5, 6], &split(&[3])).contains("CIFAR-10-C belongs to"));
        let own = Split { names: vec!["cat/1.jpg".into()], labels: vec![4], ..Split::default() };
        assert!(refusal([4, 5, 6], &own).contains("which these are not"));
        let train = Split { names: vec!["data_batch_1.bin#00000".into()], labels: vec![4], ..Split::default() };
        assert!(refusal([4, 5, 6], &train).contains("which these are not"));
        let (folder, split) = (files([4, 5, 6]), split(&[0]));
        npy(folder.path().join("fog.npy"), "(3, 32, 32, 3)", &[0; 3 * PICTURE]);
        let published = Published::open(folder.path(), &split).unwrap();
        assert!(published.pictures("fog", 1).unwrap_err().to_string().contains("shape"));
        fs::remove_file(folder.path().join("labels.npy")).unwrap();
        assert!(Published::open(folder.path(), &split).is_err());
    }
}
