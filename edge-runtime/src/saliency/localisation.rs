//! Whether a map finds the object: the energy inside its box, and the pointing game.
//!
//! Energy (Wang et al., Score-CAM, 2020): the share of the map's positive evidence that lies inside. Pointing game (Zhang
//! et al., Excitation Backprop, 2016): whether the map's largest value lies inside; here without a margin around the
//! box. A box is often most of the picture, so both are to be read against its share of the area: that is what a flat
//! map's energy and a random point would reach.

use super::Map;
use serde::{Deserialize, Serialize};

/// A box around an object, in fractions of the picture's width and height: a pixel belongs to it when its centre does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ObjectBox {
    /// Left edge, 0..1.
    pub left: f32,
    /// Upper edge, 0..1.
    pub top: f32,
    /// Right edge, above `left`, up to 1.
    pub right: f32,
    /// Lower edge, above `top`, up to 1.
    pub bottom: f32,
}

/// How one map finds an object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Localised {
    /// Share of the positive values inside the box, 0..=1; 0 for a map without any.
    pub energy: f64,
    /// Whether the largest value lies inside (the first of equal ones).
    pub hit: bool,
    /// Share of the pixels inside.
    pub area: f64,
}

impl ObjectBox {
    fn holds(&self, x: f32, y: f32) -> bool {
        (self.left..self.right).contains(&x) && (self.top..self.bottom).contains(&y)
    }
}

/// Compares a map, at the size it is to be read, with a box; none for an empty map.
pub fn localise(map: &Map, object: &ObjectBox) -> Option<Localised> {
    let centre = |i: usize, length: usize| (i as f32 + 0.5) / length as f32;
    let inside = |i: usize| object.holds(centre(i % map.width, map.width), centre(i / map.width, map.height));
    let positive = |i: usize| f64::from(map.values[i].max(0.0));
    let (mut within, mut all, mut count) = (0.0, 0.0, 0usize);
    for i in 0..map.values.len() {
        all += positive(i);
        if inside(i) {
            within += positive(i);
            count += 1;
        }
    }
    let point = *map.order().first()?;
    Some(Localised {
        energy: if all > 0.0 { within / all } else { 0.0 },
        hit: inside(point),
        area: count as f64 / map.values.len() as f64,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The left upper quarter.
    const QUARTER: ObjectBox = ObjectBox { left: 0.0, top: 0.0, right: 0.5, bottom: 0.5 };

    #[test]
    fn energy_and_pointing_are_what_a_hand_counts() {
        // Negative evidence counts for nothing: 3 of 3 + 1 + 2.
        let values = vec![3.0, 1.0, -9.0, 2.0];
        let map = Map { width: 2, height: 2, values };
        assert_eq!(localise(&map, &QUARTER).unwrap(), Localised { energy: 0.5, hit: true, area: 0.25 });
        let elsewhere = ObjectBox { left: 0.5, right: 1.0, ..QUARTER };
        let found = localise(&map, &elsewhere).unwrap();
        assert!(!found.hit && (found.energy - 1.0 / 6.0).abs() < 1e-12);
    }

    #[test]
    fn a_flat_map_has_the_energy_of_the_area() {
        for (width, height) in [(8, 8), (5, 7)] {
            let map = Map { width, height, values: vec![0.25; width * height] };
            let found = localise(&map, &ObjectBox { left: 0.2, top: 0.1, right: 0.9, bottom: 0.6 }).unwrap();
            assert!((found.energy - found.area).abs() < 1e-12);
            assert!(!found.hit, "the first of equal values is the corner");
        }
        let dark = Map { width: 2, height: 2, values: vec![-1.0; 4] };
        assert_eq!(localise(&dark, &QUARTER).unwrap().energy, 0.0);
        assert_eq!(localise(&Map { width: 0, height: 0, values: vec![] }, &QUARTER), None);
    }

    #[test]
    fn pixels_belong_by_their_centres() {
        // Pixels 2 to 4 of 8, as Tiny ImageNet counts them, are the fractions 2/8 to 5/8.
        let map = Map { width: 8, height: 8, values: vec![1.0; 64] };
        let found = localise(&map, &ObjectBox { left: 0.25, top: 0.25, right: 0.625, bottom: 0.625 }).unwrap();
        assert_eq!(found.area, 9.0 / 64.0);
    }
}
