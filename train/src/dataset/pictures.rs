//! Photographs to bytes at network size, decoded and resized as the board does it, in parallel and in a fixed order.

use super::Split;
use super::files::Files;
use super::tree::Item;
use crate::Result;
use excon_edge::image::{MAX_BYTES, Picture, Preprocess};
use rayon::prelude::*;
use std::io::Cursor;

/// Most memory for the pixels of one data set.
const MOST_PIXELS: usize = 48 << 30;

/// Loads splits. Without a size, the pictures keep theirs if all are equal and square; else they become 64×64.
pub(super) fn load<const N: usize>(files: &Files, splits: &[Vec<Item>; N], size: Option<usize>) -> Result<[Split; N]> {
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
    let mut loaded = splits.each_ref().map(|items| Split {
        size,
        rgb: vec![0; items.len() * bytes],
        labels: items.iter().map(|item| item.label).collect(),
        names: items.iter().map(|item| item.name.clone()).collect(),
        sets: vec![],
        boxes: match items.iter().any(|item| item.object.is_some()) {
            true => items.iter().map(|item| item.object).collect(),
            false => Vec::new(),
        },
    });
    // Where each picture goes: its split, and its place there.
    let places: Vec<(usize, usize)> =
        splits.iter().enumerate().flat_map(|(split, items)| (0..items.len()).map(move |i| (split, i))).collect();
    files.visit(&names, MAX_BYTES, |batch| {
        let pictures = batch.into_par_iter().map(|(index, file)| Ok((index, decode(names[index], &file, size)?)));
        for (index, picture) in pictures.collect::<Result<Vec<_>>>()? {
            let (split, i) = places[index];
            loaded[split].rgb[i * bytes..(i + 1) * bytes].copy_from_slice(&picture);
        }
        Ok(())
    })?;
    Ok(loaded)
}

/// The side all pictures share, from their headers; `None` if they differ, are not square, or are large.
fn common_size(files: &Files, names: &[&str]) -> Result<Option<usize>> {
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    files.visit(names, MAX_BYTES, |batch| {
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
    Ok(resize(&excon_edge::image::decode(name, file)?, size).rgb)
}

/// A picture at network size, exactly as the board makes it.
pub(super) fn resize(picture: &Picture, size: usize) -> Picture {
    // Resizing does not look at the normalisation.
    Preprocess { size, mean: [0.0; 3], std: [1.0; 3] }.resize(picture)
}
