//! Which pixels stay, by value or by rank, and the masked picture in normalised space.

use super::Map;

/// Keeps the cells whose value is above `threshold` (0.5 on a normalised map in ExCon's training); equal is removed.
pub fn keep_above(map: &Map, threshold: f32) -> Vec<bool> {
    map.values.iter().map(|v| *v > threshold).collect()
}

/// Keeps the `⌊fraction · cells⌋` largest cells; of equal ones the lower index first.
pub fn keep_top(map: &Map, fraction: f64) -> Vec<bool> {
    let count = (fraction * map.values.len() as f64) as usize;
    let mut keep = vec![false; map.values.len()];
    map.order().into_iter().take(count).for_each(|i| keep[i] = true);
    keep
}

/// Sets every channel of the pixels that are not kept to 0 in normalised space, the mean colour of the data set.
/// `image` is planar (`C × H × W`), `keep` has `H · W` entries.
pub fn mask_normalised(image: &mut [f32], keep: &[bool]) {
    if keep.is_empty() {
        return;
    }
    for plane in image.chunks_mut(keep.len()) {
        plane.iter_mut().zip(keep).filter(|(_, keep)| !**keep).for_each(|(value, _)| *value = 0.0);
    }
}
