//! The declared family: the shifts a bundle is told to expect, applied to pictures of the fit half at convert time.
//!
//! Their light form gives the [`super::Directions`]; light, strong and in pairs they give the residuals of the accuracy
//! estimate ([`crate::accuracy`]). They are plain drawings of what happens in front of a camera, not
//! the corruptions of a benchmark; four are of a kind with one of those and say so in [`Declared::resembles`], so that a
//! study can tell what was expected from what was not. Sizes are shares of the picture's side, strengths of the range
//! of values, so that they mean the same at every network size.

use crate::image::Picture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A shift of the declared family, in the order of [`super::Channel::TOWARD`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    /// A camera that moves: mean along a random line of a tenth of the side.
    MotionBlur,
    /// White flakes on 4 % of the pixels, smeared by one pixel.
    Snow,
    /// A bluish veil that varies slowly over the picture.
    Frost,
    /// Dark stains on a tenth of the picture.
    Spatter,
    /// Eight levels a colour.
    Posterise,
    /// Values above 0.75 are inverted.
    Solarise,
    /// Values to the power of 1.4.
    Gamma,
    /// Colours turned by 25° around grey.
    Hue,
    /// The picture turned by up to 12° either way.
    Rotation,
    /// A grey square of a quarter of the side.
    Occlusion,
    /// Corners darkened by half.
    Vignette,
    /// Red a tenth more, blue a tenth less.
    ColourCast,
    /// Differences to the 3×3 mean enlarged by 0.8.
    Sharpen,
    /// Rows brightened and darkened in turn by 0.04.
    Banding,
}

impl Declared {
    /// Number of shifts.
    pub const COUNT: usize = 14;

    /// Every shift.
    pub const ALL: [Self; Self::COUNT] = [
        Self::MotionBlur,
        Self::Snow,
        Self::Frost,
        Self::Spatter,
        Self::Posterise,
        Self::Solarise,
        Self::Gamma,
        Self::Hue,
        Self::Rotation,
        Self::Occlusion,
        Self::Vignette,
        Self::ColourCast,
        Self::Sharpen,
        Self::Banding,
    ];

