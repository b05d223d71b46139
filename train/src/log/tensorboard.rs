//! TensorBoard event files: `events.out.tfevents.TIME.PID.excon`, one for each process that worked on a run.
//!
//! A file is a sequence of records `length, crc(length), bytes, crc(bytes)` (little-endian; the TFRecord framing), whose
//! bytes are `tensorflow.Event` messages. A resumed run opens a new file that begins with a session start at the step it
//! goes on from, so that TensorBoard forgets what came after it in earlier files.

use crate::checkpoint::append;
use crate::{Error, Result};
use prost::Message;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const PREFIX: &str = "events.out.tfevents.";
const SUFFIX: &str = ".excon";

/// `tensorflow.Event`, the fields that are used.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

/// `tensorflow.Summary`.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `tensorflow.Summary.Value` with a plain number.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, tag = "2")]
    simple_value: f32,
}

/// `tensorflow.SessionLog`; status 1 is a start.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// An event file and what is not yet in it.
pub struct EventFile {
    path: PathBuf,
    pending: Vec<u8>,
}

impl EventFile {
    /// A new file in the folder, for steps after `step`.
    pub fn create(folder: &Path, step: i64) -> Result<Self> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let path = folder.join(format!("{PREFIX}{seconds:010}.{}{SUFFIX}", std::process::id()));
        let mut file = Self { path, pending: Vec::new() };
        file.push(Event { file_version: Some("brain.Event:2".into()), ..Event::default() });
        if step > 0 {
            file.push(Event { step: step + 1, session_log: Some(SessionLog { status: 1 }), ..Event::default() });
        }
        file.flush()?;
        Ok(file)
    }

    /// Removes the files of an earlier run.
    pub fn remove_all(folder: &Path) -> Result<()> {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|source| Error::Edge(excon_edge::Error::Write { path, source }))?;
            }
        }
        Ok(())
    }

    /// Adds numbers of one step, to be written by [`Self::flush`].
    pub fn add(&mut self, step: i64, scalars: &[(&str, f64)]) {
        let value = |(tag, value): &(&str, f64)| Value { tag: tag.to_string(), simple_value: *value as f32 };
        let summary = Summary { value: scalars.iter().map(value).collect() };
        self.push(Event { step, summary: Some(summary), ..Event::default() });
    }

    /// Appends what is pending.
    pub fn flush(&mut self) -> Result<()> {
        append(&self.path, &std::mem::take(&mut self.pending))
    }

    fn push(&mut self, event: Event) {
        let wall_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let bytes = Event { wall_time, ..event }.encode_to_vec();
        let length = (bytes.len() as u64).to_le_bytes();
        self.pending.extend(length);
        self.pending.extend(masked_crc(&length).to_le_bytes());
        self.pending.extend(&bytes);
        self.pending.extend(masked_crc(&bytes).to_le_bytes());
    }
}

/// CRC-32C, rotated and offset as the framing asks, so that the checksum of a checksum is not trivial.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli), bit by bit: a few hundred bytes a step.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Reads a file back, checking both checksums of each record.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut events = vec![];
        let number = |b: &[u8]| u32::from_le_bytes(b.try_into().unwrap());
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(number(&rest[8..12]), masked_crc(&rest[..8]));
            let body = &rest[12..12 + length];
            assert_eq!(number(&rest[12 + length..16 + length]), masked_crc(body));
            events.push(Event::decode(body).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    #[test]
    fn checksums_equal_the_published_ones() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn a_resumed_run_says_where_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(folder.path(), 0).unwrap();
        file.add(3, &[("step/loss", 0.5), ("step/learning rate", 0.25)]);
        file.flush().unwrap();
        let events = read(&file.path);
        assert_eq!(events.len(), 2);
        assert_eq!(events[0].file_version.as_deref(), Some("brain.Event:2"));
        let values = &events[1].summary.as_ref().unwrap().value;
        assert_eq!((events[1].step, values.len(), values[1].simple_value), (3, 2, 0.25));
        assert_eq!(values[0].tag, "step/loss");

        let resumed = EventFile::create(folder.path(), 12).unwrap();
        let events = read(&resumed.path);
        let last = events.last().unwrap();
        assert_eq!((last.step, last.session_log.as_ref().unwrap().status), (13, 1));
        EventFile::remove_all(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
