//! Spatter: drops of water on the lens at severities 1 to 3, splashes of mud at 4 and 5.
//!
//! Water is a blurred noise, shaded by the distance from its edges. The steps are OpenCV's (Canny, 5×5 distance transform
//! in fixed point, histogram equalisation) down to their rounding, because a level there moves whole drops.

use super::apply::Field;
use super::blur::{SKIMAGE, gaussian, mirror};
use std::collections::VecDeque;

/// Constants of spatter.
#[derive(Clone, Copy)]
pub(super) struct Splash {
    /// Mean and deviation of the noise.
    liquid: (f64, f64),
    /// Its blur.
    sigma: f64,
    /// Lower values stay dry.
    threshold: f64,
    /// Water: strength of the drops. Mud: sigma of its edges.
    amount: f64,
    mud: bool,
}

const fn water(deviation: f64, mean: f64, sigma: f64, threshold: f64, amount: f64) -> Splash {
    Splash { liquid: (mean, deviation), sigma, threshold, amount, mud: false }
}

const fn mud(sigma: f64, threshold: f64) -> Splash {
    Splash { liquid: (0.65, 0.1), sigma, threshold, amount: 0.6, mud: true }
}

pub(super) const CIFAR: [Splash; 5] = [
    water(0.1, 0.62, 0.7, 0.7, 0.5),
    water(0.1, 0.65, 0.8, 0.7, 0.5),
    water(0.3, 0.65, 1.0, 0.69, 0.5),
    mud(0.7, 0.69),
    mud(0.5, 0.68),
];
pub(super) const TINY_IMAGENET: [Splash; 5] = [
    water(0.1, 0.62, 0.7, 0.7, 0.6),
    water(0.1, 0.65, 0.8, 0.7, 0.6),
    water(0.3, 0.65, 1.0, 0.69, 0.6),
    mud(0.7, 0.68),
    mud(0.5, 0.67),
];

/// Splashes the picture; `normal` holds a standard normal value a pixel.
pub(super) fn spatter(field: &mut Field, normal: &[f64], s: Splash) {
    let mut liquid = field.layer(normal.iter().map(|n| s.liquid.0 + s.liquid.1 * n).collect());
    gaussian(&mut liquid, SKIMAGE, s.sigma);
    if s.mud {
        liquid.values.iter_mut().for_each(|v| *v = f64::from(*v > s.threshold));
        gaussian(&mut liquid, SKIMAGE, s.amount);
        for (pixel, mud) in field.values.chunks_exact_mut(3).zip(&liquid.values) {
            let mud = if *mud < 0.8 { 0.0 } else { *mud };
            for (value, colour) in pixel.iter_mut().zip([63.0, 42.0, 20.0]) {
                *value = *value * (1.0 - mud) + mud * colour / 255.0;
            }
        }
        return;
    }
    let wet = |v: &f64| if *v < s.threshold { 0 } else { (v.clamp(0.0, 1.0) * 255.0) as u8 };
    let liquid: Vec<u8> = liquid.values.iter().map(wet).collect();
    let drops = shade(&liquid, field.width, field.height);
    let strength = |i: usize| f64::from(liquid[i]) * f64::from(drops[i]);
    let most = (0..liquid.len()).map(strength).fold(0.0, f64::max);
    if most == 0.0 {
        return; // Dry.
    }
    for (i, pixel) in field.values.chunks_exact_mut(3).enumerate() {
        for (value, colour) in pixel.iter_mut().zip([175.0, 238.0, 238.0]) {
            *value += strength(i) / most * s.amount * colour / 255.0;
        }
    }
}

