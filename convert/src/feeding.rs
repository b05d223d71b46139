//! How a network of another program was fed: from bytes to the numbers of its input. An ONNX file does not say it, so the
//! user does.

use crate::{Error, Result};
use excon_edge::image::Preprocess;
use excon_train::dataset::Dataset;
use std::str::FromStr;

/// `(byte / 255 − mean) / std`, by name or by numbers.
#[derive(Debug, Clone, PartialEq)]
pub enum Feeding {
    /// Mean and deviation of R, G, B in 0..1.
    Values {
        /// Mean.
        mean: [f32; 3],
        /// Standard deviation.
        std: [f32; 3],
    },
    /// Those of the data set: the published ones of the benchmark sets, else of its training pictures.
    Data,
}

impl FromStr for Feeding {
    type Err = String;

    /// `0..1`, `-1..1`, `0..255`, `imagenet`, `data`, or `R,G,B/R,G,B` (mean and deviation in 0..1).
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let same = |mean, std| Ok(Self::Values { mean: [mean; 3], std: [std; 3] });
        match text {
            "0..1" => same(0.0, 1.0),
            "-1..1" => same(0.5, 0.5),
            "0..255" => same(0.0, 1.0 / 255.0),
            "imagenet" => Ok(Self::Values { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }),
            "data" => Ok(Self::Data),
            _ => {
                let three = |part: &str| -> Option<[f32; 3]> {
                    let numbers: Vec<f32> = part.split(',').map(|n| n.trim().parse().ok()).collect::<Option<_>>()?;
                    numbers.try_into().ok()
                };
                let values = text.split_once('/').and_then(|(mean, std)| Some((three(mean)?, three(std)?)));
                let (mean, std) = values.ok_or("use 0..1, -1..1, 0..255, imagenet, data, or R,G,B/R,G,B in 0..1")?;
                Ok(Self::Values { mean, std })
            }
        }
    }
}

impl Feeding {
    /// The preprocessing before a network whose own first step was `x · scale + shift` of each channel and is now part of
    /// it.
    ///
    /// # Errors
    /// When the values are out of range.
    pub fn preprocess(&self, size: usize, data: &Dataset, own: Option<([f64; 3], [f64; 3])>) -> Result<Preprocess> {
        let (mean, std) = match self {
            Self::Values { mean, std } => (*mean, *std),
            Self::Data => (data.mean, data.std),
        };
        let (scale, shift) = own.unwrap_or(([1.0; 3], [0.0; 3]));
        // ((p − mean) / std) · scale + shift = (p − (mean − shift · std / scale)) / (std / scale)
        let wide = |values: [f32; 3], c: usize| f64::from(values[c]);
        let preprocess = Preprocess {
            size,
            mean: std::array::from_fn(|c| (wide(mean, c) - shift[c] * wide(std, c) / scale[c]) as f32),
            std: std::array::from_fn(|c| (wide(std, c) / scale[c]) as f32),
        };
        preprocess.validate().map_err(|error| Error::Setting {
            name: "preprocess".into(),
            reason: format!("{error}, after the network's own first step (x · {scale:?} + {shift:?})"),
        })?;
        Ok(preprocess)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_numbers_and_a_networks_own_first_step() {
        let data = Dataset {
            name: "d".into(),
            labels: vec![],
            digest: String::new(),
            mean: [0.4; 3],
            std: [0.2; 3],
            train: Default::default(),
            validation: Default::default(),
            test: Default::default(),
            pairs: None,
        };
        let made = |text: &str, own| text.parse::<Feeding>().unwrap().preprocess(32, &data, own);
        assert_eq!(made("data", None).unwrap().mean, [0.4; 3]);
        assert_eq!(made("0.1,0.2,0.3/1,0.5,0.5", None).unwrap().std, [1.0, 0.5, 0.5]);
        // x / 127.5 − 1 on 0..255 is −1..1.
        let own = Some(([1.0 / 127.5; 3], [-1.0; 3]));
        let (a, b) = (made("0..255", own).unwrap(), made("-1..1", None).unwrap());
        for c in 0..3 {
            assert!((a.mean[c] - b.mean[c]).abs() < 1e-6 && (a.std[c] - b.std[c]).abs() < 1e-6);
        }
        assert!(made("0..1", own).unwrap_err().to_string().contains("out of range") || made("0..1", own).is_err());
        assert!("0.1,0.2/1,1,1".parse::<Feeding>().is_err());
    }
}
