//! The world in front of the board: test photographs in seeded order, each at most once, since the monitor was told
//! that frames are independent. Healthy ones first, then stretches of weather and failing light.

use super::board::{Photograph, Stretch};
use crate::failure::Result;
use excon_edge::image::Picture;
use excon_train::corruption::Corruption;
use excon_train::dataset::Split;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Share of the photographs in the healthy stretch.
const HEALTHY: f64 = 0.5;
/// What becomes of the pictures afterwards, in three equal stretches.
const SHIFTS: [(&str, Corruption); 3] =
    [("fog", Corruption::Fog), ("noise", Corruption::GaussianNoise), ("dark", Corruption::Dark)];
/// Severity of all three, 1 to 5.
const SEVERITY: usize = 3;

/// The photographs of a split in seeded order.
pub fn photographs(split: &Split, seed: u64) -> Vec<Photograph> {
    let mut order: Vec<usize> = (0..split.len()).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    order.into_iter().map(|i| Photograph { picture: split.to_picture(i), truth: split.labels[i] }).collect()
}

/// Cuts photographs into a healthy stretch and one each of fog, noise and darkness.
pub fn stretches(photographs: &[Photograph], seed: u64) -> Result<Vec<Stretch>> {
    let healthy = (photographs.len() as f64 * HEALTHY).round() as usize;
    let (first, rest) = photographs.split_at(healthy);
    let part = rest.len().div_ceil(3).max(1);
    let mut stream = vec![stretch("healthy", first, |p| Ok(p.clone()))?];
    for ((number, (name, corruption)), frames) in (1..).zip(SHIFTS).zip(rest.chunks(part)) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        stream.push(stretch(name, frames, |picture| Ok(corruption.apply(picture, SEVERITY, &mut rng)?))?);
    }
    Ok(stream)
}

fn stretch(name: &str, frames: &[Photograph], mut seen: impl FnMut(&Picture) -> Result<Picture>) -> Result<Stretch> {
    let frames = frames.iter().map(|f| Ok(Photograph { picture: seen(&f.picture)?, truth: f.truth }));
    Ok(Stretch { name: name.into(), frames: frames.collect::<Result<_>>()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_photograph_comes_once_and_only_the_healthy_are_untouched() {
        let split = Split {
            size: 8,
            rgb: (0..31 * 192).map(|i| (i * 37 % 251) as u8).collect(),
            labels: (0..31).collect(),
            names: (0..31).map(|i| i.to_string()).collect(),
            ..Split::default()
        };
        let photographs = photographs(&split, 5);
        let stream = stretches(&photographs, 5).unwrap();
        assert_eq!(stream.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["healthy", "fog", "noise", "dark"]);
        let mut seen: Vec<usize> = stream.iter().flat_map(|s| &s.frames).map(|f| f.truth).collect();
        assert_ne!(seen, (0..31).collect::<Vec<_>>(), "shuffled");
        for stretch in &stream {
            for frame in &stretch.frames {
                let same = frame.picture == split.to_picture(frame.truth);
                assert_eq!(same, stretch.name == "healthy", "{} {}", stretch.name, frame.truth);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..31).collect::<Vec<_>>());
        assert_eq!(stretches(&photographs, 5).unwrap()[2].frames[0].picture, stream[2].frames[0].picture);
    }
}
