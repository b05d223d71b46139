//! The monitor of one device: frames in, a state out, an alarm that stays until someone answers it.
//!
//! Invariants: frames with a sensor fault, frames of a broken engine and frames under an alarm enter no counter; evidence is averaged over
//! channels with fixed weights, never multiplied; the average over the families that may ring is compared with N, and
//! the frame that rings counts as the first of the alarm. Each channel's R is a non-negative submartingale of its own
//! past with E R_t ≤ t, hence the promise; for the average the simulations of this module's tests stand in.

use super::bet::log_sum_exp;
use super::channel::{Channel, Family};
use super::contract::Contract;
use super::detector::Detector;
use super::drift::Drift;
use super::observation::{Alarm, Answered, ChannelReading, Observation, State};
use super::promise::Promise;
use super::reference::{Problem, Reference};
use super::scores::FrameScores;
use super::sensor::{SensorCheck, SensorFault};
use super::thinning::Thinner;
use crate::image::Picture;
use crate::{Error, Result};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// Effective frames kept under an alarm, for a new reference if the change is accepted; the newest ones stay.
const SEEN_UNDER_ALARM: usize = 5_000;
/// Effective frames before an alarm that are kept, to say what it looks like.
const RECENT: usize = 8;
/// Share of the named family's evidence that the named channels make up together.
const NAMED_SHARE: f64 = 0.9;

/// The monitor. See the module's first paragraph.
#[derive(Debug, Clone)]
pub struct Monitor {
    pub(super) reference: Reference,
    /// Digest of the reference the bundle brought; a state belongs to it.
    pub(super) bundle_digest: String,
    /// Whether the reference was replaced on the device.
    pub(super) accepted: bool,
    pub(super) contract: Contract,
    pub(super) detectors: Vec<Detector>,
    pub(super) drifts: Vec<Drift>,
    pub(super) rng: ChaCha8Rng,
    pub(super) thinner: Thinner,
    pub(super) sensor: SensorCheck,
    pub(super) fault: Option<SensorFault>,
    pub(super) effective_frames: u64,
    pub(super) raw_frames: u64,
    pub(super) self_test_failures: u64,
    pub(super) alarm: Option<Alarm>,
    /// Raw frame at which the slow-drift notice appeared; it stays until answered.
    pub(super) drift_since: Option<u64>,
    /// The latest effective frames before an alarm, oldest first.
    pub(super) recent: std::collections::VecDeque<FrameScores>,
    /// Kept frames under the alarm that stands, oldest first.
    pub(super) seen: std::collections::VecDeque<FrameScores>,
}

impl Monitor {
    /// A fresh monitor.
    ///
    /// # Errors
    /// When N is below 1 or not finite, or the self-test's tolerance is not positive.
    pub fn new(reference: Reference, contract: Contract) -> Result<Self> {
        let n = contract.mean_time_between_false_alarms;
        if !n.is_finite()
            || n < 1.0
            || contract.completeness_tolerance.is_nan()
            || contract.completeness_tolerance <= 0.0
        {
            let reason = format!("N = {n} and tolerance {}: N ≥ 1, tolerance > 0", contract.completeness_tolerance);
            return Err(Error::Data { what: "shift contract", reason });
        }
        let mut monitor = Self {
            bundle_digest: reference.digest(),
            accepted: false,
            detectors: Vec::new(),
            drifts: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(contract.seed),
            thinner: Thinner::new(reference.step()),
            sensor: SensorCheck::default(),
            fault: None,
            effective_frames: 0,
            raw_frames: 0,
            self_test_failures: 0,
            alarm: None,
            drift_since: None,
            recent: std::collections::VecDeque::new(),
            seen: std::collections::VecDeque::new(),
            reference,
            contract,
        };
        monitor.start_counters();
        Ok(monitor)
    }

    /// Fresh counters for the reference in force.
    pub(super) fn start_counters(&mut self) {
        let tracked = || Channel::ALL.into_iter().filter(|&c| !self.reference.values(c).is_empty());
        self.detectors = tracked().map(|c| Detector::new(c, self.reference.values(c))).collect();
        self.drifts = tracked().filter(|&c| self.reference.weights().get(c) > 0.0).map(Drift::new).collect();
    }

    /// The reference in force.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The contract in force.
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The alarm that stands.
    pub fn alarm(&self) -> Option<&Alarm> {
        self.alarm.as_ref()
    }

    /// Frames that failed the engine's self-test so far.
    pub fn self_test_failures(&self) -> u64 {
        self.self_test_failures
    }

    /// Frames that entered the counters so far.
    pub fn effective_frames(&self) -> u64 {
        self.effective_frames
    }

    /// Frames taken so far, whatever became of them.
    pub fn raw_frames(&self) -> u64 {
        self.raw_frames
    }

    /// The promise as it stands, in words.
    pub fn promise(&self) -> Promise {
        Promise::new(&self.reference, self.contract.mean_time_between_false_alarms, self.fault, self.accepted)
    }

