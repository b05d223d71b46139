//! Decoding and preprocessing against Pillow and torchvision, and against damaged files.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::Error;
use crate::fixture::{Golden, gap, path};
use proptest::prelude::*;

fn bytes(file: &str) -> Vec<u8> {
    std::fs::read(path(&format!("image/{file}"))).unwrap()
}

/// Differences of a decoded fixture from a reference, in levels; a grey reference is copied to three channels.
fn level_gaps(file: &str, reference: &str) -> Vec<u8> {
    let golden = Golden::open("image/decode.safetensors");
    let picture = decode(file, &bytes(file)).unwrap();
    let shape = golden.shape(reference);
    assert_eq!((picture.height, picture.width), (shape[0], shape[1]), "{file}");
    let mut expected = golden.u8(reference);
    if shape.len() == 2 {
        expected = expected.into_iter().flat_map(|v| [v; 3]).collect();
    }
    assert_eq!(picture.rgb.len(), expected.len(), "{file}");
    picture.rgb.iter().zip(expected).map(|(a, b)| a.abs_diff(b)).collect()
}

fn refused(bytes: &[u8]) -> String {
    match decode("test", bytes) {
        Err(Error::Picture { reason, .. }) => reason,
        other => panic!("not refused: {:?}", other.map(|p| (p.width, p.height))),
    }
}

fn picture(golden: &Golden, name: &str) -> Picture {
    let shape = golden.shape(name);
    Picture { height: shape[0], width: shape[1], rgb: golden.u8(name) }
}

/// Planes in 0..1 of a picture.
fn planes(picture: &Picture) -> Vec<Vec<f32>> {
    let plane = |c| picture.rgb.iter().skip(c).step_by(3).map(|b| f32::from(*b) / 255.0).collect();
    (0..3).map(plane).collect()
}

#[test]
fn png_is_exact() {
    for (file, reference) in [
        ("rgb.png", "rgb.png.pixels"),
        ("grey.png", "grey.png.pixels"),
        ("grey.png", "grey.png.rgb"),
        ("palette.png", "palette.png.rgb"),
        ("palette_transparent.png", "palette_transparent.png.rgb"),
        ("rgba.png", "rgba.png.rgb"),
        ("grey_alpha.png", "grey_alpha.png.rgb"),
        ("one_bit.png", "one_bit.png.rgb"),
    ] {
        assert!(level_gaps(file, reference).iter().all(|gap| *gap == 0), "{file}");
    }
}

#[test]
fn sixteen_bits_are_divided_by_257_and_rounded() {
    let values = Golden::open("image/decode.safetensors").f64("grey16.png.value");
    let picture = decode("grey16.png", &bytes("grey16.png")).unwrap();
    for (pixel, value) in picture.rgb.chunks_exact(3).zip(values) {
        assert_eq!(pixel, [(value / 257.0).round() as u8; 3]);
    }
}

/// Levels between this decoder and libjpeg-turbo. One level of IDCT rounding in a chroma sample becomes up to 1.77
/// levels of blue, so a few values in a thousand lie one level beyond the usual gap; upsampled chroma is rounded half up here
/// and up or down by turns in libjpeg, which adds one. Nearest-neighbour upsampling would differ by tens of levels.
#[test]
fn jpeg_is_within_the_stated_levels() {
    for (file, reference, usual) in [
        ("baseline444.jpg", "baseline444.jpg.pixels", 1),
        ("grey.jpg", "grey.jpg.pixels", 1),
        ("baseline422.jpg", "baseline422.jpg.pixels", 2),
        ("baseline420.jpg", "baseline420.jpg.pixels", 2),
        ("progressive420.jpg", "progressive420.jpg.pixels", 2),
        ("restart420.jpg", "restart420.jpg.pixels", 2),
        ("exif3.jpg", "exif3.jpg.upright", 1),
        ("exif6.jpg", "exif6.jpg.upright", 1),
        ("exif8.jpg", "exif8.jpg.upright", 1),
        ("cmyk.jpg", "cmyk.jpg.rgb", 1),
    ] {
        let gaps = level_gaps(file, reference);
        let beyond = gaps.iter().filter(|gap| **gap > usual).count();
        assert!(gaps.iter().all(|gap| *gap <= usual + 1), "{file}: {:?}", gaps.iter().max());
        assert!(beyond * 1000 <= gaps.len(), "{file}: {beyond} of {} values", gaps.len());
    }
}