/// How bright the water is: distance from the nearest edge, equalised, embossed, smoothed.
fn shade(liquid: &[u8], width: usize, height: usize) -> Vec<u8> {
    let grid = Grid { width: width as isize, height: height as isize };
    let distance: Vec<f64> = distance(&edges(liquid, grid), grid).into_iter().map(|d| d.min(20.0)).collect();
    let mean = |at: &dyn Fn(isize, isize) -> f64| (0..9).map(|t| at(t % 3 - 1, t / 3 - 1)).sum::<f64>() * (1.0 / 9.0);
    let smooth = grid.each(|x, y| mean(&|dx, dy| distance[grid.mirrored(x + dx, y + dy)]) as f32 as u8);
    let equal = equalised(&smooth);
    const EMBOSS: [i32; 9] = [-2, -1, 0, -1, 1, 1, 0, 1, 2];
    let embossed = grid.each(|x, y| {
        let tap = |t: isize| EMBOSS[t as usize] * i32::from(equal[grid.mirrored(x + t % 3 - 1, y + t / 3 - 1)]);
        (0..9).map(tap).sum::<i32>().clamp(0, 255) as u8
    });
    grid.each(|x, y| mean(&|dx, dy| f64::from(embossed[grid.mirrored(x + dx, y + dy)])).round() as u8)
}

/// The size of a layer.
#[derive(Clone, Copy)]
struct Grid {
    width: isize,
    height: isize,
}

impl Grid {
    fn each<T>(self, of: impl Fn(isize, isize) -> T) -> Vec<T> {
        (0..self.height).flat_map(|y| (0..self.width).map(move |x| (x, y))).map(|(x, y)| of(x, y)).collect()
    }

    fn index(self, x: isize, y: isize) -> Option<usize> {
        let inside = (0..self.width).contains(&x) && (0..self.height).contains(&y);
        inside.then_some((y * self.width + x) as usize)
    }

    fn mirrored(self, x: isize, y: isize) -> usize {
        (mirror(y, self.height) * self.width + mirror(x, self.width)) as usize
    }

    fn clamped(self, x: isize, y: isize) -> usize {
        (y.clamp(0, self.height - 1) * self.width + x.clamp(0, self.width - 1)) as usize
    }
}

/// Canny's edges with thresholds 50 and 150 on |∂x| + |∂y| of 3×3 Sobel derivatives.
fn edges(bytes: &[u8], grid: Grid) -> Vec<bool> {
    const LOW: i32 = 50;
    const HIGH: i32 = 150;
    const SLOPE: i64 = 13573; // tan 22.5° · 2¹⁵
    let slope = |across: fn(isize, isize) -> (isize, isize)| {
        grid.each(|x, y| {
            let side = |sign: isize| {
                let at = |along: isize| {
                    let (dx, dy) = across(sign, along);
                    i32::from(bytes[grid.clamped(x + dx, y + dy)])
                };
                at(-1) + 2 * at(0) + at(1)
            };
            side(1) - side(-1)
        })
    };
    let (dx, dy) = (slope(|sign, along| (sign, along)), slope(|sign, along| (along, sign)));
    let magnitude = |x, y| grid.index(x, y).map_or(0, |i| dx[i].abs() + dy[i].abs());
    let ridge = grid.each(|x, y| {
        let m = magnitude(x, y);
        let (gx, gy) = (dx[grid.clamped(x, y)], dy[grid.clamped(x, y)]);
        let (flat, steep) = (i64::from(gx.abs()) * SLOPE, i64::from(gy.abs()) << 15);
        m > LOW
            && if steep < flat {
                m > magnitude(x - 1, y) && m >= magnitude(x + 1, y)
            } else if steep > flat + (i64::from(gx.abs()) << 16) {
                m > magnitude(x, y - 1) && m >= magnitude(x, y + 1)
            } else {
                let s = if (gx < 0) == (gy < 0) { 1 } else { -1 };
                m > magnitude(x - s, y - 1) && m > magnitude(x + s, y + 1)
            }
    });
    // From every strong ridge, along whatever ridge it touches.
    let mut edge = vec![false; bytes.len()];
    let mut queue: VecDeque<(isize, isize)> = VecDeque::new();
    for (x, y) in grid.each(|x, y| (x, y)) {
        let i = grid.clamped(x, y);
        if ridge[i] && magnitude(x, y) > HIGH {
            edge[i] = true;
            queue.push_back((x, y));
        }
    }
    while let Some((x, y)) = queue.pop_front() {
        for (nx, ny) in (0..9).map(|t| (x + t % 3 - 1, y + t / 3 - 1)) {
            if let Some(i) = grid.index(nx, ny).filter(|i| ridge[*i] && !edge[*i]) {
                edge[i] = true;
                queue.push_back((nx, ny));
            }
        }
    }
    edge
}