    /// The corruption of the common benchmark that is of the same kind, by its name there.
    pub fn resembles(self) -> Option<&'static str> {
        match self {
            Self::MotionBlur => Some("motion_blur"),
            Self::Snow => Some("snow"),
            Self::Frost => Some("frost"),
            Self::Spatter => Some("spatter"),
            _ => None,
        }
    }

    /// The picture under the light form of the shift, of the same size. Equal seeds give equal pictures.
    pub fn apply(self, picture: &Picture, seed: u64) -> Picture {
        self.apply_at(picture, seed, 1.0)
    }

    /// The same at a strength: 1 is light, as described at each shift; amounts (angles, shares, heights, the part of the
    /// range of values that is touched) grow in proportion. Above 0, at most 3.
    pub fn apply_at(self, picture: &Picture, seed: u64, strength: f32) -> Picture {
        let s = strength;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(self as u64);
        let field = Field::of(picture);
        let side = picture.width.min(picture.height) as f32;
        let shifted = match self {
            Self::MotionBlur => {
                let (sin, cos) = (std::f32::consts::TAU * unit(&mut rng)).sin_cos();
                let reach = (s * 0.05 * side).max(1.0);
                let steps = [-1.0, -0.5, 0.0, 0.5, 1.0].map(|t| t * reach);
                field.each(|x, y, _| mean(steps.map(|t| field.at(x as f32 + t * cos, y as f32 + t * sin))))
            }
            Self::Snow => {
                let flakes: Vec<f32> = (0..field.values.len()).map(|_| f32::from(unit(&mut rng) < s * 0.02)).collect();
                let flake = |x: usize, y: usize| flakes[y.min(field.height - 1) * field.width + x.min(field.width - 1)];
                field.each(|x, y, pixel| {
                    let white = 0.8 * flake(x, y).max(flake(x + 1, y + 1));
                    pixel.map(|v| (v + s * 0.08 * (1.0 - v)).max(white + (1.0 - white) * v))
                })
            }
            Self::Frost => {
                let veil = Waves::new(&mut rng, 3.0);
                field.each(|x, y, [r, g, b]| {
                    let a = (s * (0.15 + 0.15 * veil.at(x as f32 / side, y as f32 / side))).min(1.0);
                    [r + a * (0.75 - r), g + a * (0.85 - g), b + a * (0.95 - b)]
                })
            }
            Self::Spatter => {
                let stains = Waves::new(&mut rng, 6.0);
                let stained = |x: usize, y: usize| stains.at(x as f32 / side, y as f32 / side) > 1.0 - s * 0.25;
                field.each(|x, y, p| if stained(x, y) { p.map(|v| 0.5 * v + 0.1) } else { p })
            }
            Self::Posterise => {
                let steps = (7.0 / s).round().max(1.0);
                field.each(|_, _, pixel| pixel.map(|v| (v * steps).round() / steps))
            }
            Self::Solarise => {
                let above = 1.0 - s * 0.25;
                field.each(|_, _, pixel| pixel.map(|v| if v > above { 2.0 * above - v } else { v }))
            }
            Self::Gamma => field.each(|_, _, pixel| pixel.map(|v| v.powf(1.0 + s * 0.4))),
            Self::Hue => {
                let (sin, cos) = (s * 25f32.to_radians() * sign(&mut rng)).sin_cos();
                field.each(|_, _, pixel| turned_hue(pixel, sin, cos))
            }
            Self::Rotation => {
                let (sin, cos) = (s * 12f32.to_radians() * (2.0 * unit(&mut rng) - 1.0)).sin_cos();
                let (cx, cy) = (0.5 * (field.width - 1) as f32, 0.5 * (field.height - 1) as f32);
                field.each(|x, y, _| {
                    let (dx, dy) = (x as f32 - cx, y as f32 - cy);
                    field.at(cx + cos * dx - sin * dy, cy + sin * dx + cos * dy)
                })
            }
            Self::Occlusion => {
                let (square, free) = (s * 0.25 * side, (1.0 - s * 0.25) * side);
                let (left, top) = (free * unit(&mut rng), free * unit(&mut rng));
                let inside = |at: usize, from: f32| (from..from + square).contains(&(at as f32));
                field.each(|x, y, p| if inside(x, left) && inside(y, top) { [0.5; 3] } else { p })
            }
            Self::Vignette => field.each(|x, y, pixel| {
                let (dx, dy) = (2.0 * x as f32 / field.width as f32 - 1.0, 2.0 * y as f32 / field.height as f32 - 1.0);
                pixel.map(|v| v * (1.0 - s * 0.25 * (dx * dx + dy * dy)))
            }),
            Self::ColourCast => field.each(|_, _, [r, g, b]| [(1.0 + s * 0.1) * r, g, (1.0 - s * 0.1) * b]),
            Self::Sharpen => field.each(|x, y, pixel| {
                let around = field.around(x, y);
                std::array::from_fn(|c| pixel[c] + s * 0.8 * (pixel[c] - around[c]))
            }),
            Self::Banding => {
                let (period, phase) = ((0.125 * side).max(2.0), unit(&mut rng));
                field.each(|_, y, pixel| {
                    let wave = (std::f32::consts::TAU * (y as f32 / period + phase)).sin();
                    pixel.map(|v| v + s * 0.04 * wave)
                })
            }
        };
        shifted.to_picture()
    }
}

/// A picture in 0..1.
struct Field {
    width: usize,
    height: usize,
    values: Vec<[f32; 3]>,
}

impl Field {
    fn of(picture: &Picture) -> Self {
        let values = picture.rgb.chunks_exact(3).map(|p| [p[0], p[1], p[2]].map(|v| f32::from(v) / 255.0));
        Self { width: picture.width, height: picture.height, values: values.collect() }
    }

    /// A field of the same size, from column, row and pixel.
    fn each(&self, new: impl Fn(usize, usize, [f32; 3]) -> [f32; 3]) -> Self {
        let values = self.values.iter().enumerate();
        let values = values.map(|(i, &pixel)| new(i % self.width, i / self.width, pixel)).collect();
        Self { values, ..*self }
    }

