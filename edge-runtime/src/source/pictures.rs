//! JPEG and PNG pictures one after the other in a stream of bytes, as cameras and `multipart/x-mixed-replace` send them.
//!
//! Markers and chunks are walked, not searched for, so that a thumbnail inside a picture is not taken for one. What lies
//! between two pictures (part headers, garbage) is passed over. A picture that is cut off by the next one, or has a torn
//! segment, is given as broken, and the search goes on right behind its beginning: one bad picture costs one picture.

use super::{Content, Frame, Item, Source, Stop};
use crate::Error;
use std::io::{ErrorKind, Read};

/// Largest picture, bytes: far above any camera's, and what one stream may make us hold.
const LARGEST: usize = 32 << 20;

const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// The chunk that ends a PNG.
const PNG_END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
const CUT_OFF: &str = "the next one begins before its end";

/// What stands in the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A picture from its first marker to its last.
    Picture(Vec<u8>),
    /// A picture that cannot be used, and why.
    Broken(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between two pictures.
    Between,
    /// At a JPEG's marker.
    Marker,
    /// In a JPEG's entropy-coded data.
    Data,
    /// At a PNG's chunk.
    Chunk,
}

/// Cuts a stream into pictures; holds at most one.
#[derive(Debug)]
pub struct Splitter {
    /// From the first marker of the picture under way, or what may be the beginning of one.
    buffer: Vec<u8>,
    at: usize,
    phase: Phase,
}

impl Default for Splitter {
    fn default() -> Self {
        Self { buffer: Vec::new(), at: 0, phase: Phase::Between }
    }
}

impl Splitter {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next piece; none before more has come.
    pub fn piece(&mut self) -> Option<Piece> {
        loop {
            match self.phase {
                Phase::Between => {
                    let begins = |at: &usize| [JPEG, PNG].iter().any(|mark| self.buffer[*at..].starts_with(mark));
                    let start = (0..self.buffer.len()).find(begins);
                    // The last bytes may begin a picture.
                    self.forget(start.unwrap_or(self.buffer.len().saturating_sub(PNG.len() - 1)));
                    start?;
                    let png = self.buffer.starts_with(PNG);
                    (self.at, self.phase) = if png { (PNG.len(), Phase::Chunk) } else { (2, Phase::Marker) };
                }
                Phase::Data => {
                    let rest = &self.buffer[self.at..];
                    let end = rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0x00 | 0xd0..=0xd7 | 0xff));
                    match end {
                        Some(end) => (self.at, self.phase) = (self.at + end, Phase::Marker),
                        None => {
                            self.at += rest.len().saturating_sub(1);
                            return self.too_large();
                        }
                    }
                }
                Phase::Marker | Phase::Chunk => {
                    let step = if self.phase == Phase::Marker { self.marker() } else { self.chunk() };
                    match step {
                        Some(Some(piece)) => return Some(piece),
                        Some(None) => {}
                        None => return self.too_large(),
                    }
                }
            }
        }
    }

    /// What is left once the stream has ended and there are no more pieces; behind it there may be pieces again.
    pub fn rest(&mut self) -> Option<Piece> {
        (self.phase != Phase::Between).then(|| self.broken("the stream ends in the midst of it", 2))
    }

    /// One marker: a piece, or none and on; none at all before more has come.
    fn marker(&mut self) -> Option<Option<Piece>> {
        let head = self.buffer.get(self.at..self.at + 2)?;
        match (head[0], head[1]) {
            // Fill bytes.
            (0xff, 0xff) => self.at += 1,
            (0xff, 0xd9) => return Some(Some(self.picture(self.at + 2))),
            (0xff, 0xd8) => return Some(Some(self.broken(CUT_OFF, self.at))),
            (0xff, 0x01 | 0xd0..=0xd7) => self.at += 2,
            (0xff, kind) => {
                let length = self.buffer.get(self.at + 2..self.at + 4)?;
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                if length < 2 {
                    return Some(Some(self.broken("one of its segments is torn", 2)));
                }
                let end = self.at + 2 + length;
                if self.buffer.len() < end {
                    return None;
                }
                // Only what applications put in may hold a picture.
                if !matches!(kind, 0xe0..=0xef)
                    && let Some(next) = self.begins_within(self.at, end, JPEG)
                {
                    return Some(Some(self.broken(CUT_OFF, next)));
                }
                self.at = end;
                if kind == 0xda {
                    self.phase = Phase::Data;
                }
            }
            _ => return Some(Some(self.broken("one of its segments is torn", 2))),
        }
        Some(None)
    }

    /// One chunk, as [`Splitter::marker`].
    fn chunk(&mut self) -> Option<Option<Piece>> {
        let head = self.buffer.get(self.at..self.at + 8)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let last = &head[4..] == b"IEND";
        if length > LARGEST || !head[4..].iter().all(u8::is_ascii_alphabetic) {
            return Some(Some(self.broken("one of its chunks is torn", 2)));
        }
        let end = self.at + 12 + length;
        if self.buffer.len() < end {
            return None;
        }
        if let Some(next) = self.begins_within(self.at, end, PNG) {
            return Some(Some(self.broken(CUT_OFF, next)));
        }
        if last && self.buffer[self.at..end] != *PNG_END {
            return Some(Some(self.broken("its last chunk is torn", 2)));
        }
        self.at = end;
        Some(last.then(|| self.picture(end)))
    }

    /// Where a picture of a kind begins in a part of the buffer.
    fn begins_within(&self, start: usize, end: usize, mark: &[u8]) -> Option<usize> {
        self.buffer[start..end].windows(mark.len()).position(|w| w == mark).map(|at| start + at)
    }

    /// The picture under way, which ends here.
    fn picture(&mut self, end: usize) -> Piece {
        let rest = self.buffer.split_off(end);
        self.phase = Phase::Between;
        Piece::Picture(std::mem::replace(&mut self.buffer, rest))
    }

    fn too_large(&mut self) -> Option<Piece> {
        (self.buffer.len() > LARGEST).then(|| self.broken("it is larger than 32 MiB", 2))
    }

    /// Gives the picture under way up; the search goes on at `from`.
    fn broken(&mut self, why: &'static str, from: usize) -> Piece {
        self.forget(from);
        self.phase = Phase::Between;
        Piece::Broken(why)
    }

    fn forget(&mut self, bytes: usize) {
        self.buffer.drain(..bytes);
    }
}

