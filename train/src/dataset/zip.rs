//! The files in a zip archive, by its central directory: stored or deflated, ZIP64 included, encrypted ones refused.
//!
//! Sizes and checksums are those of the directory; a file that inflates to another size or checksum is an error of the
//! reader that hands it out.

use flate2::Crc;
use flate2::read::DeflateDecoder;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom};

/// How a zip archive begins.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";
/// Longest central directory that is read, bytes.
const LONGEST_DIRECTORY: u64 = 1 << 30;
/// End of central directory, its longest comment included.
const LONGEST_END: u64 = 22 + 0xffff;
/// Stands for a value that ZIP64 holds elsewhere.
const ELSEWHERE: u32 = u32::MAX;

fn damaged(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_string())
}

/// Little-endian numbers at a place of a record.
struct Record<'a>(&'a [u8]);

impl Record<'_> {
    fn u16(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[at], self.0[at + 1]]))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| self.0[at + i]))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.0[at + i]))
    }
}

/// One file of the archive.
struct Entry {
    name: Vec<u8>,
    encrypted: bool,
    method: usize,
    crc: u32,
    packed: u64,
    size: u64,
    offset: u64,
}

/// Calls `see` with the name's bytes and the content of each file, in the order of the directory, until it says no.
///
/// # Errors
/// When the archive is damaged or uses what is not understood; and those of `see`.
pub(super) fn each_file<E: From<Error>>(
    mut file: impl Read + Seek,
    mut see: impl FnMut(&[u8], &mut dyn Read) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    for entry in directory(&mut file)? {
        let folder = entry.name.ends_with(b"/");
        if folder {
            continue;
        }
        if entry.encrypted {
            return Err(damaged("a file in it is encrypted").into());
        }
        file.seek(SeekFrom::Start(entry.offset)).map_err(E::from)?;
        let mut head = [0u8; 30];
        file.read_exact(&mut head).map_err(E::from)?;
        if !head.starts_with(MAGIC) {
            return Err(damaged("its directory points to no file").into());
        }
        let head = Record(&head);
        let skip = (head.u16(26) + head.u16(28)) as i64;
        file.seek(SeekFrom::Current(skip)).map_err(E::from)?;
        let packed = (&mut file).take(entry.packed);
        let content: Box<dyn Read + '_> = match entry.method {
            0 => Box::new(packed),
            8 => Box::new(DeflateDecoder::new(packed)),
            other => return Err(damaged(&format!("a file in it is packed by method {other}")).into()),
        };
        let mut checked = Checked { content, crc: Crc::new(), left: entry.size, wanted: entry.crc };
        if !see(&entry.name, &mut checked)? {
            return Ok(());
        }
    }
    Ok(())
}

fn directory(file: &mut (impl Read + Seek)) -> Result<Vec<Entry>> {
    let length = file.seek(SeekFrom::End(0))?;
    let start = length.saturating_sub(LONGEST_END);
    let tail = read_at(file, start, length - start)?;
    let sign = |bytes: &[u8]| bytes.starts_with(b"PK\x05\x06");
    let end = (0..tail.len().saturating_sub(21)).rev().find(|&at| sign(&tail[at..]));
    let at = end.ok_or_else(|| damaged("it has no directory: it is cut short"))?;
    let record = Record(&tail[at..]);
    let (mut count, mut size, mut offset) =
        (record.u16(10) as u64, u64::from(record.u32(12)), u64::from(record.u32(16)));
    let place = start + at as u64;
    if (count == 0xffff || offset == u64::from(ELSEWHERE) || size == u64::from(ELSEWHERE)) && place >= 20 {
        let locator = read_at(file, place - 20, 20)?;
        if locator.starts_with(b"PK\x06\x07") {
            let record = read_at(file, Record(&locator).u64(8), 56)?;
            if !record.starts_with(b"PK\x06\x06") {
                return Err(damaged("its ZIP64 directory is missing"));
            }
            let record = Record(&record);
            (count, size, offset) = (record.u64(32), record.u64(40), record.u64(48));
        }
    }
    if size > LONGEST_DIRECTORY {
        return Err(damaged("its directory is too long"));
    }
    let bytes = read_at(file, offset, size)?;
    let mut rest = bytes.as_slice();
    let mut entries = Vec::new();
    for _ in 0..count {
        let short = || damaged("its directory is cut short");
        if rest.len() < 46 || !rest.starts_with(b"PK\x01\x02") {
            return Err(short());
        }
        let record = Record(rest);
        let (name, extra, comment) = (record.u16(28), record.u16(30), record.u16(32));
        let whole = 46 + name + extra + comment;
        if rest.len() < whole {
            return Err(short());
        }
        let mut entry = Entry {
            name: rest[46..46 + name].to_vec(),
            encrypted: record.u16(8) & 1 == 1,
            method: record.u16(10),
            crc: record.u32(16),
            packed: record.u32(20).into(),
            size: record.u32(24).into(),
            offset: record.u32(42).into(),
        };
        entry.widen(&rest[46 + name..46 + name + extra])?;
        entries.push(entry);
        rest = &rest[whole..];
    }
    Ok(entries)
}

