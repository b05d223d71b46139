//! Background mixup: SupCon whose view 1 comes, with a set probability, from the picture on another picture's
//! background. `x' = m · x + (1 − m) · b` with m the picture's saliency in 0..1 and b the other picture with its object
//! covered: the largest strip beside the object's box is tiled over the box.
//!
//! Saliency is the class-activation map of the picture's label (`[explain]`, negative evidence cut off), taken of all
//! training pictures with the network as it is when an epoch begins, running statistics, so that a resumed run finds the
//! same. Before `exp_epochs` the step is plain SupCon. Where one of the two has no strip, the picture stays as it is.
//!
//! Source: the second half of ContraCAM, arXiv 2108.00049, and its released code (probability 0.4, box at 0.2, view 1
//! alone, tiled strip). Ours: masks from the network in training where the paper stores those of a finished contrastive
//! one; the mix comes before crop and colours, the code's after; supervised, where the paper has MoCo and BYOL. Unknown:
//! what that is worth; no figure is claimed. Cost: 7 units a picture to SupCon's 6.

use super::supcon::Supcon;
use super::{Batch, Needs, Purpose, Recipe, Sample, Slot, Step, Trains, stream};
use crate::Result;
use crate::config::{MixupConfig, TrainConfig};
use crate::dataset::{Dataset, Split};
use crate::evaluate::standard;
use crate::explain::{ExplainConfig, ExplainerNorm, saliency};
use crate::network::Network;
use excon_edge::saliency::Map;
use rand::RngExt;
use std::borrow::Cow;

/// Pictures that are explained at once.
const BATCH: usize = 128;

/// The recipe.
pub(super) struct BackgroundMixup {
    supcon: Supcon,
    explain: ExplainConfig,
    settings: MixupConfig,
    exp_epochs: usize,
    /// One per training picture at the map's own resolution, of this epoch; empty before `exp_epochs`.
    maps: Vec<Map>,
}

impl BackgroundMixup {
    pub fn new(config: &TrainConfig) -> Self {
        Self {
            supcon: Supcon::new(config),
            // The masks of an epoch must not depend on its batches, nor move the running statistics.
            explain: ExplainConfig { explainer_bn: ExplainerNorm::Eval, ..config.explain },
            settings: config.mixup,
            exp_epochs: config.exp_epochs,
            maps: Vec::new(),
        }
    }

    /// Saliency of a training picture in 0..1, enlarged to `size × size`.
    fn mask(&self, index: usize, size: usize) -> Map {
        self.maps[index].upsample(size, size).normalised()
    }
}

impl Recipe for BackgroundMixup {
    fn needs(&self, epoch: usize) -> Needs {
        self.supcon.needs(epoch)
    }

    fn trains(&self, epoch: usize) -> Trains {
        self.supcon.trains(epoch)
    }

    fn begin(&mut self, network: &Network, data: &Dataset, epoch: usize) -> Result<()> {
        self.maps.clear();
        if epoch >= self.exp_epochs {
            for indices in (0..data.train.len()).collect::<Vec<_>>().chunks(BATCH) {
                let labels: Vec<usize> = indices.iter().map(|&i| data.train.labels[i]).collect();
                let images = standard(&data.train, indices, data)?;
                self.maps.extend(saliency(network, &self.explain, &images, &labels)?.maps);
            }
        }
        Ok(())
    }

    fn picture<'a>(&'a self, train: &'a Split, of: Sample) -> Cow<'a, [u8]> {
        let picture = train.picture(of.draw.index);
        if self.maps.is_empty() || of.slot != Slot::Second {
            return Cow::Borrowed(picture);
        }
        let mut rng = stream(of.seed, Purpose::Background, of.epoch, of.draw.key);
        let chosen = rng.random_bool(self.settings.probability);
        let other = rng.random_range(0..train.len() as u64) as usize;
        let box_of = |map: &Map| Region::of(map, self.settings.threshold);
        let mask = self.mask(of.draw.index, train.size);
        if !chosen || box_of(&mask).strip(train.size).is_none() {
            return Cow::Borrowed(picture);
        }
        let object = box_of(&self.mask(other, train.size));
        match background(train.picture(other), train.size, object) {
            Some(background) => Cow::Owned(mix(picture, &background, &mask)),
            None => Cow::Borrowed(picture),
        }
    }

    fn step(&mut self, network: &Network, batch: &Batch) -> Result<Step> {
        self.supcon.step(network, batch)
    }
}

/// A rectangle of pixels; upper ends excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    x: (usize, usize),
    y: (usize, usize),
}

impl Region {
    /// The smallest one that holds every cell of at least `threshold`; the whole map where there is none.
    fn of(map: &Map, threshold: f32) -> Self {
        let mut region = Self { x: (map.width, 0), y: (map.height, 0) };
        for (i, _) in map.values.iter().enumerate().filter(|(_, v)| **v >= threshold) {
            let (x, y) = (i % map.width, i / map.width);
            region.x = (region.x.0.min(x), region.x.1.max(x + 1));
            region.y = (region.y.0.min(y), region.y.1.max(y + 1));
        }
        if region.x.1 == 0 { Self { x: (0, map.width), y: (0, map.height) } } else { region }
    }