    /// How it stands, without a new frame.
    pub fn standing(&self) -> Observation {
        let state = if self.fault.is_some() { State::SensorFault } else { self.state() };
        self.observation(state, false, None)
    }

    /// Whether the next frame will be kept, if its sensor is well: only then do its scores matter.
    pub fn scores_due(&self) -> bool {
        self.thinner.next_is_kept()
    }

    /// Whether the next frame should also be run masked. Never depends on what was seen, only on the count.
    pub fn masked_pass_due(&self) -> bool {
        let every = self.contract.masked_every as u64;
        let count = self.effective_frames + self.seen.len() as u64;
        every > 0 && self.scores_due() && count.is_multiple_of(every)
    }

    /// Takes one frame; see [`Monitor::observe_timed`].
    pub fn observe(&mut self, picture: &Picture, scores: &FrameScores) -> Observation {
        self.observe_timed(picture, scores, None)
    }

    /// Takes one frame in order of time, with the time it took if that is known.
    pub fn observe_timed(&mut self, picture: &Picture, scores: &FrameScores, took: Option<Duration>) -> Observation {
        self.raw_frames += 1;
        self.fault = self.sensor.check(picture);
        if self.fault.is_some() {
            self.recover();
            return self.observation(State::SensorFault, false, None);
        }
        let failed = scores.completeness.filter(|r| r.is_nan() || *r > self.contract.completeness_tolerance);
        let was_ringing = self.alarm.is_some();
        self.recover();
        if failed.is_some() {
            self.self_test_failures += 1;
            return self.observation(State::EngineFault, false, failed);
        }
        let kept = self.enter(scores) && !was_ringing;
        let slow = self.contract.latency_budget.zip(took).is_some_and(|(budget, took)| took > budget);
        let state = if slow && self.alarm.is_none() { State::Slow } else { self.state() };
        self.observation(state, kept, None)
    }

    /// What alarm and evidence make of it.
    fn state(&self) -> State {
        if self.alarm.is_some() {
            State::Shift
        } else if self.log_r() >= 0.5 * self.contract.mean_time_between_false_alarms.ln() {
            State::Watching
        } else {
            State::Healthy
        }
    }

    /// Thins, ranks and bets; true when the frame is an effective one. The part of a frame without its pixels.
    pub(super) fn enter(&mut self, scores: &FrameScores) -> bool {
        for detector in &mut self.detectors {
            detector.p = None;
        }
        if !self.thinner.tick() {
            return false;
        }
        if self.alarm.is_some() {
            if self.seen.len() == SEEN_UNDER_ALARM {
                self.seen.pop_front();
            }
            self.seen.push_back(scores.clone());
            return true;
        }
        self.effective_frames += 1;
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(scores.clone());
        for detector in &mut self.detectors {
            if let Some(score) = scores.get(detector.channel) {
                detector.observe(score, open_unit(&mut self.rng));
            }
        }
        for drift in &mut self.drifts {
            if let Some(score) = scores.get(drift.channel) {
                drift.observe(self.reference.values(drift.channel), score);
            }
        }
        let limit = self.contract.mean_time_between_false_alarms.ln();
        if self.drift_since.is_none() && self.drift_log_r() >= limit {
            self.drift_since = Some(self.raw_frames);
        }
        if self.log_r() >= limit {
            self.ring();
        }
        true
    }

    /// log R over the families that may ring.
    pub fn log_r(&self) -> f64 {
        self.log_sum(|family| !self.contract.notices.contains(&family))
    }

    /// log R of the fixed-reference detector, over its channels.
    fn drift_log_r(&self) -> f64 {
        let weighted = |d: &Drift| self.reference.weights().get(d.channel).ln() + d.log_mean();
        log_sum_exp(&self.drifts.iter().map(weighted).collect::<Vec<_>>())
    }

    /// The frames around the alarm that stands, oldest first: a few effective ones before it and all that were kept since.
    /// None without an alarm.
    pub fn around_alarm(&self) -> impl DoubleEndedIterator<Item = &FrameScores> {
        let before = self.recent.iter().filter(|_| self.alarm.is_some());
        before.chain(&self.seen)
    }

    /// Raw frame at which the notice of slow drift appeared, while nobody has answered it.
    pub fn drift_since(&self) -> Option<u64> {
        self.drift_since
    }

    /// Families switched to notice whose own evidence has reached N.
    fn notices(&self) -> Vec<Family> {
        let limit = self.contract.mean_time_between_false_alarms.ln();
        self.contract.notices.iter().copied().filter(|&f| self.log_sum(|g| g == f) >= limit).collect()
    }

