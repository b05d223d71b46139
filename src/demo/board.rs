//! Act three, the board: the edge-runtime library and the sealed bundle, nothing else.
//!
//! It predicts photographs with their class-activation maps, then watches a stream. An alarm stays until it is
//! acknowledged; here that happens at the end of the stretch in which it rang, so that the next one can ring.

use excon_edge::Result;
use excon_edge::bundle::Bundle;
use excon_edge::image::Picture;
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::shift::{Channel, ChannelReading, Family, Likeness, Monitor, Observation, Promise, ScoreModel};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;

/// A photograph whose class is known.
pub struct Photograph {
    /// Its pixels.
    pub picture: Picture,
    /// Index of its class.
    pub truth: usize,
}

/// A stretch of the stream.
pub struct Stretch {
    /// `healthy`, `fog`, ….
    pub name: String,
    /// Its frames in order of time.
    pub frames: Vec<Photograph>,
}

/// What a stretch came to.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// Its name.
    pub name: String,
    /// Number of its first frame in the stream, from 1.
    pub first: usize,
    /// Number of its last frame.
    pub last: usize,
    /// Share of right predictions, 0..1.
    pub accuracy: f64,
    /// Mean calibrated confidence, 0..1.
    pub confidence: f64,
    /// The alarm that rang in it.
    pub alarm: Option<Rang>,
}

/// An alarm and what it rested on.
#[derive(Debug, Clone, Serialize)]
pub struct Rang {
    /// Frame of the stream, from 1.
    pub frame: usize,
    /// Frames since the stretch began, the alarming one included.
    pub after: usize,
    /// Family with the largest share of the evidence.
    pub family: Family,
    /// Its channels, the largest share first.
    pub rang: Vec<Channel>,
    /// What it looked like at the end of the stretch, the likeliest first.
    pub looks_like: Vec<Likeness>,
    /// Every channel as it stood, those of weight 0 too.
    pub channels: Vec<ChannelReading>,
    /// The frame.
    #[serde(skip)]
    pub picture: Picture,
    /// What the network said about it.
    #[serde(skip)]
    pub prediction: Prediction,
    /// Its class.
    #[serde(skip)]
    pub truth: usize,
}

/// A family's evidence over time.
#[derive(Debug, Clone, Serialize)]
pub struct FamilyTrace {
    /// Which family.
    pub family: Family,
    /// Its share of the alarm's weight; 0: shown only.
    pub weight: f64,
    /// `log10` of its mean evidence after each frame, its channels weighted among themselves; `null` for none yet.
    pub log10: Vec<Option<f64>>,
}

/// What watching the stream came to.
#[derive(Debug, Clone, Serialize)]
pub struct Watched {
    /// Stretches in order.
    pub phases: Vec<Phase>,
    /// `log10` of the merged evidence after each frame.
    pub log10: Vec<Option<f64>>,
    /// The same by family.
    pub families: Vec<FamilyTrace>,
    /// `log10` of the threshold.
    pub threshold: f64,
    /// What the monitor promises.
    pub promise: Promise,
    /// Median seconds from picture to prediction and score, one frame at a time.
    pub seconds_per_frame: f64,
    /// Frames whose map and logit did not agree.
    pub self_test_failures: u64,
}

/// The board.
pub struct Board {
    predictor: Predictor,
    monitor: Monitor,
}

impl Board {
    /// Boots from a bundle: verifies it, runs its golden inputs, starts a fresh monitor.
    pub fn boot(bundle: &Path) -> Result<Self> {
        let bundle = Bundle::open(bundle)?;
        let predictor = Predictor::from_bundle(&bundle)?;
        Ok(Self { predictor, monitor: Monitor::new(bundle.reference.clone(), bundle.contract())? })
    }

    /// Predicts photographs with their maps.
    pub fn predict(&self, photographs: &[Photograph]) -> Result<Vec<Prediction>> {
        let predictions = photographs.iter().map(|p| self.predictor.predict(&p.picture)).collect::<Result<Vec<_>>>()?;
        for prediction in &predictions {
            prediction.verify(self.predictor.engine().name())?;
        }
        Ok(predictions)
    }