    /// The largest strip beside it that runs from border to border of a `size × size` picture, the first of equals of
    /// top, left, right, bottom; none where it leaves no room.
    fn strip(&self, size: usize) -> Option<Self> {
        let all = (0, size);
        let top = Self { x: all, y: (0, self.y.0) };
        let left = Self { x: (0, self.x.0), y: all };
        let right = Self { x: (self.x.1, size), y: all };
        let bottom = Self { x: all, y: (self.y.1, size) };
        let best = [bottom, right, left, top].into_iter().max_by_key(Self::area)?;
        (best.area() > 0).then_some(best)
    }

    fn area(&self) -> usize {
        (self.x.1 - self.x.0) * (self.y.1 - self.y.0)
    }

    fn width(&self) -> usize {
        self.x.1 - self.x.0
    }

    fn height(&self) -> usize {
        self.y.1 - self.y.0
    }
}

/// A picture whose `object` is covered by its largest strip, tiled; `None` where there is no strip.
fn background(picture: &[u8], size: usize, object: Region) -> Option<Vec<u8>> {
    let strip = object.strip(size)?;
    let mut covered = picture.to_vec();
    for y in object.y.0..object.y.1 {
        for x in object.x.0..object.x.1 {
            let from = ((strip.y.0 + y % strip.height()) * size + strip.x.0 + x % strip.width()) * 3;
            covered[(y * size + x) * 3..][..3].copy_from_slice(&picture[from..from + 3]);
        }
    }
    Some(covered)
}

/// `m · picture + (1 − m) · background`, rounded.
fn mix(picture: &[u8], background: &[u8], mask: &Map) -> Vec<u8> {
    let pairs = picture.chunks_exact(3).zip(background.chunks_exact(3)).zip(&mask.values);
    let blend = |a: u8, b: u8, m: f32| (m * f32::from(a) + (1.0 - m) * f32::from(b) + 0.5) as u8;
    pairs.flat_map(|((a, b), m)| [0, 1, 2].map(|c| blend(a[c], b[c], m.clamp(0.0, 1.0)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 8;

    /// Every pixel names its place.
    fn picture() -> Vec<u8> {
        (0..SIZE * SIZE).flat_map(|i| [i as u8, 100, 200]).collect()
    }

    fn map(of: impl Fn(usize, usize) -> f32) -> Map {
        let values = (0..SIZE * SIZE).map(|i| of(i % SIZE, i / SIZE)).collect();
        Map { width: SIZE, height: SIZE, values }
    }

    #[test]
    fn the_box_holds_what_is_salient_and_the_strip_is_the_largest_beside_it() {
        let object = Region::of(&map(|x, y| if (2..5).contains(&x) && (1..4).contains(&y) { 0.2 } else { 0.19 }), 0.2);
        assert_eq!(object, Region { x: (2, 5), y: (1, 4) });
        assert_eq!(object.strip(SIZE), Some(Region { x: (0, 8), y: (4, 8) }));
        let tall = Region { x: (1, 5), y: (0, 8) };
        assert_eq!(tall.strip(SIZE), Some(Region { x: (5, 8), y: (0, 8) }));
        // Equal ones: the top comes first.
        let centred = Region { x: (3, 5), y: (3, 5) };
        assert_eq!(centred.strip(SIZE), Some(Region { x: (0, 8), y: (0, 3) }));
        let all = Region::of(&map(|_, _| 0.0), 0.2);
        assert_eq!((all.area(), all.strip(SIZE)), (64, None));
        assert_eq!(background(&picture(), SIZE, all), None);
    }

    #[test]
    fn no_pixel_of_the_object_is_left_and_the_others_stay() {
        for object in
            [Region { x: (2, 5), y: (1, 4) }, Region { x: (1, 5), y: (0, 8) }, Region { x: (0, 8), y: (2, 8) }]
        {
            let covered =
                background(&picture(), SIZE, object).map(|b| b.iter().step_by(3).copied().collect::<Vec<_>>());
            for (i, &from) in covered.iter().flatten().enumerate() {
                let inside = |i: usize| {
                    (object.x.0..object.x.1).contains(&(i % SIZE)) && (object.y.0..object.y.1).contains(&(i / SIZE))
                };
                assert!(!inside(from.into()), "{object:?}: pixel {i} shows the object");
                assert!(inside(i) || usize::from(from) == i, "{object:?}: pixel {i} changed");
            }
        }
        // Rows 0 and 1 over rows 2 to 7, by turns.
        let covered = background(&picture(), SIZE, Region { x: (0, 8), y: (2, 8) }).unwrap_or_default();
        assert_eq!((covered[3 * 16], covered[3 * 25]), (0, 9));
    }

    #[test]
    fn the_mask_weighs_picture_and_background() {
        let (a, b) = (vec![200u8; SIZE * SIZE * 3], vec![100u8; SIZE * SIZE * 3]);
        assert_eq!(mix(&a, &b, &map(|_, _| 1.0)), a);
        assert_eq!(mix(&a, &b, &map(|_, _| 0.0)), b);
        assert!(mix(&a, &b, &map(|_, _| 0.25)).iter().all(|v| *v == 125));
    }
}
