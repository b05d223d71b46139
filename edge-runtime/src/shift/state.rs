//! The saved state of a monitor: one small file, replaced atomically, restored bit for bit.
//!
//! First line `excon.shift-state/2 SHA-256`, then JSON whose numbers are whole (floats travel as their bits). The new
//! file is written beside the old one, synced and renamed, so a power cut leaves the old state or the new one. A torn,
//! foreign or forged file is refused with a typed error, and the monitor in memory is untouched.

use super::bet::{DELTAS, Tail};
use super::channel::Channel;
use super::contract::Contract;
use super::drift::SLOPES;
use super::monitor::Monitor;
use super::observation::Alarm;
use super::reference::Reference;
use super::scores::FrameScores;
use super::sensor::SensorCheck;
use super::tensors::Tensors;
use crate::{Error, Result, file};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Schema identifier on the first line.
pub const SCHEMA: &str = "excon.shift-state/2";

/// Largest file that is read: far above any state, below what would trouble a board.
const LARGEST: u64 = 64 << 20;

/// Name → shape and the bits of the values.
type TensorBits = BTreeMap<String, (Vec<usize>, Vec<u64>)>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Digest of the bundle's reference.
    reference: String,
    /// The reference taken on the device, if one was.
    accepted: Option<TensorBits>,
    seed: [u8; 32],
    draws: u64,
    until_next: usize,
    sensor: SensorCheck,
    effective_frames: u64,
    raw_frames: u64,
    self_test_failures: u64,
    alarm: Option<Alarm>,
    drift_since: Option<u64>,
    detectors: Vec<SavedDetector>,
    drifts: Vec<Vec<[u64; SLOPES.len()]>>,
    /// Scores of the latest frames before an alarm, bits per channel.
    #[serde(default)]
    recent: Vec<FrameBits>,
    /// Scores seen under the alarm, bits per channel.
    seen: Vec<FrameBits>,
}

type FrameBits = Vec<Option<u64>>;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedDetector {
    channel: Channel,
    counts: Vec<(usize, u64)>,
    tails: Vec<[u64; DELTAS.len()]>,
}