    /// Watches a stream; `seen` hears the number of each frame and its observation.
    pub fn watch(mut self, stream: &[Stretch], mut seen: impl FnMut(usize, &Stretch, &Observation)) -> Result<Watched> {
        let mut phases = Vec::with_capacity(stream.len());
        let mut log10 = Vec::new();
        let mut families: Vec<FamilyTrace> = Vec::new();
        let mut times = Vec::new();
        let mut threshold = 0.0;
        for stretch in stream {
            let first = log10.len() + 1;
            let (mut right, mut confidence, mut rang) = (0, 0.0, None);
            for frame in &stretch.frames {
                let started = Instant::now();
                let prediction = self.predictor.predict(&frame.picture)?;
                let masked = self.monitor.masked_pass_due();
                let scores = self.predictor.scores(&frame.picture, &prediction, masked)?;
                let o = self.monitor.observe(&self.predictor.resize(&frame.picture), &scores);
                times.push(started.elapsed().as_secs_f64());
                right += usize::from(prediction.class == frame.truth);
                confidence += prediction.confidence;
                threshold = o.log_limit / std::f64::consts::LN_10;
                log10.push(finite(o.log_r / std::f64::consts::LN_10));
                trace(&mut families, &o.channels);
                if let (Some(alarm), None) = (&o.alarm, &rang) {
                    let number = log10.len();
                    rang = Some(Rang {
                        frame: number,
                        after: number + 1 - first,
                        family: alarm.family,
                        rang: alarm.channels.clone(),
                        looks_like: Vec::new(),
                        channels: o.channels.clone(),
                        picture: frame.picture.clone(),
                        prediction,
                        truth: frame.truth,
                    });
                }
                seen(log10.len(), stretch, &o);
            }
            if let Some(rang) = &mut rang {
                let looks = self.predictor.parts().scores.as_ref().and_then(ScoreModel::looks);
                rang.looks_like = looks.map_or(Vec::new(), |looks| looks.of(self.monitor.around_alarm()));
                self.monitor.acknowledge(false)?;
            }
            let n = stretch.frames.len().max(1) as f64;
            let (accuracy, confidence) = (right as f64 / n, confidence / n);
            let name = stretch.name.clone();
            phases.push(Phase { name, first, last: log10.len(), accuracy, confidence, alarm: rang });
        }
        times.sort_by(f64::total_cmp);
        Ok(Watched {
            phases,
            log10,
            families,
            threshold,
            promise: self.monitor.promise(),
            seconds_per_frame: times.get(times.len() / 2).copied().unwrap_or(0.0),
            self_test_failures: self.monitor.self_test_failures(),
        })
    }
}

fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Adds this frame's evidence of each family: the mean over its channels, by their weights, or evenly where the family
/// has none.
fn trace(families: &mut Vec<FamilyTrace>, channels: &[ChannelReading]) {
    for family in Family::ALL {
        let ours: Vec<&ChannelReading> = channels.iter().filter(|c| c.family == family).collect();
        if ours.is_empty() {
            continue;
        }
        let weight: f64 = ours.iter().map(|c| c.weight).sum();
        let share = |c: &ChannelReading| if weight > 0.0 { c.weight / weight } else { 1.0 / ours.len() as f64 };
        let top = ours.iter().filter(|c| share(c) > 0.0).map(|c| c.log_r).fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = ours.iter().map(|c| if top.is_finite() { share(c) * (c.log_r - top).exp() } else { 0.0 }).sum();
        let value = finite((top + sum.ln()) / std::f64::consts::LN_10);
        match families.iter_mut().find(|t| t.family == family) {
            Some(t) => t.log10.push(value),
            None => families.push(FamilyTrace { family, weight, log10: vec![value] }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(channel: Channel, weight: f64, log_r: f64) -> ChannelReading {
        ChannelReading { channel, family: channel.family(), weight, p: None, log_r, share: 0.0 }
    }

    #[test]
    fn a_family_is_the_mean_of_its_channels_whether_weighted_or_not() {
        let mut families = Vec::new();
        let ten = std::f64::consts::LN_10;
        trace(
            &mut families,
            &[
                reading(Channel::Confidence, 0.3, 2.0 * ten),
                reading(Channel::Cosine, 0.1, f64::NEG_INFINITY),
                reading(Channel::CamEntropy, 0.0, 3.0 * ten),
                reading(Channel::CamConcentration, 0.0, 3.0 * ten),
            ],
        );
        assert_eq!(families.len(), 2);
        assert!((families[0].log10[0].unwrap_or(f64::NAN) - 75f64.log10()).abs() < 1e-12);
        assert!((families[1].log10[0].unwrap_or(f64::NAN) - 3.0).abs() < 1e-12);
        assert_eq!(families[1].weight, 0.0);
        trace(&mut families, &[reading(Channel::Confidence, 0.3, f64::NEG_INFINITY)]);
        assert_eq!(families[0].log10[1], None);
    }
}