#[test]
fn truncation_at_every_byte_is_a_typed_error() {
    for file in ["baseline420.jpg", "progressive420.jpg", "restart420.jpg", "exif6.jpg", "rgb.png", "palette.png"] {
        let whole = bytes(file);
        for length in 0..whole.len() {
            refused(&whole[..length]);
        }
    }
    assert!(refused(&bytes("truncated.jpg")).contains("ends early"));
    refused(&bytes("bad_crc.png"));
}

#[test]
fn a_flipped_byte_never_panics() {
    for file in ["baseline420.jpg", "progressive420.jpg", "cmyk.jpg", "palette_transparent.png", "grey16.png"] {
        let mut damaged = bytes(file);
        for at in 0..damaged.len() {
            for flip in [0x01, 0x80, 0xff] {
                damaged[at] ^= flip;
                if let Ok(picture) = decode(file, &damaged) {
                    assert_eq!(picture.rgb.len(), picture.width * picture.height * 3, "{file} byte {at}");
                }
                damaged[at] ^= flip;
            }
        }
    }
}

/// A fixture with other dimensions declared in its JPEG frame header.
fn declared(file: &str, width: u16, height: u16) -> Vec<u8> {
    let mut bytes = bytes(file);
    let frame = bytes.windows(2).position(|w| w == [0xff, 0xc0] || w == [0xff, 0xc2]).unwrap();
    bytes[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
    bytes[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn tiny_subsampled_pictures_decode_or_are_refused() {
    for file in ["baseline420.jpg", "baseline422.jpg", "progressive420.jpg"] {
        for (width, height) in (1..=9).flat_map(|w| (1..=9).map(move |h| (w, h))) {
            match decode(file, &declared(file, width, height)) {
                Ok(picture) => assert_eq!((picture.width, picture.height), (usize::from(width), usize::from(height))),
                Err(error) => assert!(matches!(error, Error::Picture { .. })),
            }
        }
    }
}

#[test]
fn declared_sizes_are_checked_before_memory_is_asked_for() {
    assert!(refused(&declared("baseline420.jpg", 60_000, 60_000)).contains("60000×60000"));
    assert!(refused(&declared("baseline420.jpg", 16_385, 1)).contains("exceed"));
    assert!(refused(&declared("baseline420.jpg", 16_000, 16_000)).contains("exceed"));
    refused(&declared("baseline420.jpg", 0, 10));
    let mut png = bytes("rgb.png");
    png[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    refused(&png);
    assert!(refused(&vec![0xff; MAX_BYTES as usize + 1]).contains("larger than"));
}

#[test]
fn other_formats_are_refused_by_name() {
    assert!(refused(b"").contains("empty"));
    assert!(refused(b"GIF89a............").contains("GIF"));
    assert!(refused(b"RIFF\x10\0\0\0WEBPVP8 ").contains("WebP"));
    assert!(refused(b"II*\0............").contains("TIFF"));
    assert!(refused(b"BM..............").contains("BMP"));
    assert!(refused(b"\0\0\0\x18ftypheic....").contains("HEIF"));
    assert!(refused(b"plain text").contains("neither"));
    let still = bytes("rgb.png");
    let mut animated = still[..33].to_vec();
    animated.extend(b"\0\0\0\x08acTL\0\0\0\x01\0\0\0\0CRC.");
    animated.extend(&still[33..]);
    assert!(refused(&animated).contains("animated"));
}

#[test]
fn a_jpeg_of_endless_scans_is_refused() {
    let mut bomb = bytes("progressive420.jpg");
    bomb.truncate(bomb.len() - 2);
    for _ in 0..300 {
        bomb.extend([0xff, 0xda, 0, 8, 1, 1, 0, 1, 1, 0]);
    }
    bomb.extend([0xff, 0xd9]);
    assert!(refused(&bomb).contains("scans"));
}

#[test]
fn files_are_read_and_a_missing_one_is_named() {
    let file = path("image/rgb.png");
    assert_eq!(read(&file).unwrap(), decode("rgb.png", &bytes("rgb.png")).unwrap());
    assert!(matches!(read(&path("image/missing.png")), Err(Error::Read { .. })));
    assert!(matches!(read(&path("image")), Err(Error::Read { .. })));
}

#[test]
fn byte_resize_is_pillows() {
    let golden = Golden::open("image/transforms.safetensors");
    let square = picture(&golden, "in64");
    for (side, reference) in [(32, "pil_64to32"), (48, "pil_64to48"), (80, "pil_64to80_up")] {
        let gap = gap(&resample(&square, Window::whole(side, side)).rgb, &golden.u8(reference));
        assert_eq!(gap, 0.0, "{reference}");
    }
    let wide = picture(&golden, "in53x97");
    assert!(gap(&resample(&wide, Window::whole(117, 64)).rgb, &golden.u8("pil_short64")) == 0.0);
}

#[test]
fn float_resize_is_torchvisions() {
    let golden = Golden::open("image/transforms.safetensors");
    let square = picture(&golden, "in64");
    for (side, reference) in [(32, "tv_f32_64to32"), (48, "tv_f32_64to48")] {
        let out: Vec<f32> =
            planes(&square).iter().flat_map(|p| resample_plane(p, 64, 64, Window::whole(side, side))).collect();
        assert!(gap(&out, &golden.f64(reference)) <= 1e-5, "{reference}");
    }
    let window = Window { full: (117, 64), origin: (26, 0), size: (64, 64) };
    let wide = planes(&picture(&golden, "in53x97"));
    let out: Vec<f32> = wide.iter().flat_map(|p| resample_plane(p, 97, 53, window)).collect();
    assert!(gap(&out, &golden.f64("tv_f32_short64_crop64")) <= 1e-5);
}

fn preprocess(size: usize) -> Preprocess {
    Preprocess { size, mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] }
}

#[test]
fn short_side_and_centre_crop_follow_torchvision() {
    let golden = Golden::open("image/transforms.safetensors");
    let wide = picture(&golden, "in53x97");
    for (size, reference) in [(64, "pil_short64_crop64"), (24, "pil_short24_crop24")] {
        let out = preprocess(size).resize(&wide);
        assert_eq!((out.width, out.height), (size, size));
        assert!(gap(&out.rgb, &golden.u8(reference)) == 0.0, "{reference}");
    }
    let square = picture(&golden, "in64");
    assert_eq!(preprocess(64).resize(&square), square);
}

#[test]
fn normalised_values_are_the_reference() {
    let golden = Golden::open("image/transforms.safetensors");
    let mut out = vec![7.0];
    preprocess(64).normalise(&picture(&golden, "pil_short64_crop64"), &mut out);
    assert_eq!(out[0], 7.0, "values are appended");
    let gap = gap(&out[1..], &golden.f64("normalised_short64_crop64"));
    assert!(gap <= 1e-6, "{gap}");
}

#[test]
fn a_preprocess_out_of_range_is_refused() {
    assert!(preprocess(32).validate().is_ok());
    for size in [0, 7, 1025, usize::MAX] {
        assert!(preprocess(size).validate().is_err());
    }
    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        assert!(Preprocess { std: [0.2, value, 0.2], ..preprocess(32) }.validate().is_err());
    }
    assert!(Preprocess { mean: [f32::NAN, 0.5, 0.5], ..preprocess(32) }.validate().is_err());
}

#[test]
fn extreme_shapes_are_resized_without_large_memory() {
    let column = Picture { width: 1, height: 16_384, rgb: vec![9; 16_384 * 3] };
    assert!(preprocess(1024).resize(&column).rgb.iter().all(|b| *b == 9));
    let row = Picture { width: 16_384, height: 1, rgb: vec![200; 16_384 * 3] };
    assert!(preprocess(8).resize(&row).rgb.iter().all(|b| *b == 200));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A window of the result equals the same part of the whole result; values stay in the range of the input.
    #[test]
    fn a_window_is_a_part_of_the_whole(
        (width, height) in (1usize..40, 1usize..40),
        (full_w, full_h) in (1usize..60, 1usize..60),
        corner in (0.0f64..1.0, 0.0f64..1.0),
        seed in any::<u64>(),
    ) {
        let byte = |i: usize| (seed.wrapping_add(i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
        let picture = Picture { width, height, rgb: (0..width * height * 3).map(byte).collect() };
        let whole = resample(&picture, Window::whole(full_w, full_h));
        let origin = ((corner.0 * full_w as f64) as usize, (corner.1 * full_h as f64) as usize);
        let size = (full_w - origin.0, full_h - origin.1);
        let part = resample(&picture, Window { full: (full_w, full_h), origin, size });
        for y in 0..size.1 {
            let start = ((y + origin.1) * full_w + origin.0) * 3;
            prop_assert_eq!(&part.rgb[y * size.0 * 3..][..size.0 * 3], &whole.rgb[start..][..size.0 * 3]);
        }
        prop_assert!(whole.rgb.iter().max() <= picture.rgb.iter().max());
        prop_assert!(whole.rgb.iter().min() >= picture.rgb.iter().min());
    }

    #[test]
    fn random_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..300), kind in 0usize..3) {
        let head: &[u8] = [&b""[..], b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"][kind];
        prop_assert!(decode("random", &[head, &tail].concat()).is_err());
    }
}
