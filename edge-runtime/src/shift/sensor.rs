//! Is this a picture of the world at all? Frozen, black, white, stuck or repeated frames are the sensor's fault.
//!
//! Such frames are reported as `sensor fault`, never as shift, and enter nothing; the same check filters the frames of
//! a reference. Equality is that of SHA-256 digests of size and bytes.

use crate::image::Picture;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SensorFault {
    /// Bit for bit the frame before.
    Frozen,
    /// The third frame in a row that repeats one of the last [`MEMORY`].
    Duplicates,
    /// At least 99 % of the bytes are 8 or less.
    Black,
    /// At least 99 % of the bytes are 247 or more.
    White,
    /// A quarter of the rows (8 at least) in one block are equal to each other without being of one colour.
    StuckRows,
}

impl SensorFault {
    /// Words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Frozen => "frozen: equal to the frame before",
            Self::Duplicates => "a run of repeated frames",
            Self::Black => "black frame",
            Self::White => "white frame",
            Self::StuckRows => "stuck rows",
        }
    }
}

/// Frames remembered when looking for repeats.
pub const MEMORY: usize = 32;
/// Repeats in a row that make a fault.
const RUN: usize = 3;

/// The check, with its memory of the last frames.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SensorCheck {
    recent: VecDeque<[u8; 16]>,
    repeats: usize,
}

impl SensorCheck {
    /// Looks at one frame.
    pub fn check(&mut self, picture: &Picture) -> Option<SensorFault> {
        let digest = digest(picture);
        let frozen = self.recent.back() == Some(&digest);
        let repeated = self.recent.contains(&digest);
        self.repeats = if repeated { self.repeats.saturating_add(1) } else { 0 };
        self.recent.push_back(digest);
        while self.recent.len() > MEMORY {
            self.recent.pop_front();
        }
        if frozen {
            Some(SensorFault::Frozen)
        } else if self.repeats >= RUN {
            Some(SensorFault::Duplicates)
        } else {
            content_fault(picture)
        }
    }
}

fn digest(picture: &Picture) -> [u8; 16] {
    let mut hash = Sha256::new();
    hash.update((picture.width as u64).to_le_bytes());
    hash.update((picture.height as u64).to_le_bytes());
    hash.update(&picture.rgb);
    let mut short = [0; 16];
    short.copy_from_slice(&hash.finalize()[..16]);
    short
}

fn content_fault(picture: &Picture) -> Option<SensorFault> {
    let nearly_all = |dark: &dyn Fn(u8) -> bool| {
        let count = picture.rgb.iter().filter(|&&byte| dark(byte)).count();
        count * 100 >= picture.rgb.len() * 99
    };
    if nearly_all(&|byte| byte <= 8) {
        return Some(SensorFault::Black);
    }
    if nearly_all(&|byte| byte >= 247) {
        return Some(SensorFault::White);
    }
    let mut run = 1;
    let mut previous: Option<&[u8]> = None;
    for row in picture.rgb.chunks_exact(3 * picture.width.max(1)) {
        // Rows of one colour are bars and clipped backgrounds, not a stuck sensor.
        run = if previous == Some(row) && row.chunks_exact(3).any(|p| p != &row[..3]) { run + 1 } else { 1 };
        if run >= (picture.height / 4).max(8) {
            return Some(SensorFault::StuckRows);
        }
        previous = Some(row);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64) -> Picture {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let rgb = (0..32 * 32 * 3).map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 24) as u8
        });
        Picture { width: 32, height: 32, rgb: rgb.collect() }
    }

    #[test]
    fn ordinary_frames_pass_and_a_frozen_one_does_not() {
        let mut check = SensorCheck::default();
        assert!((0..100).all(|i| check.check(&noise(i)).is_none()));
        assert_eq!(check.check(&noise(99)), Some(SensorFault::Frozen));
        assert_eq!(check.check(&noise(100)), None);
    }

    #[test]
    fn a_loop_of_old_frames_is_seen_at_the_third() {
        let mut check = SensorCheck::default();
        let faults: Vec<_> = (0..8).map(|i| check.check(&noise(i % 4))).collect();
        assert_eq!(faults[..6], [None; 6]);
        assert_eq!(faults[6..], [Some(SensorFault::Duplicates); 2]);
    }

    #[test]
    fn black_white_and_stuck_rows() {
        let flat = |value| Picture { width: 32, height: 32, rgb: vec![value; 32 * 32 * 3] };
        assert_eq!(content_fault(&flat(3)), Some(SensorFault::Black));
        assert_eq!(content_fault(&flat(250)), Some(SensorFault::White));
        assert_eq!(content_fault(&flat(120)), None);
        let mut stuck = noise(7);
        let row: Vec<u8> = stuck.rgb[..96].to_vec();
        for r in 0..8 {
            stuck.rgb[r * 96..(r + 1) * 96].copy_from_slice(&row);
        }
        assert_eq!(content_fault(&stuck), Some(SensorFault::StuckRows));
        stuck.rgb[7 * 96] ^= 1;
        assert_eq!(content_fault(&stuck), None);
    }
}
