//! The most unusual frames of a stream, kept on disk with their maps, for someone to look at and perhaps to label.
//!
//! A folder holds at most K entries of three files: `NNNNNN.png` the frame, `NNNNNN.map.png` what speaks for the
//! prediction, `NNNNNN.json` (schema `excon.unusual/1`). An entry is there once its JSON is, which is written last and
//! removed first; what a killed process leaves of others is cleared away at the next start. Only effective frames enter:
//! neighbours in a video are one frame.

use crate::image::{Picture, Window, resample};
use crate::predictor::Prediction;
use crate::shift::{Channel, FrameScores, Reference, Sides};
use crate::{Error, Result, file, page};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

const SCHEMA: &str = "excon.unusual/1";
/// Longest side of a kept frame, pixels: what bounds the room on disk.
pub const LONGEST_SIDE: usize = 1024;
/// Side of a kept map, pixels, at least.
const VIEWABLE: usize = 448;
/// Most that one check may say, in spreads: a check that hardly varied in the reference must not drown the others.
const LARGEST_SPREAD: f64 = 100.0;
/// Spread of a normal distribution between its quartiles, in standard deviations.
const QUARTILES: f64 = 1.349;
/// Largest description of an entry, bytes.
const LARGEST_JSON: u64 = 64 << 10;

/// How unusual a frame is against the reference: the root of the weighted mean square, over the checks that bear
/// evidence, of the distance from the reference's median in robust standard deviations (quartile range / 1.349). About 1
/// for an ordinary frame. A check that looks at large values only takes smaller ones as ordinary.
pub fn score(reference: &Reference, scores: &FrameScores) -> f64 {
    let (mut sum, mut weights) = (0.0, 0.0);
    for channel in Channel::ALL {
        let (weight, values) = (reference.weights().get(channel), reference.values(channel));
        let (Some(score), false) = (scores.get(channel), values.is_empty() || weight == 0.0) else { continue };
        let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
        let spread = (at(0.75) - at(0.25)) / QUARTILES;
        let far = score - at(0.5);
        let far = if channel.sides() == Sides::Upper { far.max(0.0) } else { far.abs() };
        // Without any spread every other value is as unusual as can be.
        let far = if far == 0.0 { 0.0 } else { (far / spread).min(LARGEST_SPREAD) };
        sum += weight * far * far;
        weights += weight;
    }
    if weights > 0.0 { (sum / weights).sqrt() } else { 0.0 }
}

/// What the JSON of an entry says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// `excon.unusual/1`.
    pub schema: String,
    /// How unusual it is, see [`score`].
    pub score: f64,
    /// The predicted class.
    pub predicted: String,
    /// Its calibrated probability.
    pub confidence: f64,
    /// When the frame came, RFC 3339 in UTC.
    pub time: String,
    /// The frame's name in its source.
    pub frame: String,
}

/// An entry that is there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// Its number.
    pub number: u64,
    /// The file of its frame.
    pub picture: PathBuf,
    /// SHA-256 of that file, lower-case hex.
    pub sha256: String,
    /// What its JSON says.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Kept {
    /// The bytes of the frame's file.
    ///
    /// # Errors
    /// [`Error::Read`], also when it has gone meanwhile.
    pub fn read(&self) -> Result<Vec<u8>> {
        std::fs::read(&self.picture).map_err(|source| Error::Read { path: self.picture.clone(), source })
    }
}

/// The whole entries of a folder, by number; none where there is no such folder. Nothing is changed, so that a watch may be
/// writing there.
///
/// # Errors
/// [`Error::Read`] when the folder cannot be listed.
pub fn list(folder: &Path) -> Result<Vec<Kept>> {
    let failed = |source| Error::Read { path: folder.into(), source };
    let mut numbers = Vec::new();
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
        Ok(entries) => {
            for entry in entries {
                let name = entry.map_err(failed)?.file_name();
                numbers.extend(number(&name.to_string_lossy(), ".json"));
            }
        }
    }
    numbers.sort_unstable();
    let kept = |number| {
        let (entry, picture) = (read(folder, number)?, path(folder, number, ".png"));
        // Dropped for a more unusual one while we look: no longer there.
        let bytes = std::fs::read(&picture).ok()?;
        let sha256 = file::digest(&bytes);
        Some(Kept { number, picture, sha256, entry })
    };
    Ok(numbers.into_iter().filter_map(kept).collect())
}

/// The folder with its entries. See the module's first paragraph.
pub struct Ring {
    folder: PathBuf,
    most: usize,
    /// Number and score of what is there.
    entries: BTreeMap<u64, f64>,
    next: u64,
}

