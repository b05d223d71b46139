//! The fitted part: what links confidence to accuracy, how far that link was off under shifts that were declared, and
//! what those shifts look like.
//!
//! Three estimates of the share of right answers among frames without labels. *Confidence-based performance estimation*
//! (CBPE, NannyML): the mean calibrated confidence. *Average thresholded confidence* (ATC, Garg et al. 2022): the share
//! of frames above the confidence that, on healthy pictures, as large a share lies above as is answered rightly.
//! *Difference of confidences* (DoC, Guillory et al. 2021): the healthy accuracy plus a slope times the change of the
//! mean confidence, the slope fitted over the declared family. What is told is the mean of DoC and of ATC with a slope of
//! its own: by themselves CBPE and ATC see a part of the loss only. Each shift of the family is estimated by slopes that
//! were fitted without it; the largest misses are what an interval is made of. They are kept in units of a *spread*: the
//! further the estimate and the pictures have moved, the more may be wrong.

use crate::probability::Z95;
use crate::shift::{Channel, FrameScores, Tensors, take};
use crate::{Error, Result};
use serde::Serialize;

/// Spread while nothing has moved, in 0..1 as accuracy is.
const STILL: f64 = 0.02;
/// Spread for pictures whose statistics have moved by one standard deviation (root mean square).
const PIXELS: f64 = 0.05;
/// Standard errors that a mean of frames may lie beyond what the family showed before that counts as outside.
const OUTSIDE: f64 = 4.0;
/// Values of a range among the tensors.
const RANGE: usize = 5;
/// A score in a sum: an infinite one would hide all others, and no file could keep it.
const LARGEST: f64 = 1e9;

/// What each way says by itself, in 0..1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimators {
    /// Average thresholded confidence.
    pub atc: f64,
    /// Difference of confidences.
    pub doc: f64,
    /// Confidence-based performance estimation.
    pub cbpe: f64,
    /// What is told.
    #[serde(skip)]
    pub told: f64,
}

impl Estimators {
    /// Their number, with what is told.
    pub const COUNT: usize = 4;
    /// Their names, in the order of [`Estimators::values`].
    pub const NAMES: [&'static str; Self::COUNT] = ["atc", "doc", "cbpe", "told"];

    /// Each, and what is told last.
    pub fn values(&self) -> [f64; Self::COUNT] {
        [self.atc, self.doc, self.cbpe, self.told]
    }
}

/// Sums over frames: all that an estimate needs.
#[derive(Debug, Clone, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Frames.
    pub frames: u64,
    /// Calibrated probability of the predicted class.
    pub confidence: f64,
    /// Its square.
    pub squares: f64,
    /// Frames above ATC's threshold.
    pub above: u64,
    /// Scores, in the order of the model's channels.
    pub scores: Vec<f64>,
}

impl Sums {
    /// The sums of one frame; none when one of the scores that the model needs is missing.
    pub fn of(model: Option<&AccuracyModel>, scores: &FrameScores) -> Option<Self> {
        match model {
            Some(model) => model.frame(scores),
            None => confidence(scores).map(Self::sure),
        }
    }

    fn sure(confidence: f64) -> Self {
        Self { frames: 1, confidence, squares: confidence * confidence, ..Self::default() }
    }

    /// Adds the sums of other frames.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.confidence += other.confidence;
        self.squares += other.squares;
        self.above += other.above;
        self.scores.resize(other.scores.len().max(self.scores.len()), 0.0);
        self.scores.iter_mut().zip(&other.scores).for_each(|(sum, score)| *sum += score);
    }
}

/// What the mean of a score showed over the declared family, healthy pictures among it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Range {
    pub(super) channel: Channel,
    pub(super) low: f64,
    pub(super) high: f64,
    /// Largest standard deviation of one frame.
    pub(super) deviation: f64,
    /// Mean and standard deviation of healthy frames.
    pub(super) healthy: [f64; 2],
}

/// See the module's first paragraph.
#[derive(Debug, Clone, PartialEq)]
pub struct AccuracyModel {
    /// Share of healthy pictures answered rightly, and their mean confidence.
    pub(super) accuracy: f64,
    pub(super) confidence: f64,
    pub(super) threshold: f64,
    /// Change of accuracy by change of mean confidence, and by change of the share above the threshold.
    pub(super) slopes: [f64; 2],
    /// Healthy pictures.
    pub(super) pictures: usize,
    /// For each estimator, how far accuracy lay below it and above it at most, in spreads.
    pub(super) misses: [[f64; 2]; Estimators::COUNT],
    /// For each estimator, variance of one frame's rightness less what the frame adds to the estimate: the mean over the
    /// family.
    pub(super) scatter: [f64; Estimators::COUNT],
    pub(super) ranges: Vec<Range>,
}

