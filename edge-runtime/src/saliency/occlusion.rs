//! How little an embedding minds an occlusion: the occlusion invariance that Purushwalkam and Gupta (2020) find in
//! contrastive networks, measured on embeddings as they are, without binarising units.
//!
//! A square of a quarter of the area covers the picture at nine places in turn, in the mean colour of the data set.
//! Embeddings behind a ReLU all lie in one corner of the space, so that even different pictures look alike; a cosine is
//! therefore read against the mean cosine between different pictures: see [`similarity`].

use std::ops::Range;

/// Places of the square: three by three, from border to border.
pub const POSITIONS: usize = 9;
/// Share of the picture's area that is covered, about.
pub const OCCLUDED_SHARE: f64 = 0.25;

/// The nine occluded forms of a planar, normalised picture (`shape = [C, H, W]`), one after the other. Covered values
/// are 0: the mean colour.
///
/// # Panics
/// When the picture does not have that shape.
pub fn occluded(image: &[f32], shape: [usize; 3]) -> Vec<f32> {
    let [channels, height, width] = shape;
    assert_eq!(image.len(), channels * height * width, "the picture must be C × H × W");
    let span = |length: usize, place: usize| -> Range<usize> {
        let side = length.div_ceil(2);
        let start = (length - side) * place / 2;
        start..start + side
    };
    let mut all = Vec::with_capacity(POSITIONS * image.len());
    for position in 0..POSITIONS {
        let (rows, columns) = (span(height, position / 3), span(width, position % 3));
        let start = all.len();
        all.extend_from_slice(image);
        for plane in all[start..].chunks_exact_mut((height * width).max(1)) {
            for row in rows.clone() {
                plane[row * width..][columns.clone()].fill(0.0);
            }
        }
    }
    all
}

/// Cosine of two embeddings in −1..=1, summed in f64; 0 when one of them is zero.
pub fn similarity(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    if norms > 0.0 { (dot(a, b) / norms).clamp(-1.0, 1.0) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_squares_cover_a_quarter_each_and_together_the_picture() {
        let shape = [2, 8, 8];
        let image = vec![1.0; 128];
        let all = occluded(&image, shape);
        assert_eq!(all.len(), POSITIONS * 128);
        let mut covered = [false; 64];
        for form in all.chunks_exact(128) {
            let (first, second) = form.split_at(64);
            assert_eq!(first, second, "all channels alike");
            assert_eq!(first.iter().filter(|v| **v == 0.0).count(), 16);
            covered.iter_mut().zip(first).for_each(|(c, v)| *c |= *v == 0.0);
        }
        assert!(covered.iter().all(|c| *c));
        // The middle one.
        assert_eq!(all[4 * 128 + 2 * 8 + 2..][..4], [0.0; 4]);
        assert_eq!(all[4 * 128 + 8 + 2], 1.0);
        assert_eq!(occluded(&[5.0], [1, 1, 1]), [0.0; POSITIONS]);
    }

    #[test]
    fn cosines_are_cosines() {
        assert!((similarity(&[1.0, 0.0], &[1.0, 1.0]) - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(similarity(&[2.0, -4.0], &[-1.0, 2.0]), -1.0);
        assert_eq!(similarity(&[0.0, 0.0], &[1.0, 2.0]), 0.0);
    }
}
