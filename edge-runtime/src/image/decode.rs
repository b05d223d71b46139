//! Decoding with limits: JPEG and PNG bytes become an upright RGB picture or a typed error that says why not.
//!
//! Before any pixel memory is asked for, the container is walked to its end marker and the declared size is compared
//! with the limits, so that a cut-off file, an animation or a decompression bomb is refused early. Alpha is dropped
//! without compositing, 16-bit samples become `round(value / 257)`, grey is copied to the three channels, and the EXIF
//! orientation is applied. JPEG chroma is upsampled by the triangle filter.

use super::Picture;
use crate::{Error, Result};
use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
use image::{DynamicImage, ImageDecoder, ImageFormat, Limits, metadata::Orientation};
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Largest accepted width or height, pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Largest accepted area, pixels.
pub const MAX_PIXELS: u64 = 64 << 20;
/// Largest accepted file, bytes.
pub const MAX_BYTES: u64 = 64 << 20;
/// Largest accepted number of scans in one JPEG; cameras write about ten, a bomb writes thousands.
const MAX_SCANS: usize = 256;
/// Decoder memory: the widest sample format (16-bit RGBA) at the largest area, and some room.
const MAX_DECODER_BYTES: u64 = MAX_PIXELS * 8 + (64 << 20);

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes JPEG or PNG bytes, upright by EXIF orientation. `name` appears in errors.
///
/// # Errors
/// [`Error::Picture`] for another format, an animation, a truncated or damaged file, or one beyond [`MAX_SIDE`],
/// [`MAX_PIXELS`] or [`MAX_BYTES`].
pub fn decode(name: &str, bytes: &[u8]) -> Result<Picture> {
    decode_within(name, bytes, MAX_PIXELS)
}

/// As [`decode`], with a smaller limit on the area in pixels.
///
/// # Errors
/// As [`decode`].
pub fn decode_within(name: &str, bytes: &[u8], most_pixels: u64) -> Result<Picture> {
    // The decoders are foreign code on hostile input: should one panic, the frame is lost, not the process.
    catch_unwind(AssertUnwindSafe(|| decode_bytes(bytes, most_pixels.min(MAX_PIXELS))))
        .unwrap_or_else(|_| Err("the decoder gave up on damaged data".into()))
        .map_err(|reason| Error::Picture { name: name.into(), reason })
}

/// Reads and decodes one file; at most [`MAX_BYTES`] are read.
///
/// # Errors
/// [`Error::Read`] when the file cannot be read, otherwise as [`decode`].
pub fn read(path: &Path) -> Result<Picture> {
    let unreadable = |source| Error::Read { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    decode(&path.display().to_string(), &bytes)
}

/// Whether a JPEG or PNG file reaches its end marker; false too when it cannot be read. Nothing is decoded.
pub fn is_whole(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else { return false };
    let mut bytes = Vec::new();
    if file.take(MAX_BYTES + 1).read_to_end(&mut bytes).is_err() {
        return false;
    }
    match bytes.starts_with(PNG_SIGNATURE) {
        true => walk_png(&bytes).is_ok(),
        false => bytes.starts_with(&[0xff, 0xd8]) && walk_jpeg(&bytes).is_ok(),
    }
}

fn decode_bytes(bytes: &[u8], most: u64) -> std::result::Result<Picture, String> {
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} MiB", MAX_BYTES >> 20));
    }
    if bytes.starts_with(&[0xff, 0xd8]) {
        walk_jpeg(bytes)?;
        upright(JpegDecoder::new(Cursor::new(bytes)).map_err(|e| e.to_string())?, most)
    } else if bytes.starts_with(PNG_SIGNATURE) {
        walk_png(bytes)?;
        upright(PngDecoder::with_limits(Cursor::new(bytes), limits()).map_err(|e| e.to_string())?, most)
    } else {
        Err(foreign(bytes))
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    limits
}

/// Checks the declared size, then decodes, converts to RGB and turns upright.
fn upright(mut decoder: impl ImageDecoder, most: u64) -> std::result::Result<Picture, String> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err("it has no pixels".into());
    }
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > most {
        return Err(format!("{width}×{height} pixels exceed {MAX_SIDE} a side or {most} in all"));
    }
    decoder.set_limits(limits()).map_err(|e| e.to_string())?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| e.to_string())?;
    image = DynamicImage::ImageRgb8(image.into_rgb8());
    image.apply_orientation(orientation);
    let rgb = image.into_rgb8();
    Ok(Picture { width: rgb.width() as usize, height: rgb.height() as usize, rgb: rgb.into_raw() })
}

/// Names what the bytes are, when they are neither JPEG nor PNG.
fn foreign(bytes: &[u8]) -> String {
    let named = match image::guess_format(bytes) {
        Ok(ImageFormat::Gif) => "GIF",
        Ok(ImageFormat::WebP) => "WebP",
        Ok(ImageFormat::Tiff) => "TIFF",
        Ok(ImageFormat::Bmp) => "BMP",
        Ok(ImageFormat::Avif) => "AVIF",
        Ok(ImageFormat::Ico) => "ICO",
        _ if bytes.get(4..8) == Some(b"ftyp") => "HEIF or another ISO media file",
        _ if bytes.is_empty() => return "it is empty".into(),
        _ if PNG_SIGNATURE.starts_with(bytes) || bytes == [0xff] => return ENDS_EARLY.into(),
        _ => return "it is neither JPEG nor PNG".into(),
    };
    format!("it is {named}, which is not supported")
}

const ENDS_EARLY: &str = "the file ends early";

/// Walks the markers of a JPEG to its end marker. The decoder itself fills what is missing with grey.
fn walk_jpeg(bytes: &[u8]) -> std::result::Result<(), String> {
    let mut at = 2;
    let mut scans = 0;
    loop {
        // Entropy-coded data and stray bytes: on to the next marker that is not stuffing, restart or fill.
        while let Some(pair) = bytes.get(at..at + 2) {
            if pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd8 | 0xff) {
                break;
            }
            at += 1;
        }
        let marker = *bytes.get(at + 1).ok_or(ENDS_EARLY)?;
        if marker == 0xd9 {
            return if scans > 0 { Ok(()) } else { Err("it holds no picture data".into()) };
        }
        let length = bytes.get(at + 2..at + 4).ok_or(ENDS_EARLY)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length < 2 {
            return Err(format!("segment {marker:#04x} has length {length}"));
        }
        if marker == 0xda {
            scans += 1;
            if scans > MAX_SCANS {
                return Err(format!("it has more than {MAX_SCANS} scans"));
            }
        }
        at += 2 + length;
        if at > bytes.len() {
            return Err(ENDS_EARLY.into());
        }
    }
}

/// Walks the chunks of a PNG to its end chunk and refuses animations.
fn walk_png(bytes: &[u8]) -> std::result::Result<(), String> {
    let mut at = PNG_SIGNATURE.len();
    loop {
        let head = bytes.get(at..at + 8).ok_or(ENDS_EARLY)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        at = at.checked_add(12 + length).filter(|end| *end <= bytes.len()).ok_or(ENDS_EARLY)?;
        match &head[4..8] {
            b"acTL" => return Err("it is an animated PNG, which is not supported".into()),
            b"IEND" => return Ok(()),
            _ => {}
        }
    }
}