/// Pictures out of a reader, as frames.
pub struct Pictures<R> {
    reader: R,
    splitter: Splitter,
    origin: String,
    number: u64,
    live: bool,
    ended: bool,
    /// Bytes came, and no picture yet.
    fruitless: bool,
}

impl<R: Read + Send> Pictures<R> {
    /// Frames `ORIGIN#1`, `ORIGIN#2` and so on.
    pub fn new(reader: R, origin: &str, live: bool) -> Self {
        Self {
            reader,
            splitter: Splitter::default(),
            origin: origin.into(),
            number: 0,
            live,
            ended: false,
            fruitless: false,
        }
    }

    /// Says once that bytes came and no picture was in them.
    fn nothing(&mut self) -> Option<Item> {
        let said = std::mem::take(&mut self.fruitless) && self.number == 0;
        said.then(|| {
            let reason = "it holds neither JPEG nor PNG pictures; raw frames need --raw, paths --input list".into();
            Item::Trouble(Error::Source { name: self.origin.clone(), reason })
        })
    }
}

impl<R: Read + Send> Source for Pictures<R> {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        let mut bytes = vec![0; 64 << 10];
        while !stop.is_set() {
            let rest = |splitter: &mut Splitter| if self.ended { splitter.rest() } else { None };
            if let Some(piece) = self.splitter.piece().or_else(|| rest(&mut self.splitter)) {
                self.number += 1;
                return Some(Item::Frame(piece.frame(&self.origin, self.number)));
            }
            if self.ended {
                return self.nothing();
            }
            match self.reader.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(read) => {
                    self.splitter.push(&bytes[..read]);
                    self.fruitless |= self.number == 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
        None
    }

    fn live(&self) -> bool {
        self.live
    }
}

impl Piece {
    /// The frame of a stream that it is.
    pub(super) fn frame(self, origin: &str, number: u64) -> Frame {
        let name = format!("{origin}#{number}");
        match self {
            Self::Picture(bytes) => Frame::new(name, Ok(Content::Encoded(bytes))),
            Self::Broken(why) => Frame::broken(name, why),
        }
    }
}
