//! Photographs to bytes at network size, decoded and resized as the board does it, in parallel and in a fixed order.

use super::Split;
use super::files::Files;
use super::tree::Item;
use crate::Result;
use crate::augment::resample::{Filter, resize_bytes};
use excon_edge::image::Picture;
use rayon::prelude::*;
use std::io::Cursor;

/// Longest picture file, bytes.
const LONGEST: u64 = 64 << 20;
/// Most memory for the pixels of one data set.
const MOST_PIXELS: usize = 48 << 30;

/// Loads three splits. Without a size, the pictures keep theirs if all are equal and square; else they become 64×64.
pub(super) fn load(files: &Files, splits: &[Vec<Item>; 3], size: Option<usize>) -> Result<[Split; 3]> {
    let items: Vec<&Item> = splits.iter().flatten().collect();
    let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
    let size = match size {
        Some(size) => size,
        None => common_size(files, &names)?.unwrap_or(64),
    };
    let bytes = size * size * 3;
    if items.len().saturating_mul(bytes) > MOST_PIXELS {
        let reason = format!("{} pictures of {size}x{size} do not fit in memory: choose a smaller size", items.len());
        return Err(files.error(reason));
    }
    let mut rgb = vec![0u8; items.len() * bytes];
    files.visit(&names, LONGEST, |batch| {
        let pictures = batch.into_par_iter().map(|(index, file)| Ok((index, decode(names[index], &file, size)?)));
        for (index, picture) in pictures.collect::<Result<Vec<_>>>()? {
            rgb[index * bytes..(index + 1) * bytes].copy_from_slice(&picture);
        }
        Ok(())
    })?;
    let mut first = 0;
    Ok(splits.each_ref().map(|split| {
        let range = first..first + split.len();
        first = range.end;
        Split {
            size,
            rgb: rgb[range.start * bytes..range.end * bytes].to_vec(),
            labels: split.iter().map(|item| item.label).collect(),
            names: split.iter().map(|item| item.name.clone()).collect(),
        }
    }))
}

/// The side all pictures share, from their headers; `None` if they differ, are not square, or are large.
fn common_size(files: &Files, names: &[&str]) -> Result<Option<usize>> {
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    files.visit(names, LONGEST, |batch| {
        let found = batch.par_iter().map(|(index, file)| dimensions(names[*index], file));
        sizes.extend(found.collect::<Result<Vec<_>>>()?);
        sizes.sort_unstable();
        sizes.dedup();
        Ok(())
    })?;
    Ok(match sizes[..] {
        [(width, height)] if width == height && (8..=1024).contains(&width) => Some(width),
        _ => None,
    })
}

fn unreadable(name: &str, cause: &dyn std::fmt::Display) -> crate::Error {
    excon_edge::Error::Picture { name: name.into(), reason: cause.to_string() }.into()
}

fn dimensions(name: &str, file: &[u8]) -> Result<(usize, usize)> {
    let reader = image::ImageReader::new(Cursor::new(file)).with_guessed_format().map_err(|e| unreadable(name, &e))?;
    let (width, height) = reader.into_dimensions().map_err(|e| unreadable(name, &e))?;
    Ok((width as usize, height as usize))
}

fn decode(name: &str, file: &[u8], size: usize) -> Result<Vec<u8>> {
    let rgb = image::load_from_memory(file).map_err(|e| unreadable(name, &e))?.to_rgb8();
    let picture = Picture { width: rgb.width() as usize, height: rgb.height() as usize, rgb: rgb.into_raw() };
    Ok(resize(&picture, size).rgb)
}

/// Short side to `size`, then the centre square.
pub(super) fn resize(picture: &Picture, size: usize) -> Picture {
    if (picture.width, picture.height) == (size, size) {
        return picture.clone();
    }
    let short = picture.width.min(picture.height);
    let (width, height) = (size * picture.width / short, size * picture.height / short);
    let whole = resize_bytes(&picture.rgb, (picture.width, picture.height), (width, height), Filter::Triangle);
    let (left, top) = ((width - size) / 2, (height - size) / 2);
    let mut rgb = Vec::with_capacity(size * size * 3);
    for row in whole.chunks_exact(width * 3).skip(top).take(size) {
        rgb.extend_from_slice(&row[left * 3..(left + size) * 3]);
    }
    Picture { width: size, height: size, rgb }
}
