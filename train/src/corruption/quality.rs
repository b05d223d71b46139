//! Loss of quality in storage: coarse pixels, strong JPEG compression.

use crate::augment::resample::{Filter, resize_bytes};
use crate::{Error, Result};
use excon_edge::image::{Picture, decode};
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

/// Reduces each side to `share` of its pixels and enlarges again, both with a box filter.
pub(super) fn pixelate(picture: &Picture, share: f64) -> Vec<u8> {
    let full = (picture.width, picture.height);
    let reduced = |length: usize| ((length as f64 * share) as usize).max(1);
    let small = (reduced(full.0), reduced(full.1));
    resize_bytes(&resize_bytes(&picture.rgb, full, small, Filter::Box), small, full, Filter::Box)
}

/// Saves as baseline JPEG with 4:2:0 chroma at the given libjpeg quality, and decodes again.
pub(super) fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>> {
    let refuse = |reason: String| Error::Setting { name: "jpeg_compression".into(), reason };
    let (Ok(width), Ok(height)) = (u16::try_from(picture.width), u16::try_from(picture.height)) else {
        return Err(refuse(format!(
            "a JPEG holds at most 65535 pixels a side, not {}x{}",
            picture.width, picture.height
        )));
    };
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    encoder.encode(&picture.rgb, width, height, ColorType::Rgb).map_err(|e| refuse(e.to_string()))?;
    Ok(decode("recompressed picture", &bytes)?.rgb)
}