impl Monitor {
    /// The state as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let bits = |tensors: Tensors| {
            let pack = |(shape, values): (Vec<usize>, Vec<f64>)| (shape, values.iter().map(|v| v.to_bits()).collect());
            tensors.into_iter().map(|(name, tensor)| (name, pack(tensor))).collect()
        };
        let saved = Saved {
            reference: self.bundle_digest.clone(),
            accepted: self.accepted.then(|| bits(self.reference.to_tensors())),
            seed: self.rng.get_seed(),
            // In 32-bit words; 2^64 of them outlast any device.
            draws: self.rng.get_word_pos() as u64,
            until_next: self.thinner.until_next(),
            sensor: self.sensor.clone(),
            effective_frames: self.effective_frames,
            raw_frames: self.raw_frames,
            self_test_failures: self.self_test_failures,
            alarm: self.alarm.clone(),
            drift_since: self.drift_since,
            detectors: self
                .detectors
                .iter()
                .map(|d| SavedDetector {
                    channel: d.channel,
                    counts: d.rank.stream_counts(),
                    tails: d.tails.iter().map(|t| t.log_r().map(f64::to_bits)).collect(),
                })
                .collect(),
            drifts: self.drifts.iter().map(|d| d.log_r.iter().map(|t| t.map(f64::to_bits)).collect()).collect(),
            recent: self.recent.iter().map(frame_bits).collect(),
            seen: self.seen.iter().map(frame_bits).collect(),
        };
        let body = serde_json::to_vec(&saved).unwrap_or_default();
        let mut bytes = format!("{SCHEMA} {}\n", file::digest(&body)).into_bytes();
        bytes.extend(body);
        bytes
    }

    /// A monitor that continues where the bytes were taken, for the same reference. `name` is for the error alone.
    ///
    /// # Errors
    /// When the bytes are torn, of another schema, of another reference, or inconsistent.
    pub fn from_bytes(name: &Path, bytes: &[u8], reference: Reference, contract: Contract) -> Result<Self> {
        let refuse = |reason: String| Error::State { path: name.to_path_buf(), reason };
        let saved = parse(bytes).map_err(&refuse)?;
        let mut monitor = Self::new(reference, contract)?;
        if saved.reference != monitor.bundle_digest {
            return Err(refuse("it belongs to another reference (another bundle)".into()));
        }
        if let Some(accepted) = saved.accepted {
            let unpack =
                |(shape, bits): (Vec<usize>, Vec<u64>)| (shape, bits.into_iter().map(f64::from_bits).collect());
            let tensors: Tensors = accepted.into_iter().map(|(name, tensor)| (name, unpack(tensor))).collect();
            monitor.reference = Reference::from_tensors(&tensors).map_err(|e| refuse(e.to_string()))?;
            monitor.accepted = true;
            monitor.start_counters();
        }
        monitor.fill(saved.detectors, saved.drifts).map_err(&refuse)?;
        monitor.recent =
            saved.recent.iter().map(|f| frame_scores(f)).collect::<std::result::Result<_, _>>().map_err(&refuse)?;
        monitor.seen =
            saved.seen.iter().map(|f| frame_scores(f)).collect::<std::result::Result<_, _>>().map_err(&refuse)?;
        monitor.rng = ChaCha8Rng::from_seed(saved.seed);
        monitor.rng.set_word_pos(u128::from(saved.draws));
        monitor.thinner = super::thinning::Thinner::new(monitor.reference.step());
        monitor.thinner.resume(saved.until_next);
        monitor.sensor = saved.sensor;
        monitor.effective_frames = saved.effective_frames;
        monitor.raw_frames = saved.raw_frames;
        monitor.self_test_failures = saved.self_test_failures;
        monitor.alarm = saved.alarm;
        monitor.drift_since = saved.drift_since;
        Ok(monitor)
    }

    /// Saves the state, see [`crate::file::replace`].
    ///
    /// # Errors
    /// When the folder cannot be written; the old state is then untouched.
    pub fn save(&self, path: &Path) -> Result<()> {
        crate::file::replace(path, &self.to_bytes())
    }

    /// Continues from a saved state, or starts fresh when there is no file yet.
    ///
    /// # Errors
    /// When a file is there but cannot be read or used.
    pub fn open(path: &Path, reference: Reference, contract: Contract) -> Result<Self> {
        let failed = |source| Error::Read { path: path.to_path_buf(), source };
        let size = match std::fs::metadata(path) {
            Ok(about) => about.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::new(reference, contract),
            Err(error) => return Err(failed(error)),
        };
        if size > LARGEST {
            let reason = format!("{size} bytes, more than any state has");
            return Err(Error::State { path: path.to_path_buf(), reason });
        }
        Self::from_bytes(path, &std::fs::read(path).map_err(failed)?, reference, contract)
    }

    fn fill(
        &mut self,
        detectors: Vec<SavedDetector>,
        drifts: Vec<Vec<[u64; SLOPES.len()]>>,
    ) -> std::result::Result<(), String> {
        if detectors.len() != self.detectors.len() || drifts.len() != self.drifts.len() {
            return Err("it has another number of channels".into());
        }
        for (detector, saved) in self.detectors.iter_mut().zip(detectors) {
            let fits = detector.channel == saved.channel && detector.tails.len() == saved.tails.len();
            if !fits || saved.tails.as_flattened().iter().any(|bits| f64::from_bits(*bits).is_nan()) {
                return Err(format!("channel {} does not fit", saved.channel.name()));
            }
            if !detector.rank.resume(&saved.counts) {
                return Err(format!("counters of {} do not fit the reference", saved.channel.name()));
            }
            detector.tails = saved.tails.into_iter().map(|t| Tail::from_log_r(t.map(f64::from_bits))).collect();
            detector.average();
        }
        for (drift, saved) in self.drifts.iter_mut().zip(drifts) {
            if drift.log_r.len() != saved.len() || saved.as_flattened().iter().any(|b| f64::from_bits(*b).is_nan()) {
                return Err(format!("slow-drift state of {} does not fit", drift.channel.name()));
            }
            drift.log_r = saved.into_iter().map(|t| t.map(f64::from_bits)).collect();
        }
        Ok(())
    }
}

fn frame_bits(frame: &FrameScores) -> FrameBits {
    Channel::ALL.map(|c| frame.get(c).map(f64::to_bits)).to_vec()
}

fn frame_scores(bits: &[Option<u64>]) -> std::result::Result<FrameScores, String> {
    if bits.len() != Channel::COUNT {
        return Err("a frame has another number of channels".into());
    }
    let mut scores = FrameScores::empty();
    for (channel, bits) in Channel::ALL.into_iter().zip(bits) {
        if let Some(bits) = bits {
            scores.set(channel, f64::from_bits(*bits));
        }
    }
    Ok(scores)
}

fn parse(bytes: &[u8]) -> std::result::Result<Saved, String> {
    let end = bytes.iter().position(|b| *b == b'\n').ok_or("it has no first line")?;
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "its first line is not text")?;
    let body = &bytes[end + 1..];
    match line.split_once(' ') {
        Some((SCHEMA, digest)) if digest == file::digest(body) => {}
        Some((SCHEMA, _)) => return Err("its digest does not match: it is torn or damaged".into()),
        Some(("excon.shift-state/1", _)) => {
            return Err("an older program wrote it, with other channels: start a new one in an empty folder".into());
        }
        _ => return Err(format!("its schema is not {SCHEMA}")),
    }
    serde_json::from_slice(body).map_err(|e| e.to_string())
}