impl AccuracyModel {
    /// The unit of misses: how far the estimate has moved from the healthy accuracy, and the pictures from healthy ones.
    pub(super) fn spread(&self, value: f64, sums: &Sums) -> f64 {
        let pictures = self.ranges.iter().zip(&sums.scores).filter(|(range, _)| {
            Channel::PIXELS.contains(&range.channel) || Channel::RESIDUALS.contains(&range.channel)
        });
        let (mut squares, mut count) = (0.0, 0.0f64);
        for (range, sum) in pictures {
            let [mean, deviation] = range.healthy;
            squares += ((sum / sums.frames as f64 - mean) / deviation).powi(2);
            count += 1.0;
        }
        STILL + (self.accuracy - value).abs() + PIXELS * (squares / count.max(1.0)).sqrt()
    }

    /// Accuracy on healthy pictures, in 0..1.
    pub fn healthy(&self) -> f64 {
        self.accuracy
    }

    /// Healthy pictures that it was fitted on.
    pub fn pictures(&self) -> usize {
        self.pictures
    }

    /// For people: what it was fitted on, and what its interval is made of.
    pub fn words(&self) -> String {
        let [below, above] = self.misses[Estimators::COUNT - 1].map(|miss| 100.0 * miss * STILL);
        format!(
            "{:.1} % right on {} healthy pictures; under the declared family at most {below:.1} points less and \
             {above:.1} more than estimated while nothing has moved",
            100.0 * self.accuracy,
            self.pictures
        )
    }

    /// ATC's threshold: tells models apart.
    pub(super) fn threshold(&self) -> f64 {
        self.threshold
    }

    pub(super) fn frame(&self, scores: &FrameScores) -> Option<Sums> {
        let sure = confidence(scores)?;
        let finite = |score: f64| score.clamp(-LARGEST, LARGEST);
        let all: Option<Vec<f64>> = self.ranges.iter().map(|r| scores.get(r.channel).map(finite)).collect();
        let above = u64::from(sure > self.threshold);
        Some(Sums { above, scores: all?, ..Sums::sure(sure) })
    }

