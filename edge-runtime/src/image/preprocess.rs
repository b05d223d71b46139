//! Resize, crop and normalise by one specification, carried in the bundle.

use super::{Picture, Window, resample};
use crate::{Error, Result};
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
    /// Checks what a file may have brought in: size 8..=1024, means in 0..=1, standard deviations in 1e-3..=1.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first field out of range.
    pub fn validate(&self) -> Result<()> {
        let refuse = |reason: String| Err(Error::Data { what: "preprocess", reason });
        if !(8..=1024).contains(&self.size) {
            return refuse(format!("size is {}, use 8..=1024", self.size));
        }
        if let Some(mean) = self.mean.iter().find(|m| !(0.0..=1.0).contains(*m)) {
            return refuse(format!("mean holds {mean}, use 0..=1"));
        }
        if let Some(std) = self.std.iter().find(|s| !(1e-3..=1.0).contains(*s)) {
            return refuse(format!("std holds {std}, use 0.001..=1"));
        }
        Ok(())
    }

    /// The picture at network size (`size × size`), still bytes. A picture already of that size is returned as it is.
    ///
    /// The long side is truncated to whole pixels and the crop's offset rounded half to even, as torchvision does.
    /// Small pictures are enlarged.
    pub fn resize(&self, picture: &Picture) -> Picture {
        let size = self.size;
        if picture.width == size && picture.height == size {
            return picture.clone();
        }
        let short = picture.width.min(picture.height);
        let full = (size * picture.width / short, size * picture.height / short);
        let offset = |full: usize| {
            let half = (full - size) / 2;
            // An odd surplus lies half-way: to the even neighbour.
            if (full - size) % 2 == 1 { half + half % 2 } else { half }
        };
        resample(picture, Window { full, origin: (offset(full.0), offset(full.1)), size: (size, size) })
    }

    /// Normalised values of a picture, planar (`3 × height × width`), appended to `out`. To be called on a picture at
    /// network size.
    pub fn normalise(&self, picture: &Picture, out: &mut Vec<f32>) {
        out.reserve(picture.rgb.len());
        for channel in 0..3 {
            // 256 possible bytes: the same arithmetic, done once each.
            let (mean, std) = (self.mean[channel], self.std[channel]);
            let table: [f32; 256] = std::array::from_fn(|byte| (byte as f32 / 255.0 - mean) / std);
            out.extend(picture.rgb.iter().skip(channel).step_by(3).map(|byte| table[usize::from(*byte)]));
        }
    }
}
