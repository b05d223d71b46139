//! A list of paths, one a line, as `find` and `ls` write it. Whoever writes the list waits until its frames are taken.

use super::{Frame, Item, Source, Stop};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

/// Longest line, bytes: four times what Linux allows for a path.
const LONGEST: u64 = 16 << 10;

/// See the module's first paragraph.
pub struct List<R> {
    lines: BufReader<R>,
}

impl<R: Read + Send> List<R> {
    /// Paths out of a reader; relative ones are relative to the working folder.
    pub fn new(reader: R) -> Self {
        Self { lines: BufReader::new(reader) }
    }
}

impl<R: Read + Send> Source for List<R> {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        loop {
            let mut line = Vec::new();
            let read = (&mut self.lines).take(LONGEST).read_until(b'\n', &mut line);
            if stop.is_set() || matches!(read, Ok(0) | Err(_)) {
                return None;
            }
            let ended = line.last() == Some(&b'\n');
            while matches!(line.last(), Some(b'\n' | b'\r')) {
                line.pop();
            }
            // Names are shown in terminals.
            let name: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
            if !ended && line.len() as u64 >= LONGEST {
                return Some(Item::Frame(Frame::broken("a line of the list".into(), "it is longer than any path")));
            }
            if !name.trim().is_empty() {
                return Some(Item::Frame(Frame::file(name, path(line))));
            }
        }
    }

    fn live(&self) -> bool {
        false
    }
}

#[cfg(unix)]
fn path(line: Vec<u8>) -> PathBuf {
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(line);
    name.into()
}

#[cfg(not(unix))]
fn path(line: Vec<u8>) -> PathBuf {
    String::from_utf8_lossy(&line).into_owned().into()
}
