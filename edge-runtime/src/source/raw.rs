//! Raw frames one after the other: pixels, row by row, nothing between them.

use super::{Content, Frame, Item, Source, Stop};
use crate::image::{MAX_PIXELS, MAX_SIDE, Picture};
use std::io::{ErrorKind, Read};
use std::str::FromStr;

/// Order of the samples of a pixel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixel {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One sample.
    Gray,
}

/// Size and pixels of raw frames, 8 bits a sample; written `640x480`, `640x480:bgr`, `640x480:gray`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFormat {
    /// Pixels a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Order of the samples.
    pub pixel: Pixel,
}

impl RawFormat {
    /// Bytes of one frame.
    pub fn bytes(&self) -> usize {
        let samples = if self.pixel == Pixel::Gray { 1 } else { 3 };
        self.width * self.height * samples
    }

    /// The picture that bytes hold; of the right number, see [`RawFormat::bytes`].
    pub fn picture(&self, mut bytes: Vec<u8>) -> Picture {
        match self.pixel {
            Pixel::Rgb => {}
            Pixel::Bgr => bytes.chunks_exact_mut(3).for_each(|p| p.swap(0, 2)),
            Pixel::Gray => bytes = bytes.into_iter().flat_map(|v| [v; 3]).collect(),
        }
        Picture { width: self.width, height: self.height, rgb: bytes }
    }
}

impl FromStr for RawFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (size, pixel) = text.split_once(':').unwrap_or((text, "rgb"));
        let pixel = match pixel.to_ascii_lowercase().as_str() {
            "rgb" => Pixel::Rgb,
            "bgr" => Pixel::Bgr,
            "gray" | "grey" | "gray8" => Pixel::Gray,
            _ => return Err("give WIDTHxHEIGHT, WIDTHxHEIGHT:bgr or WIDTHxHEIGHT:gray".into()),
        };
        let sides = size.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        let Some((width, height)) = sides else { return Err("give WIDTHxHEIGHT, as in 640x480".into()) };
        let side = 1..=MAX_SIDE as usize;
        if !side.contains(&width) || !side.contains(&height) || (width * height) as u64 > MAX_PIXELS {
            return Err(format!("give 1 to {MAX_SIDE} pixels a side and at most {MAX_PIXELS} in all"));
        }
        Ok(Self { width, height, pixel })
    }
}

/// Raw frames out of a reader.
pub struct Raw<R> {
    reader: R,
    format: RawFormat,
    origin: String,
    number: u64,
    live: bool,
    ended: bool,
}

impl<R: Read + Send> Raw<R> {
    /// Frames `ORIGIN#1`, `ORIGIN#2` and so on.
    pub fn new(reader: R, format: RawFormat, origin: &str, live: bool) -> Self {
        Self { reader, format, origin: origin.into(), number: 0, live, ended: false }
    }
}

impl<R: Read + Send> Source for Raw<R> {
    fn next(&mut self, stop: &Stop) -> Option<Item> {
        let mut bytes = vec![0; self.format.bytes()];
        let mut filled = 0;
        while filled < bytes.len() && !self.ended {
            if stop.is_set() {
                return None;
            }
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) => self.ended = true,
                Ok(read) => filled += read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.ended = true,
            }
        }
        if filled == 0 {
            return None;
        }
        self.number += 1;
        let name = format!("{}#{}", self.origin, self.number);
        Some(Item::Frame(match filled == bytes.len() {
            true => Frame::new(name, Ok(Content::Pixels(self.format.picture(bytes)))),
            false => Frame::broken(name, "the stream ends in the midst of it; is the size that of --raw?"),
        }))
    }

    fn live(&self) -> bool {
        self.live
    }
}
