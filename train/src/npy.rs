//! NumPy's `.npy` files: one array each, as `numpy.save` writes them (NEP 1, versions 1.0 to 3.0).
//!
//! Written: 32-bit floats, row-major. Read: bytes and whole numbers, row-major, header first and then rows on demand, so
//! that an array larger than memory can be read in parts. Sizes are checked before memory is given to them.

use crate::{Error, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Longest header that is read, bytes.
const LONGEST_HEADER: usize = 64 << 10;

/// The bytes of a file that holds `values` as 32-bit floats of the given shape.
///
/// # Panics
/// When the shape does not hold that many values.
pub fn floats(values: &[f32], shape: [usize; 2]) -> Vec<u8> {
    assert_eq!(values.len(), shape[0] * shape[1], "the shape must hold the values");
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", shape[0], shape[1]);
    // Magic, version and length are 10 bytes; the data begins at a multiple of 64, after a line feed.
    header += &" ".repeat((64 - (10 + header.len() + 1) % 64) % 64);
    header.push('\n');
    let mut bytes = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes()].concat();
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    bytes
}

/// An open array of bytes or whole numbers.
#[derive(Debug)]
pub struct Array {
    path: PathBuf,
    file: File,
    /// Length of every dimension.
    pub shape: Vec<usize>,
    /// Bytes of one value, and whether it has a sign.
    kind: (usize, bool),
    data: u64,
}

impl Array {
    /// Reads the header.
    ///
    /// # Errors
    /// [`Error::Dataset`] when the file is no such array, or is not as long as its header says.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |reason: String| Error::Dataset { path: path.into(), reason };
        let read = |source| excon_edge::Error::Read { path: path.into(), source };
        let mut file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let short = |_| refuse("it is cut short, or no NumPy array. Fetch it again".into());
        let mut start = [0u8; 8];
        file.read_exact(&mut start).map_err(short)?;
        if !start.starts_with(MAGIC) {
            return Err(refuse("it is no NumPy array (.npy)".into()));
        }
        let (size, before) = if start[6] == 1 {
            let mut size = [0u8; 2];
            file.read_exact(&mut size).map_err(short)?;
            (usize::from(u16::from_le_bytes(size)), 10)
        } else {
            let mut size = [0u8; 4];
            file.read_exact(&mut size).map_err(short)?;
            (u32::from_le_bytes(size) as usize, 12)
        };
        if size > LONGEST_HEADER {
            return Err(refuse(format!("its header is longer than {LONGEST_HEADER} bytes")));
        }
        let mut header = vec![0u8; size];
        file.read_exact(&mut header).map_err(short)?;
        let header = String::from_utf8_lossy(&header).into_owned();
        let strange = || refuse(format!("its header is not understood: {}", header.trim()));
        let (shape, kind) = parse(&header).ok_or_else(strange)?;
        let data = (before + size) as u64;
        let wanted = shape.iter().try_fold(kind.0 as u64, |n, d| n.checked_mul(*d as u64)).ok_or_else(strange)?;
        if length.checked_sub(data) != Some(wanted) {
            let reason = format!(
                "it has {length} bytes, not the {} of its shape {shape:?}. Fetch it again",
                data.saturating_add(wanted)
            );
            return Err(refuse(reason));
        }
        Ok(Self { path: path.into(), file, shape, kind, data })
    }

    /// An error about this array.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::Dataset { path: self.path.clone(), reason: reason.into() }
    }

    /// Values `start..start + count` of the flattened array, which must hold bytes.
    ///
    /// # Errors
    /// [`Error::Dataset`] when it holds other values or not so many, or cannot be read.
    pub fn bytes(&mut self, start: usize, count: usize) -> Result<Vec<u8>> {
        if self.kind != (1, false) {
            return Err(self.error("it must hold bytes"));
        }
        self.raw(start, count)
    }

    /// All values, none of which may be negative (or above 2⁶³).
    ///
    /// # Errors
    /// [`Error::Dataset`] when there is a negative one, or the file cannot be read.
    pub fn whole_numbers(&mut self) -> Result<Vec<usize>> {
        let raw = self.raw(0, self.shape.iter().product())?;
        let (width, signed) = self.kind;
        let mut values = Vec::with_capacity(raw.len() / width);
        for bytes in raw.chunks_exact(width) {
            let mut wide = if signed && bytes[width - 1] & 0x80 != 0 { [0xff; 8] } else { [0; 8] };
            wide[..width].copy_from_slice(bytes);
            let value =
                usize::try_from(i64::from_le_bytes(wide)).map_err(|_| self.error("it holds a negative value"))?;
            values.push(value);
        }
        Ok(values)
    }

    fn raw(&mut self, start: usize, count: usize) -> Result<Vec<u8>> {
        let all: usize = self.shape.iter().product();
        if start.checked_add(count).is_none_or(|end| end > all) {
            return Err(self.error(format!("it holds {all} values, not {} more from {start}", count)));
        }
        let mut bytes = vec![0u8; count * self.kind.0];
        let from = SeekFrom::Start(self.data + (start * self.kind.0) as u64);
        let read = self.file.seek(from).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|source| excon_edge::Error::Read { path: self.path.clone(), source })?;
        Ok(bytes)
    }
}