impl Ring {
    /// Goes on with what the folder holds, at most `most` entries; the least unusual go when there are more.
    ///
    /// # Errors
    /// [`Error::Write`] when the folder cannot be made or cleared, [`Error::Read`] when it cannot be listed.
    pub fn open(folder: &Path, most: usize) -> Result<Self> {
        let failed = |source| Error::Write { path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let mut ring = Self { folder: folder.into(), most: most.max(1), entries: BTreeMap::new(), next: 1 };
        let unlistable = |source| Error::Read { path: folder.into(), source };
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unlistable)? {
            names.push(entry.map_err(unlistable)?.file_name().to_string_lossy().into_owned());
        }
        for number in names.iter().filter_map(|n| number(n, ".json")) {
            ring.next = ring.next.max(number + 1);
            if let Some(entry) = read(folder, number) {
                ring.entries.insert(number, entry.score);
            }
        }
        // Halves of entries, and files that were never whole. What else lies here is not ours.
        for name in &names {
            let of = number(name, ".map.png").or_else(|| number(name, ".png")).or_else(|| number(name, ".json"));
            let half = of.is_some_and(|n| !ring.entries.contains_key(&n)) || name.starts_with(file::PARTIAL);
            if half {
                std::fs::remove_file(folder.join(name)).map_err(failed)?;
            }
        }
        while ring.entries.len() > ring.most {
            ring.remove_least()?;
        }
        Ok(ring)
    }

    /// Entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps a frame if it is more unusual than the least of those that are kept; true then. `picture` is the whole
    /// frame, larger ones are reduced to [`LONGEST_SIDE`]; `small` the part at network size that the map belongs to.
    ///
    /// # Errors
    /// [`Error::Write`]; the other entries are untouched.
    pub fn offer(
        &mut self,
        score: f64,
        name: &str,
        at: SystemTime,
        picture: &Picture,
        small: &Picture,
        prediction: &Prediction,
    ) -> Result<bool> {
        let full = self.entries.len() >= self.most;
        if score.is_nan() || (full && self.least().is_some_and(|(_, least)| score <= least)) {
            return Ok(false);
        }
        let number = self.next;
        let entry = Entry {
            schema: SCHEMA.into(),
            score,
            predicted: prediction.label.clone(),
            confidence: prediction.confidence,
            time: rfc3339(at),
            frame: name.into(),
        };
        let (_, map) = page::overlay(&page::enlarged(small, VIEWABLE), &prediction.cam);
        let json = serde_json::to_vec_pretty(&entry)
            .map_err(|e| Error::Write { path: self.path(number, ".json"), source: std::io::Error::other(e) })?;
        self.next += 1;
        let written = file::replace(&self.path(number, ".png"), &page::png(&reduced(picture))?)
            .and_then(|()| file::replace(&self.path(number, ".map.png"), &page::png(&map)?))
            .and_then(|()| file::replace(&self.path(number, ".json"), &json));
        if let Err(error) = written {
            // On a full disk, what came of it must not stay.
            let _ = self.remove(number);
            return Err(error);
        }
        self.entries.insert(number, score);
        if self.entries.len() > self.most {
            self.remove_least()?;
        }
        Ok(true)
    }

    /// The least unusual, the oldest of equal ones.
    fn least(&self) -> Option<(u64, f64)> {
        let all = self.entries.iter().map(|(&n, &s)| (n, s));
        all.min_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn remove_least(&mut self) -> Result<()> {
        let Some((number, _)) = self.least() else { return Ok(()) };
        self.remove(number)?;
        self.entries.remove(&number);
        Ok(())
    }

    fn remove(&self, number: u64) -> Result<()> {
        for ending in [".json", ".map.png", ".png"] {
            let path = self.path(number, ending);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::Write { path, source: e }),
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self, number: u64, ending: &str) -> PathBuf {
        path(&self.folder, number, ending)
    }
}

fn path(folder: &Path, number: u64, ending: &str) -> PathBuf {
    folder.join(format!("{number:06}{ending}"))
}

/// None of what is no entry, or has lost one of its pictures.
fn read(folder: &Path, number: u64) -> Option<Entry> {
    let json = path(folder, number, ".json");
    let small = std::fs::metadata(&json).is_ok_and(|m| m.len() <= LARGEST_JSON);
    let bytes = if small { std::fs::read(&json).ok()? } else { return None };
    let entry: Entry = serde_json::from_slice(&bytes).ok()?;
    let whole = [".png", ".map.png"].iter().all(|ending| path(folder, number, ending).is_file());
    (entry.schema == SCHEMA && !entry.score.is_nan() && whole).then_some(entry)
}

/// The number in `NNNNNN` and an ending; six digits or, far later, more.
fn number(name: &str, ending: &str) -> Option<u64> {
    let digits = name.strip_suffix(ending)?;
    (digits.len() >= 6 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

fn reduced(picture: &Picture) -> Picture {
    let long = picture.width.max(picture.height);
    if long <= LONGEST_SIDE {
        return picture.clone();
    }
    let side = |pixels: usize| (pixels * LONGEST_SIDE / long).max(1);
    resample(picture, Window::whole(side(picture.width), side(picture.height)))
}

/// `2026-11-26T21:30:00.123Z`. Times before 1970 are given as its beginning.
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years begin in March here, so that the leap day is the last; 400 of them have 146,097 days.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let (month, turn) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (year, millis) = (era * 400 + year + turn, since.subsec_millis());
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests;