    /// The sums of frames, those without a score left out.
    pub fn sums<'a>(&self, frames: impl Iterator<Item = &'a FrameScores>) -> Sums {
        let mut sums = Sums::default();
        frames.filter_map(|scores| self.frame(scores)).for_each(|frame| sums.add(&frame));
        sums
    }

    /// Each way's estimate, in 0..1; not a number without frames.
    pub fn estimators(&self, sums: &Sums) -> Estimators {
        let [atc, doc, cbpe, told] = self.unbounded(sums).map(|value| value.clamp(0.0, 1.0));
        Estimators { atc, doc, cbpe, told }
    }

    /// The same as a mean over frames of what each adds: linear, and so not always between 0 and 1.
    pub(super) fn unbounded(&self, sums: &Sums) -> [f64; Estimators::COUNT] {
        let n = sums.frames as f64;
        let (cbpe, atc) = (sums.confidence / n, sums.above as f64 / n);
        let moved = [cbpe - self.confidence, atc - self.accuracy];
        let [doc, by_share] = std::array::from_fn(|i| self.accuracy + self.slopes[i] * moved[i]);
        [atc, doc, cbpe, (doc + by_share) / 2.0]
    }

    /// The interval of one estimator's value over the frames of the sums, by its position in [`Estimators::NAMES`]: its largest
    /// misses over the declared family, and beside them what chance does to a share of so many frames and of the
    /// pictures that it was fitted on.
    pub fn interval(&self, estimator: usize, value: f64, sums: &Sums) -> [f64; 2] {
        let m = self.pictures as f64;
        // Never without chance: of m pictures that all were right, the next may not be.
        let p = (value * m + 1.0) / (m + 2.0);
        let scatter = self.scatter[estimator].max(p * (1.0 - p));
        let chance = Z95 * Z95 * scatter * (1.0 / sums.frames as f64 + 1.0 / m);
        let spread = self.spread(value, sums);
        let [below, above] = self.misses[estimator].map(|miss| ((miss * spread).powi(2) + chance).sqrt());
        [(value - below).max(0.0), (value + above).min(1.0)]
    }

    /// The score whose mean lies furthest outside what the family showed, in standard errors; none within it.
    pub fn outside(&self, sums: &Sums) -> Option<Channel> {
        let n = sums.frames as f64;
        // Both the window's mean and those of the family are of so many frames.
        let chance = (1.0 / n + 1.0 / self.pictures as f64).sqrt();
        let beyond = |(range, sum): (&Range, &f64)| {
            let mean = sum / n;
            let over = (range.low - mean).max(mean - range.high);
            (range.channel, over / (range.deviation * chance))
        };
        let far = self.ranges.iter().zip(&sums.scores).map(beyond).filter(|(_, far)| *far > OUTSIDE);
        far.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(channel, _)| channel)
    }

    /// The model as named tensors, prefix `accuracy.`.
    pub fn to_tensors(&self) -> Tensors {
        let [by_confidence, by_share] = self.slopes;
        let pictures = self.pictures as f64;
        let constants = [self.accuracy, self.confidence, self.threshold, by_confidence, by_share, pictures];
        let channels = self.ranges.iter().map(|r| r.channel.index() as f64).collect();
        let ranges =
            self.ranges.iter().flat_map(|r| [r.low, r.high, r.deviation, r.healthy[0], r.healthy[1]]).collect();
        let count = self.ranges.len();
        Tensors::from([
            ("accuracy.constants".into(), (vec![constants.len()], constants.to_vec())),
            ("accuracy.misses".into(), (vec![Estimators::COUNT, 2], self.misses.as_flattened().to_vec())),
            ("accuracy.scatter".into(), (vec![Estimators::COUNT], self.scatter.to_vec())),
            ("accuracy.channels".into(), (vec![count], channels)),
            ("accuracy.ranges".into(), (vec![count, RANGE], ranges)),
        ])
    }

    /// Reads [`AccuracyModel::to_tensors`] back; none where they are not, other tensors are ignored.
    ///
    /// # Errors
    /// When a tensor is missing, has another shape, or holds values no fit gives.
    pub fn from_tensors(tensors: &Tensors) -> Result<Option<Self>> {
        if !tensors.contains_key("accuracy.constants") {
            return Ok(None);
        }
        let (_, constants) = take(tensors, "accuracy.constants", &[Some(6)])?;
        let (_, misses) = take(tensors, "accuracy.misses", &[Some(Estimators::COUNT), Some(2)])?;
        let (_, scatter) = take(tensors, "accuracy.scatter", &[Some(Estimators::COUNT)])?;
        let (_, channels) = take(tensors, "accuracy.channels", &[None])?;
        let (_, ranges) = take(tensors, "accuracy.ranges", &[Some(channels.len()), Some(RANGE)])?;
        let finite = [constants, misses, scatter, ranges].iter().all(|v| v.iter().all(|x| x.is_finite()));
        let shares = constants[..3].iter().all(|v| (-1e-9..=1.0).contains(v));
        let known: Option<Vec<Channel>> =
            channels.iter().map(|&c| Channel::ALL.into_iter().find(|channel| channel.index() as f64 == c)).collect();
        let whole = constants[5] >= 1.0 && constants[5].fract() == 0.0;
        let apart = ranges.chunks_exact(RANGE).all(|r| r[0] <= r[1] && r[2] > 0.0 && r[4] > 0.0);
        let (Some(known), true) =
            (known, finite && shares && whole && apart && misses.iter().chain(scatter).all(|m| *m >= 0.0))
        else {
            let reason = "the accuracy estimate's values are not those of a fit".to_string();
            return Err(Error::Data { what: "shift tensors", reason });
        };
        let ranges = known.into_iter().zip(ranges.chunks_exact(RANGE));
        Ok(Some(Self {
            accuracy: constants[0],
            confidence: constants[1],
            threshold: constants[2],
            slopes: [constants[3], constants[4]],
            pictures: constants[5] as usize,
            scatter: std::array::from_fn(|e| scatter[e]),
            misses: std::array::from_fn(|e| [misses[2 * e], misses[2 * e + 1]]),
            ranges: ranges
                .map(|(channel, r)| Range { channel, low: r[0], high: r[1], deviation: r[2], healthy: [r[3], r[4]] })
                .collect(),
        }))
    }
}

/// The calibrated probability that the network gave its class.
pub(super) fn confidence(scores: &FrameScores) -> Option<f64> {
    scores.get(Channel::Confidence).map(|unsure| (1.0 - unsure).clamp(0.0, 1.0))
}