/// Shape, bytes a value and sign, from the header of an array that is understood.
fn parse(header: &str) -> Option<(Vec<usize>, (usize, bool))> {
    let after = |key: &str| header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
    if !after("fortran_order")?.starts_with("False") {
        return None;
    }
    let (kind, _) = after("descr")?.strip_prefix('\'')?.split_once('\'')?;
    let kind = match kind {
        "|u1" => (1, false),
        "|i1" => (1, true),
        "<u2" => (2, false),
        "<i2" => (2, true),
        "<u4" => (4, false),
        "<i4" => (4, true),
        "<u8" => (8, false),
        "<i8" => (8, true),
        _ => return None,
    };
    let (shape, _) = after("shape")?.strip_prefix('(')?.split_once(')')?;
    let numbers = shape.split(',').map(str::trim).filter(|n| !n.is_empty());
    Some((numbers.map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>()?, kind))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What `numpy.save` writes for `numpy.array([[1.5, -2.0, 0.25]], dtype=numpy.float32)` (numpy 2.4.6).
    #[test]
    fn floats_are_numpys_own_bytes() {
        let mut expected =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 3), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend([0, 0, 0xc0, 0x3f, 0, 0, 0, 0xc0, 0, 0, 0x80, 0x3e]);
        assert_eq!(floats(&[1.5, -2.0, 0.25], [1, 3]), expected);
        assert_eq!(floats(&[], [0, 7]).len() % 64, 0);
    }

    fn file(descr: &str, shape: &str, data: &[u8]) -> tempfile::NamedTempFile {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let file = tempfile::NamedTempFile::new().unwrap();
        let start = [MAGIC, &[1, 0], &(header.len() as u16).to_le_bytes(), header.as_bytes(), data].concat();
        std::fs::write(file.path(), start).unwrap();
        file
    }

    #[test]
    fn bytes_are_read_in_parts_and_numbers_of_every_width() {
        let held = file("|u1", "(2, 3)", &[1, 2, 3, 4, 5, 255]);
        let mut array = Array::open(held.path()).unwrap();
        assert_eq!(array.shape, [2, 3]);
        assert_eq!(array.bytes(3, 3).unwrap(), [4, 5, 255]);
        assert!(array.bytes(4, 3).is_err());
        assert_eq!(array.whole_numbers().unwrap(), [1, 2, 3, 4, 5, 255]);
        let held = file("<i8", "(2,)", &[7, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Array::open(held.path()).unwrap().whole_numbers().unwrap(), [7, 257]);
        let held = file("<u2", "(1,)", &[255, 255]);
        assert_eq!(Array::open(held.path()).unwrap().whole_numbers().unwrap(), [65535]);
        let held = file("<i4", "(1,)", &[255; 4]);
        assert!(Array::open(held.path()).unwrap().whole_numbers().unwrap_err().to_string().contains("negative"));
        assert!(Array::open(held.path()).unwrap().bytes(0, 1).is_err());
    }

    #[test]
    fn files_that_are_no_such_array_are_refused() {
        for (descr, shape, data, said) in [
            ("|u1", "(2, 3)", &[1u8, 2][..], "not the"),
            ("|u1", "(2, 3)", &[0; 7][..], "not the"),
            ("<f4", "(1,)", &[0; 4][..], "not understood"),
            ("|O", "(1,)", &[0; 4][..], "not understood"),
            ("|u1", "(99999999999, 99999999999)", &[][..], "not understood"),
            ("|u1", "(-1,)", &[][..], "not understood"),
        ] {
            let text = Array::open(file(descr, shape, data).path()).unwrap_err().to_string();
            assert!(text.contains(said), "{descr} {shape}: {text}");
        }
        let whole = std::fs::read(file("|u1", "(4,)", &[1, 2, 3, 4]).path()).unwrap();
        for length in 0..whole.len() {
            let cut = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(cut.path(), &whole[..length]).unwrap();
            assert!(Array::open(cut.path()).is_err(), "cut at {length}");
        }
    }
}
