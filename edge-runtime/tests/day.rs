//! A day of a camera at ten frames a second, on a virtual clock: each picture is run once, its scores are replayed
//! through the monitor. Takes a minute or so, hence ignored:
//! `cargo test --release -p excon-edge --test day -- --ignored --nocapture`
#![allow(clippy::unwrap_used, missing_docs)]

mod tiny;

use excon_edge::predictor::Predictor;
use excon_edge::shift::{FrameScores, Monitor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const HOUR: u64 = 36_000;
/// Frames of a shift at the top of an hour: a minute.
const SHIFT: u64 = 600;

#[test]
#[ignore = "864,000 frames; its command is in the file"]
fn a_day_finds_every_shift_and_keeps_its_memory() {
    let bundle_file = tempfile::NamedTempFile::new().unwrap();
    tiny::writer(true, 2_000).seal(bundle_file.path()).unwrap();
    let bundle = excon_edge::bundle::Bundle::open(bundle_file.path()).unwrap();
    let predictor = Predictor::from_bundle(&bundle).unwrap();
    let scored = |seed: u64, brightness: f32| -> (excon_edge::image::Picture, FrameScores) {
        let picture = predictor.resize(&tiny::picture(seed, brightness));
        let prediction = predictor.predict(&picture).unwrap();
        let scores = predictor.scores(&picture, &prediction, true).unwrap();
        (picture, scores)
    };
    // Drawn independently, as the promise on this stream supposes: neighbouring seeds make neighbouring tints.
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let healthy: Vec<_> = (0..20_000).map(|_| scored(random.next_u64(), 0.5)).collect();
    let dark: Vec<_> = (0..2_000).map(|_| scored(random.next_u64(), 0.25)).collect();

    let mut monitor = Monitor::new(bundle.reference.clone(), bundle.contract()).unwrap();
    let mut early = None;
    let mut delays = Vec::new();
    let mut false_alarms = Vec::new();
    let (mut size_at_two, mut shifts) = (0, 0);
    for frame in 0..24 * HOUR {
        let (hour, since) = (frame / HOUR, frame % HOUR);
        let shifted = hour > 0 && since < SHIFT;
        shifts += u64::from(hour > 0 && since == 0);
        let pool = if shifted { &dark } else { &healthy };
        let (picture, scores) = &pool[random.next_u64() as usize % pool.len()];
        let before = monitor.alarm().is_some();
        let now = monitor.observe(picture, scores);
        if now.alarm.is_some() && !before {
            if shifted {
                delays.push(since + 1)
            } else {
                false_alarms.push(frame)
            }
            early = early.or((hour == 0).then_some(frame));
        }
        if now.alarm.is_some() && (since == SHIFT || !shifted) {
            monitor.acknowledge(false).unwrap();
        }
        if frame == 2 * HOUR {
            size_at_two = monitor.to_bytes().len();
        }
    }
    let size = monitor.to_bytes().len();
    eprintln!(
        "{shifts} shifts, {} found, after {delays:?} frames; {} alarms outside them {false_alarms:?}; state {size_at_two} \
         bytes after two hours, {size} after the day; resident {}",
        delays.len(),
        false_alarms.len(),
        resident()
    );
    assert_eq!(early, None, "nothing rings before the first shift");
    assert_eq!(delays.len() as u64, shifts, "every shift is found");
    assert!(size < 2 * size_at_two, "the state is counts over a fixed reference: its digits grow, not its entries");
}

/// What the system says of this process' memory, for people.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|l| l.starts_with("VmRSS")).unwrap_or("unknown").to_string()
}