/// Distance from the nearest edge, by steps of 1, 1.4 and 2.1969 in fixed point; very far where there is none.
fn distance(edge: &[bool], grid: Grid) -> Vec<f64> {
    const STEPS: [(isize, isize, i64); 8] = [
        (-1, -2, 143_976),
        (1, -2, 143_976),
        (-2, -1, 143_976),
        (-1, -1, 91_750),
        (0, -1, 65_536),
        (1, -1, 91_750),
        (2, -1, 143_976),
        (-1, 0, 65_536),
    ];
    let mut far: Vec<i64> = edge.iter().map(|e| if *e { 0 } else { i64::from(i32::MAX) }).collect();
    let places = grid.each(|x, y| (x, y));
    let mut pass = |places: &mut dyn Iterator<Item = &(isize, isize)>, sign: isize| {
        for &(x, y) in places {
            let i = grid.clamped(x, y);
            for (dx, dy, step) in STEPS {
                if let Some(from) = grid.index(x + sign * dx, y + sign * dy) {
                    far[i] = far[i].min(far[from] + step);
                }
            }
        }
    };
    pass(&mut places.iter(), 1);
    pass(&mut places.iter().rev(), -1);
    far.into_iter().map(|d| (d as f64 / 65_536.0) as f32 as f64).collect()
}

/// Histogram equalisation.
fn equalised(bytes: &[u8]) -> Vec<u8> {
    let mut counts = [0usize; 256];
    bytes.iter().for_each(|b| counts[usize::from(*b)] += 1);
    let Some(first) = counts.iter().position(|c| *c > 0).filter(|first| counts[*first] < bytes.len()) else {
        return bytes.to_vec();
    };
    let scale = 255f32 / (bytes.len() - counts[first]) as f32;
    let mut sum = 0;
    let mut table = [0u8; 256];
    for level in first + 1..256 {
        sum += counts[level];
        table[level] = (sum as f32 * scale).round_ties_even() as u8;
    }
    bytes.iter().map(|b| table[usize::from(*b)]).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Golden;
    use super::*;

    /// OpenCV's own steps: edges and the shading before its last blur are equal.
    #[test]
    fn edges_and_distances_are_opencvs() {
        let golden = Golden::open("random");
        let grid = Grid { width: 32, height: 32 };
        for severity in 1..=3 {
            let normal = &golden.f32("normal")[(severity - 1) * 1024..][..1024];
            let s = CIFAR[severity - 1];
            let values = normal.iter().map(|n| s.liquid.0 + s.liquid.1 * n).collect();
            let mut liquid = Field { width: 32, height: 32, channels: 1, values };
            gaussian(&mut liquid, SKIMAGE, s.sigma);
            let wet = |v: &f64| if *v < s.threshold { 0 } else { (v.clamp(0.0, 1.0) * 255.0) as u8 };
            let liquid: Vec<u8> = liquid.values.iter().map(wet).collect();
            let found: Vec<u8> = edges(&liquid, grid).iter().map(|e| 255 * u8::from(*e)).collect();
            let expected = golden.bytes(&format!("spatter.{severity}.edges"));
            assert_eq!(found, expected, "edges {severity}");
            let far = distance(&edges(&liquid, grid), grid);
            let expected = golden.f32(&format!("spatter.{severity}.distance"));
            for (far, expected) in far.iter().zip(expected) {
                assert!((far - expected).abs() < 1e-4, "{severity}: {far} for {expected}");
            }
        }
    }

    #[test]
    fn no_edge_and_no_water_change_nothing() {
        let grid = Grid { width: 6, height: 4 };
        assert!(distance(&[false; 24], grid).iter().all(|d| *d > 20.0));
        assert_eq!(equalised(&[7; 9]), [7; 9]);
        let mut field = Field { width: 6, height: 4, channels: 3, values: vec![0.25; 72] };
        spatter(&mut field, &[-9.0; 24], CIFAR[0]);
        assert_eq!(field.values, [0.25; 72]);
    }
}