    /// Bilinear, the border repeated outside.
    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let (x, y) = (x.clamp(0.0, (self.width - 1) as f32), y.clamp(0.0, (self.height - 1) as f32));
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let pixel = |x: usize, y: usize| self.values[y * self.width + x];
        std::array::from_fn(|c| {
            let above = pixel(left, top)[c] * (1.0 - fx) + pixel(right, top)[c] * fx;
            let below = pixel(left, bottom)[c] * (1.0 - fx) + pixel(right, bottom)[c] * fx;
            above * (1.0 - fy) + below * fy
        })
    }

    /// Mean of the 3×3 pixels around.
    fn around(&self, x: usize, y: usize) -> [f32; 3] {
        let offset = |i: usize| ((i % 3) as f32 - 1.0, (i / 3) as f32 - 1.0);
        mean(std::array::from_fn::<_, 9, _>(|i| self.at(x as f32 + offset(i).0, y as f32 + offset(i).1)))
    }

    fn to_picture(&self) -> Picture {
        let byte = |v: &f32| (v * 255.0).round().clamp(0.0, 255.0) as u8;
        Picture { width: self.width, height: self.height, rgb: self.values.as_flattened().iter().map(byte).collect() }
    }
}

/// Three crossing waves of random direction: a smooth pattern in −1..1.
struct Waves([[f32; 3]; 3]);

impl Waves {
    /// `cycles` waves over the picture's side.
    fn new(rng: &mut ChaCha8Rng, cycles: f32) -> Self {
        Self(std::array::from_fn(|_| {
            let (sin, cos) = (std::f32::consts::TAU * unit(rng)).sin_cos();
            [cycles * cos, cycles * sin, unit(rng)]
        }))
    }

    fn at(&self, x: f32, y: f32) -> f32 {
        self.0.iter().map(|[a, b, phase]| (std::f32::consts::TAU * (a * x + b * y + phase)).sin()).sum::<f32>() / 3.0
    }
}

/// Turned around the grey axis (Rodrigues' formula).
fn turned_hue(pixel: [f32; 3], sin: f32, cos: f32) -> [f32; 3] {
    let [r, g, b] = pixel;
    let grey = (r + g + b) / 3.0 * (1.0 - cos);
    let cross = [b - g, r - b, g - r].map(|v| v * sin / 3f32.sqrt());
    std::array::from_fn(|c| cos * pixel[c] + cross[c] + grey)
}

fn mean<const N: usize>(pixels: [[f32; 3]; N]) -> [f32; 3] {
    std::array::from_fn(|c| pixels.iter().map(|p| p[c]).sum::<f32>() / N as f32)
}

/// In 0..1.
fn unit(rng: &mut ChaCha8Rng) -> f32 {
    (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32
}

fn sign(rng: &mut ChaCha8Rng) -> f32 {
    if rng.next_u32() & 1 == 0 { 1.0 } else { -1.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shift_changes_a_picture_the_same_way_for_the_same_seed() {
        for (width, height) in [(32, 32), (9, 5), (2, 1)] {
            let rgb = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
            let picture = Picture { width, height, rgb };
            for shift in Declared::ALL {
                let once = shift.apply(&picture, 7);
                assert_eq!(once, shift.apply(&picture, 7));
                assert_eq!((once.width, once.height, once.rgb.len()), (width, height, picture.rgb.len()));
                assert!(width < 32 || once != picture, "{shift:?} leaves the picture as it was");
            }
        }
    }

    #[test]
    fn the_strong_form_changes_more_than_the_light_one() {
        let wave = |i: usize| {
            let (x, y, c) = (i / 3 % 32, i / 96, i % 3);
            (127.5 + 120.0 * (0.4 * x as f32 + 0.25 * y as f32 + c as f32).sin()) as u8
        };
        let picture = Picture { width: 32, height: 32, rgb: (0..32 * 32 * 3).map(wave).collect() };
        for shift in Declared::ALL {
            let off = |strength: f32| -> u32 {
                let shifted = shift.apply_at(&picture, 7, strength);
                shifted.rgb.iter().zip(&picture.rgb).map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
            };
            assert!(off(2.0) > off(1.0), "{shift:?}: {} and {}", off(1.0), off(2.0));
        }
    }

    #[test]
    fn a_turn_of_hue_keeps_grey_and_brightness() {
        let (sin, cos) = 25f32.to_radians().sin_cos();
        let grey = turned_hue([0.4; 3], sin, cos);
        assert!(grey.iter().all(|v| (v - 0.4).abs() < 1e-6), "{grey:?}");
        let pixel = [0.9, 0.2, 0.4];
        let turned = turned_hue(pixel, sin, cos);
        assert!((turned.iter().sum::<f32>() - pixel.iter().sum::<f32>()).abs() < 1e-6);
        assert!(turned[1] > pixel[1], "red turns towards yellow: {turned:?}");
    }
}
