//! What a healthy stream looks like: sorted scores per channel, kept one frame in three autocorrelation times.
//!
//! Built from the rank half of the validation pictures (disjoint from the fit half) or from a device's own healthy
//! frames, both after the sensor check. It knows which conditions of the promise fail, and says so; it does not repair
//! them. Weights are part of it: they are fixed before a stream starts.

use super::autocorrelation::{FRAMES_PER_TIME, integrated_time};
use super::channel::Channel;
use super::scores::FrameScores;
use super::tensors::{Tensors, take, to_bytes};
use super::thinning::{Thinner, step_for};
use super::weights::Weights;
use crate::{Error, Result, file};

/// Kept frames below which the status adds `low power`.
pub const LOW_POWER: usize = 100;
/// Kept frames below which no reference is built.
pub const MINIMUM: usize = 10;

/// A condition of the promise that does not hold. The numbers stand in bundles and saved states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Problem {
    /// The score model was fitted on frames of the reference.
    FitAndRankOverlap = 0,
    /// The reference has fewer than 100 autocorrelation times, so that time is not known.
    AutocorrelationNotEstimable = 1,
    /// Frames of a video were accepted as the reference. They had been thinned before, by the old reference's
    /// autocorrelation time, so that their own is not known.
    AcceptedTimeUnknown = 4,
}

impl Problem {
    const ALL: [Self; 3] = [Self::FitAndRankOverlap, Self::AutocorrelationNotEstimable, Self::AcceptedTimeUnknown];

    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::FitAndRankOverlap => "fit and rank pictures are not disjoint",
            Self::AutocorrelationNotEstimable => {
                "autocorrelation not estimable: the reference is shorter than 100 autocorrelation times"
            }
            Self::AcceptedTimeUnknown => {
                "the reference was accepted on the device, and the autocorrelation time of its frames is not known"
            }
        }
    }
}

/// How a reference is made.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReferenceOptions {
    /// The pictures are independent of each other (a folder of photographs): neither they nor the stream are thinned.
    pub independent: bool,
    /// Share of the evidence per channel; renormalised over the channels that have scores.
    pub weights: Weights,
    /// Conditions the caller knows to fail.
    pub problems: Vec<Problem>,
}

/// Scores of healthy frames and how they were taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference {
    /// Sorted scores per channel; empty where the channel has none and is not tracked.
    sorted: Vec<Vec<f64>>,
    weights: Weights,
    frames: usize,
    raw_frames: usize,
    time: f64,
    step: usize,
    independent: bool,
    problems: Vec<Problem>,
}

impl Reference {
    /// Builds a reference from the scores of raw frames in order of time, all of which passed a
    /// [`super::sensor::SensorCheck`].
    ///
    /// The autocorrelation time is the largest over the channels that bet and have a score on every frame.
    ///
    /// # Errors
    /// When fewer than 10 frames are kept, or no channel with weight has scores, or a score is not finite.
    pub fn build(scores: &[FrameScores], options: &ReferenceOptions) -> Result<Self> {
        let series = |channel: Channel| -> Vec<f64> { scores.iter().filter_map(|s| s.get(channel)).collect() };
        let weights = options.weights.over(|c| scores.iter().any(|s| s.get(c).is_some()))?;
        let mut problems = options.problems.clone();
        let (time, step) = if options.independent {
            (1.0, 1)
        } else {
            let betting = Channel::ALL.into_iter().filter(|&c| weights.get(c) > 0.0).map(series);
            let times = betting.filter(|s| s.len() == scores.len()).filter_map(|s| integrated_time(&s));
            let time = times.fold(1.0, f64::max);
            if (scores.len() as f64) < FRAMES_PER_TIME * time {
                problems.push(Problem::AutocorrelationNotEstimable);
            }
            (time, step_for(time))
        };
        let mut thinner = Thinner::new(step);
        let kept: Vec<&FrameScores> = scores.iter().filter(|_| thinner.tick()).collect();
        Self::from_kept(&kept, weights, scores.len(), time, step, options.independent, problems)
    }

    /// A reference of frames that are kept already, such as those seen under an alarm.
    pub(super) fn from_kept(
        kept: &[&FrameScores],
        weights: Weights,
        raw_frames: usize,
        time: f64,
        step: usize,
        independent: bool,
        mut problems: Vec<Problem>,
    ) -> Result<Self> {
        if kept.len() < MINIMUM {
            let reason = format!(
                "{} effective frames from {raw_frames} (one in {step} is kept), at least {MINIMUM} are needed; \
                 give more pictures, or declare them independent where they are",
                kept.len()
            );
            return Err(Error::Data { what: "shift reference", reason });
        }
        let mut sorted = Vec::with_capacity(Channel::COUNT);
        for channel in Channel::ALL {
            let mut values: Vec<f64> = kept.iter().filter_map(|s| s.get(channel)).collect();
            if values.iter().any(|v| !v.is_finite()) {
                let reason = format!("{} has a score that is not finite; the engine is broken", channel.name());
                return Err(Error::Data { what: "shift reference", reason });
            }
            values.sort_by(f64::total_cmp);
            sorted.push(values);
        }
        let weights = weights.over(|c| !sorted[c.index()].is_empty())?;
        problems.sort_by_key(|p| *p as u8);
        problems.dedup();
        Ok(Self { sorted, weights, frames: kept.len(), raw_frames, time, step, independent, problems })
    }

