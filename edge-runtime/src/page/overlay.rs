//! Saliency as pictures: viridis over the greyscale photograph, embedded as PNG data.

use super::{empty, verdict};
use crate::image::Picture;
use crate::saliency::Map;
use crate::{Error, Result};
use base64::Engine as _;
use image::ImageEncoder as _;
use maud::{Markup, html};

/// Share of the map's colour in an overlay; the rest is the greyscale photograph.
pub const OVERLAY_STRENGTH: f32 = 0.55;

/// Nine anchors of the viridis colour map, evenly spaced; linear in between.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 45, 123],
    [59, 82, 139],
    [44, 114, 142],
    [33, 145, 140],
    [40, 174, 128],
    [94, 201, 98],
    [173, 220, 48],
    [253, 231, 37],
];

/// Viridis colour of a value in 0..1; values outside and NaN are clamped.
pub fn viridis(value: f32) -> [u8; 3] {
    let at = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) } * 8.0;
    let (low, part) = ((at as usize).min(7), at - (at as usize).min(7) as f32);
    std::array::from_fn(|c| {
        let (a, b) = (f32::from(VIRIDIS[low][c]), f32::from(VIRIDIS[low + 1][c]));
        (a + (b - a) * part).round() as u8
    })
}

/// The map alone, in viridis, and laid over the greyscale picture. The map is enlarged to the picture and scaled to its
/// own range, smallest value dark, largest yellow.
pub fn overlay(picture: &Picture, map: &Map) -> (Picture, Picture) {
    let map = map.upsample(picture.width, picture.height).normalised();
    let colours: Vec<[u8; 3]> = map.values.iter().map(|&v| viridis(v)).collect();
    let mixed = picture.rgb.chunks_exact(3).zip(&colours).flat_map(|(p, c)| {
        let grey = 0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]);
        c.map(|c| (OVERLAY_STRENGTH * f32::from(c) + (1.0 - OVERLAY_STRENGTH) * grey).round() as u8)
    });
    let like = |rgb| Picture { width: picture.width, height: picture.height, rgb };
    (like(colours.concat()), like(mixed.collect()))
}

/// The picture by a whole factor, each pixel a block, so that it is at least `side` pixels wide: what the network saw,
/// at a size people can look at.
pub fn enlarged(picture: &Picture, side: usize) -> Picture {
    let factor = side.div_ceil(picture.width.max(1)).max(1);
    let mut rgb = Vec::with_capacity(picture.rgb.len() * factor * factor);
    for row in picture.rgb.chunks_exact(3 * picture.width) {
        let wide: Vec<u8> =
            row.chunks_exact(3).flat_map(|p| std::iter::repeat_n(p, factor).flatten().copied()).collect();
        (0..factor).for_each(|_| rgb.extend_from_slice(&wide));
    }
    Picture { width: picture.width * factor, height: picture.height * factor, rgb }
}

/// A picture as a PNG file.
///
/// # Errors
/// When the picture's bytes do not match its size.
pub fn png(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let size = (picture.width as u32, picture.height as u32);
    if picture.rgb.len() != picture.width * picture.height * 3 {
        return Err(Error::Data { what: "PNG", reason: format!("{} bytes for {size:?} pixels", picture.rgb.len()) });
    }
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&picture.rgb, size.0, size.1, image::ExtendedColorType::Rgb8)
        .map_err(|e| Error::Data { what: "PNG", reason: e.to_string() })?;
    Ok(bytes)
}

/// A picture as a PNG in a `data:` address.
///
/// # Errors
/// When the picture's bytes do not match its size.
pub fn png_data_uri(picture: &Picture) -> Result<String> {
    Ok(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png(picture)?)))
}

/// One explained prediction.
#[derive(Debug, Clone)]
pub struct Tile<'a> {
    /// The photograph.
    pub picture: &'a Picture,
    /// Map of the predicted class, of any size.
    pub map: &'a Map,
    /// Predicted class.
    pub predicted: &'a str,
    /// True class, when known.
    pub truth: Option<&'a str>,
    /// Calibrated probability of the predicted class, 0..1.
    pub confidence: f64,
}

/// A sheet of explained predictions: photograph, map and overlay of each, with the verdict in words.
///
/// # Errors
/// When a picture cannot be encoded.
pub fn sheet(tiles: &[Tile]) -> Result<Markup> {
    if tiles.is_empty() {
        return Ok(empty());
    }
    let mut cells = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let (map, mixed) = overlay(tile.picture, tile.map);
        let images = [png_data_uri(tile.picture)?, png_data_uri(&map)?, png_data_uri(&mixed)?];
        let names = ["photograph", "map", "overlay"];
        let said = format!("{} {:.0} %", tile.predicted, 100.0 * tile.confidence);
        cells.push(html! {
            li {
                div.triple {
                    @for (uri, name) in images.iter().zip(names) { img src=(uri) alt=(name); }
                }
                @match tile.truth {
                    Some(truth) if truth == tile.predicted => { p { (verdict(true, &said)) } }
                    Some(truth) => {
                        p { (verdict(false, &said)) }
                        p.soft { "is " (truth) }
                    }
                    None => { p { b { (said) } } }
                }
            }
        });
    }
    Ok(html! {
        ul.sheet { @for cell in &cells { (cell) } }
        div.ramp aria-hidden="true" { "speaks against" i {} "speaks for the predicted class" }
    })
}
