//! What corruptions look like to a network: drawn on pictures of the fit half, scored by the engine that will run.

use crate::{Error, Result};
use excon_edge::image::Picture;
use excon_edge::predictor::Predictor;
use excon_edge::shift::{FrameScores, Look, Looks};
use excon_train::corruption::Corruption;
use excon_train::dataset::Split;
use excon_train::evaluate::spread;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Pictures of the fit half, at most.
const PICTURES: usize = 128;
/// Severities that are drawn; the others lie between and beside them.
const SEVERITIES: [usize; 2] = [2, 4];

/// The kind that a corruption is of.
pub fn look(corruption: Corruption) -> Look {
    use Corruption::*;
    match corruption {
        GaussianNoise | ShotNoise | ImpulseNoise | SpeckleNoise => Look::Noise,
        DefocusBlur | GlassBlur | MotionBlur | ZoomBlur | GaussianBlur => Look::Blur,
        Pixelate | JpegCompression => Look::Coarse,
        Fog | Contrast => Look::Haze,
        Brightness => Look::Bright,
        Dark => Look::Dark,
        Snow | FrostLike | Spatter => Look::Weather,
        Saturate => Look::Colour,
        ElasticTransform => Look::Warp,
        // The list of corruptions may grow; `every_corruption_is_of_a_kind` then asks for its kind.
        _ => Look::Unchanged,
    }
}

/// Learns the looks from pictures spread over the fit half. `predictor` has its score model; equal pictures give equal
/// looks.
///
/// # Errors
/// [`Error::Edge`] when there are too few pictures or the engine fails, [`Error::Train`] when a corruption does not suit them.
pub fn learn(predictor: &Predictor, fit: &Split) -> Result<Looks> {
    let chosen = spread(fit.len(), PICTURES);
    let pictures: Vec<Picture> = chosen.into_iter().map(|i| predictor.resize(&fit.to_picture(i))).collect();
    let healthy = scores(predictor, &pictures)?;
    let drawn: Vec<(Corruption, usize)> =
        Corruption::ALL.into_iter().flat_map(|c| SEVERITIES.map(|severity| (c, severity))).collect();
    let place = |&(corruption, severity): &(Corruption, usize)| -> Result<(Look, Vec<FrameScores>)> {
        let mut rng = ChaCha8Rng::seed_from_u64(severity as u64);
        rng.set_stream(corruption as u64);
        let corrupted = |p: &Picture| corruption.apply(p, severity, &mut rng).map_err(Error::from);
        let seen = pictures.iter().map(corrupted).collect::<Result<Vec<_>>>()?;
        Ok((look(corruption), scores(predictor, &seen)?))
    };
    let places = drawn.par_iter().map(place).collect::<Result<Vec<_>>>()?;
    Ok(Looks::learn(&healthy, &places)?)
}

fn scores(predictor: &Predictor, pictures: &[Picture]) -> Result<Vec<FrameScores>> {
    let predictions = predictor.predict_all(pictures)?;
    let score = |(picture, p)| Ok(predictor.scores(picture, p, false)?);
    pictures.iter().zip(&predictions).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corruption_is_of_a_kind() {
        for corruption in Corruption::ALL {
            assert_ne!(look(corruption), Look::Unchanged, "{corruption}");
        }
    }
}