    /// Sorted scores of a channel; empty when it is not tracked.
    pub fn values(&self, channel: Channel) -> &[f64] {
        &self.sorted[channel.index()]
    }

    /// Share of the evidence per channel.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Kept (effective) frames n.
    pub fn frames(&self) -> usize {
        self.frames
    }

    /// Raw frames it was taken from.
    pub fn raw_frames(&self) -> usize {
        self.raw_frames
    }

    /// Integrated autocorrelation time τ in raw frames; 1 when declared independent.
    pub fn autocorrelation_time(&self) -> f64 {
        self.time
    }

    /// Raw frames per kept frame, of reference and stream alike.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Whether the pictures were declared independent.
    pub fn independent(&self) -> bool {
        self.independent
    }

    /// Conditions of the promise that fail.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Whether there are too few frames to expect much of it.
    pub fn low_power(&self) -> bool {
        self.frames < LOW_POWER
    }

    /// SHA-256 over all of it, lower-case hex: a saved state belongs to one reference.
    pub fn digest(&self) -> String {
        // Shapes are right by construction, so serialising cannot fail; were it to, no state would ever match.
        let bytes = to_bytes(&self.to_tensors()).unwrap_or_default();
        file::digest(&bytes)
    }

    /// The reference as named tensors, prefix `reference.`.
    pub fn to_tensors(&self) -> Tensors {
        let about = vec![
            self.frames as f64,
            self.raw_frames as f64,
            self.time,
            self.step as f64,
            f64::from(u8::from(self.independent)),
        ];
        let problems: Vec<f64> = self.problems.iter().map(|p| f64::from(*p as u8)).collect();
        let weights = self.weights.as_slice().to_vec();
        let mut tensors = Tensors::from([
            ("reference.about".into(), (vec![about.len()], about)),
            ("reference.problems".into(), (vec![problems.len()], problems)),
            ("reference.weights".into(), (vec![weights.len()], weights)),
        ]);
        for channel in Channel::ALL {
            let values = self.values(channel).to_vec();
            if !values.is_empty() {
                tensors.insert(format!("reference.channel.{}", channel.name()), (vec![values.len()], values));
            }
        }
        tensors
    }

    /// Reads [`Reference::to_tensors`] back; other tensors are ignored.
    ///
    /// # Errors
    /// When a tensor is missing or malformed, or values are unsorted or not finite.
    pub fn from_tensors(tensors: &Tensors) -> Result<Self> {
        let refuse = |reason: &str| Error::Data { what: "shift reference", reason: reason.to_string() };
        let (_, about) = take(tensors, "reference.about", &[Some(5)])?;
        let (_, problems) = take(tensors, "reference.problems", &[None])?;
        let (_, weights) = take(tensors, "reference.weights", &[None])?;
        if weights.len() != Channel::COUNT {
            return Err(refuse(&format!(
                "it has {} channels, this program has {}: it was sealed by another version, convert the run anew",
                weights.len(),
                Channel::COUNT
            )));
        }
        let whole = |value: f64| {
            let fits = value >= 0.0 && value <= (1u64 << 53) as f64 && value.fract() == 0.0;
            if fits { Ok(value as usize) } else { Err(refuse("reference.about must hold whole numbers")) }
        };
        let named = |code: f64| Problem::ALL.into_iter().find(|p| f64::from(*p as u8) == code);
        let problems = problems
            .iter()
            .map(|code| named(*code).ok_or_else(|| refuse("unknown problem code")))
            .collect::<Result<Vec<_>>>()?;
        let weights = Weights::new(std::array::from_fn(|i| weights[i]))?;
        let frames = whole(about[0])?;
        let mut sorted = Vec::with_capacity(Channel::COUNT);
        for channel in Channel::ALL {
            let name = format!("reference.channel.{}", channel.name());
            let values = if tensors.contains_key(&name) { take(tensors, &name, &[None])?.1 } else { &[] };
            if values.iter().any(|v| !v.is_finite()) || !values.is_sorted() || values.len() > frames {
                return Err(refuse("channels must be finite, sorted and no longer than the reference"));
            }
            if values.is_empty() && weights.get(channel) > 0.0 {
                return Err(refuse("a channel with weight has no values"));
            }
            sorted.push(values.to_vec());
        }
        let (time, step) = (about[2], whole(about[3])?);
        if !time.is_finite() || time < 1.0 || step == 0 {
            return Err(refuse("autocorrelation time and step must be at least 1"));
        }
        let (raw_frames, independent) = (whole(about[1])?, about[4] != 0.0);
        Ok(Self { sorted, weights, frames, raw_frames, time, step, independent, problems })
    }
}