    /// Answers the alarm and the notices and says which of them stood: R is 0 again and the counters stay.
    /// With `accept`, what was seen since the alarm becomes the new reference and the promise counts from there.
    /// Where none stands nothing is changed.
    ///
    /// # Errors
    /// When accepted without an alarm, or with too few effective frames seen under it; what stood still stands.
    pub fn acknowledge(&mut self, accept: bool) -> Result<Answered> {
        let (notices, slow_drift) = (self.notices(), self.drift_since.is_some());
        let answered = Answered { alarm: self.alarm.clone(), notices, slow_drift };
        if answered.is_nothing() {
            return Ok(answered);
        }
        if accept && answered.alarm.is_none() {
            let reason = "frames are set aside under an alarm only, so a notice brings none that could be accepted; \
                          acknowledge it without accepting, or convert anew with pictures of today"
                .into();
            return Err(Error::Data { what: "shift reference", reason });
        }
        if accept {
            let kept: Vec<&FrameScores> = self.seen.iter().collect();
            let old = &self.reference;
            let weights = old.weights().clone();
            let raw = kept.len() * old.step();
            let mut problems = old.problems().to_vec();
            if !old.independent() {
                problems.push(Problem::AcceptedTimeUnknown);
            }
            let time = old.autocorrelation_time();
            self.reference = Reference::from_kept(&kept, weights, raw, time, old.step(), old.independent(), problems)?;
            self.accepted = true;
            self.start_counters();
        }
        self.silence();
        Ok(answered)
    }

    /// Turns a family from alarm to notice or back. Turned back, its evidence starts from 0.
    pub fn set_notice(&mut self, family: Family, notice: bool) {
        let is_notice = self.contract.notices.contains(&family);
        if notice && !is_notice {
            self.contract.notices.push(family);
        } else if !notice && is_notice {
            self.contract.notices.retain(|f| *f != family);
            self.detectors.iter_mut().filter(|d| d.channel.family() == family).for_each(Detector::reset);
        }
    }

    fn silence(&mut self) {
        self.alarm = None;
        self.drift_since = None;
        self.recent.clear();
        self.seen.clear();
        self.detectors.iter_mut().for_each(Detector::reset);
        self.drifts.iter_mut().for_each(Drift::reset);
    }

    fn recover(&mut self) {
        let over = |alarm: &Alarm, after: u64| self.raw_frames.saturating_sub(alarm.raw_frame) > after;
        if self.alarm.as_ref().zip(self.contract.recovery).is_some_and(|(alarm, after)| over(alarm, after)) {
            self.silence();
        }
    }

    /// log Σ w R over the channels of the chosen families.
    fn log_sum(&self, chosen: impl Fn(Family) -> bool) -> f64 {
        let mut logs = [f64::NEG_INFINITY; Channel::COUNT];
        for detector in self.detectors.iter().filter(|d| chosen(d.channel.family())) {
            logs[detector.channel.index()] = self.weighted(detector);
        }
        log_sum_exp(&logs)
    }

    fn weighted(&self, detector: &Detector) -> f64 {
        let weight = self.reference.weights().get(detector.channel);
        if weight > 0.0 { weight.ln() + detector.log_r } else { f64::NEG_INFINITY }
    }

    fn ring(&mut self) {
        let may_ring = Family::ALL.into_iter().filter(|f| !self.contract.notices.contains(f));
        let evidence = may_ring.map(|family| (family, self.log_sum(|f| f == family)));
        let Some((family, total)) = evidence.max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let mut shares: Vec<(Channel, f64)> = self
            .detectors
            .iter()
            .filter(|d| d.channel.family() == family)
            .map(|d| (d.channel, (self.weighted(d) - total).exp()))
            .collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut named = 0.0;
        let mut channels = Vec::new();
        for (channel, share) in shares {
            if named >= NAMED_SHARE || share == 0.0 {
                break;
            }
            named += share;
            channels.push(channel);
        }
        self.alarm = Some(Alarm { family, channels, frame: self.effective_frames, raw_frame: self.raw_frames });
    }

    fn observation(&self, state: State, kept: bool, self_test_failed: Option<f64>) -> Observation {
        let all = self.log_sum(|_| true);
        let limit = self.contract.mean_time_between_false_alarms.ln();
        let reading = |detector: &Detector| ChannelReading {
            channel: detector.channel,
            family: detector.channel.family(),
            weight: self.reference.weights().get(detector.channel),
            p: if kept { detector.p } else { None },
            log_r: detector.log_r,
            share: if all.is_finite() { (self.weighted(detector) - all).exp() } else { 0.0 },
        };
        Observation {
            state,
            log_r: self.log_r(),
            log_limit: limit,
            effective_frames: self.effective_frames,
            raw_frames: self.raw_frames,
            kept,
            fault: self.fault,
            channels: self.detectors.iter().map(reading).collect(),
            alarm: self.alarm.clone(),
            notices: self.notices(),
            slow_drift: self.drift_since.is_some(),
            self_test_failed,
        }
    }
}

/// A draw in the open interval (0, 1): 53 bits and a half.
fn open_unit(rng: &mut ChaCha8Rng) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) * (0.5f64).powi(53)
}