impl Entry {
    /// Takes the values that stand in the ZIP64 field, in the order size, packed size, offset.
    fn widen(&mut self, mut extra: &[u8]) -> Result<()> {
        while extra.len() >= 4 {
            let (kind, length) = (Record(extra).u16(0), Record(extra).u16(2));
            let Some(field) = extra.get(4..4 + length) else { return Err(damaged("its directory is cut short")) };
            if kind == 1 {
                let mut values = field.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
                for value in [&mut self.size, &mut self.packed, &mut self.offset] {
                    if *value == u64::from(ELSEWHERE) {
                        *value = values.next().ok_or_else(|| damaged("its ZIP64 field is cut short"))?;
                    }
                }
            }
            extra = &extra[4 + length..];
        }
        Ok(())
    }
}

fn read_at(file: &mut (impl Read + Seek), start: u64, length: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(damaged("it is cut short")) }
}

/// Content that must have the size and checksum of the directory.
struct Checked<'a> {
    content: Box<dyn Read + 'a>,
    crc: Crc,
    left: u64,
    wanted: u32,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let n = self.content.read(buffer)?;
        self.crc.update(&buffer[..n]);
        self.left =
            self.left.checked_sub(n as u64).ok_or_else(|| damaged("a file is longer than the directory says"))?;
        if n == 0 && !buffer.is_empty() && (self.left > 0 || self.crc.sum() != self.wanted) {
            return Err(damaged("the checksum is wrong"));
        }
        Ok(n)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Cursor, Write};

    /// A zip archive of some files, deflated where asked; with `wide`, sizes, offsets and counts stand in ZIP64 records.
    pub fn pack(files: &[(&str, &[u8], bool)], wide: bool) -> Vec<u8> {
        let (mut out, mut directory) = (Vec::new(), Vec::new());
        for (name, content, deflated) in files {
            let mut crc = Crc::new();
            crc.update(content);
            let packed = if *deflated {
                let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            } else {
                content.to_vec()
            };
            let method = if *deflated { 8u16 } else { 0 };
            let offset = out.len();
            let sizes = [packed.len() as u32, content.len() as u32].map(u32::to_le_bytes).concat();
            let start = [&[20u8, 0, 0, 0][..], &method.to_le_bytes(), &[0; 4], &crc.sum().to_le_bytes()].concat();
            let length = (name.len() as u16).to_le_bytes();
            out.extend([MAGIC, &start, &sizes, &length, &[0, 0], name.as_bytes(), &packed].concat());
            let extra = if wide {
                let values = [content.len(), packed.len(), offset].map(|v| (v as u64).to_le_bytes()).concat();
                [&[1u8, 0, 24, 0][..], &values].concat()
            } else {
                Vec::new()
            };
            let (sizes, offset) = if wide { (vec![255; 8], [255; 4]) } else { (sizes, (offset as u32).to_le_bytes()) };
            let extra_length = (extra.len() as u16).to_le_bytes();
            let record =
                [b"PK\x01\x02\x14\x00", &start[..], &sizes, &length, &extra_length, &[0; 10], &offset].concat();
            directory.extend([&record[..], name.as_bytes(), &extra].concat());
        }
        let (count, size, offset) = (files.len(), directory.len(), out.len());
        out.extend(directory);
        if wide {
            let place = out.len() as u64;
            let numbers = [count, count, size, offset].map(|v| (v as u64).to_le_bytes()).concat();
            out.extend([&b"PK\x06\x06"[..], &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8], &numbers].concat());
            out.extend([&b"PK\x06\x07"[..], &[0; 4], &place.to_le_bytes(), &[1, 0, 0, 0]].concat());
        }
        let numbers = if wide {
            vec![255; 12]
        } else {
            let counts = (count as u16).to_le_bytes();
            [&counts[..], &counts, &(size as u32).to_le_bytes(), &(offset as u32).to_le_bytes()].concat()
        };
        out.extend([&b"PK\x05\x06"[..], &[0; 4], &numbers, &[3, 0], b"end"].concat());
        out
    }

    fn files(archive: &[u8]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        each_file::<Error>(Cursor::new(archive), |name, content| {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            found.push((String::from_utf8_lossy(name).into_owned(), bytes));
            Ok(true)
        })?;
        Ok(found)
    }

    #[test]
    fn stored_deflated_and_zip64_files_come_out_as_they_went_in() {
        let long: Vec<u8> = (0..70_000u32).map(|i| (i % 251) as u8).collect();
        let held = [("a/b.txt", &b"hello"[..], false), ("a/", b"", false), ("c.bin", &long, true)];
        for wide in [false, true] {
            let found = files(&pack(&held, wide)).unwrap();
            assert_eq!(found, [("a/b.txt".to_string(), b"hello".to_vec()), ("c.bin".to_string(), long.clone())]);
        }
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let whole = pack(&[("a.txt", b"hello", false), ("b.txt", b"hello hello hello", true)], true);
        for length in 0..whole.len() - 3 {
            assert!(files(&whole[..length]).is_err(), "cut at {length}");
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            // A time stamp may change without harm; contents may not.
            if let Ok(found) = files(&bytes) {
                assert!(found.iter().all(|(_, content)| content.starts_with(b"hello")), "byte {at}");
            }
        }
    }
}
