//! Resize, crop and normalise by one specification, carried in the bundle.

use super::Picture;
use serde::{Deserialize, Serialize};

/// How a picture becomes the network's input: short side to `size` by antialiased bilinear resizing, centre square,
/// then `(byte / 255 − mean) / std` per channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// Side of the square input, pixels.
    pub size: usize,
    /// Mean of R, G, B in 0..1.
    pub mean: [f32; 3],
    /// Standard deviation of R, G, B in 0..1, positive.
    pub std: [f32; 3],
}

impl Preprocess {
    /// The picture at network size (`size × size`), still bytes. A picture already of that size is returned as it is.
    pub fn resize(&self, _picture: &Picture) -> Picture {
        unreachable!("written by the image helper")
    }

    /// Normalised values of a picture at network size, planar (`3 × size × size`), appended to `out`.
    pub fn normalise(&self, _picture: &Picture, _out: &mut Vec<f32>) {
        unreachable!("written by the image helper")
    }
}
