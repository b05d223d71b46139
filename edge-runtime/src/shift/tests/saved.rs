//! A monitor killed at any byte continues as if nothing had happened, or says what is wrong.

use super::*;
use crate::Error;
use std::path::Path;

fn channels() -> [Channel; 4] {
    [Channel::Confidence, Channel::LumaMean, Channel::CamEntropy, Channel::MaskedDisagreement]
}

fn reference(seed: u64) -> Reference {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let frames: Vec<FrameScores> = (0..60).map(|_| noise_frame(&channels(), 0.0, &mut rng)).collect();
    independent(&frames, &channels())
}

/// Frame `t` of a stream that shifts at 60 frames.
fn stream(t: u64) -> (Picture, FrameScores) {
    let mut rng = ChaCha8Rng::seed_from_u64(100 + t);
    // Every fifth frame is frozen, so the sensor's memory matters too.
    (picture(t - u64::from(t % 5 == 4)), noise_frame(&channels(), if t < 60 { 0.0 } else { 4.0 }, &mut rng))
}

#[test]
fn continues_bit_for_bit_from_any_frame() {
    let mut whole = Monitor::new(reference(1), contract(1e4, 7)).unwrap();
    for t in 0..160 {
        let bytes = whole.to_bytes();
        let mut restored = Monitor::from_bytes(Path::new("s"), &bytes, reference(1), contract(1e4, 7)).unwrap();
        assert_eq!(restored.to_bytes(), bytes);
        if t == 130 {
            assert!(whole.alarm().is_some(), "the test must pass through an alarm");
            whole.acknowledge(true).unwrap();
            restored.acknowledge(true).unwrap();
        }
        let (picture, scores) = stream(t);
        assert_eq!(whole.observe(&picture, &scores), restored.observe(&picture, &scores), "frame {t}");
        assert_eq!(whole.to_bytes(), restored.to_bytes());
    }
}

#[test]
fn torn_or_changed_at_any_byte_is_refused() {
    let mut monitor = Monitor::new(reference(1), contract(1e4, 7)).unwrap();
    for t in 0..20 {
        let (picture, scores) = stream(t);
        monitor.observe(&picture, &scores);
    }
    let bytes = monitor.to_bytes();
    let refused = |bytes: &[u8]| {
        let result = Monitor::from_bytes(Path::new("s"), bytes, reference(1), contract(1e4, 7));
        matches!(result, Err(Error::State { .. }))
    };
    for cut in 0..bytes.len() {
        assert!(refused(&bytes[..cut]), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        assert!(refused(&changed), "changed at {at}");
    }
    let other = Monitor::from_bytes(Path::new("s"), &bytes, reference(2), contract(1e4, 7));
    assert!(matches!(other, Err(Error::State { reason, .. }) if reason.contains("another reference")));
}

#[test]
fn saving_replaces_atomically_and_leaves_nothing_beside() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("monitor.state");
    let fresh = Monitor::open(&path, reference(1), contract(1e4, 7)).unwrap();
    fresh.save(&path).unwrap();
    let mut later = fresh.clone();
    let (picture, scores) = stream(0);
    later.observe(&picture, &scores);
    later.save(&path).unwrap();
    let opened = Monitor::open(&path, reference(1), contract(1e4, 7)).unwrap();
    assert_eq!(opened.to_bytes(), later.to_bytes());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    let missing = folder.path().join("no such folder").join("monitor.state");
    assert!(matches!(later.save(&missing), Err(Error::Write { .. })));
    std::fs::write(&path, b"excon.shift-state/2 torn").unwrap();
    assert!(matches!(Monitor::open(&path, reference(1), contract(1e4, 7)), Err(Error::State { .. })));
}

#[test]
fn reference_travels_as_tensors() {
    let reference = reference(3);
    let bytes = to_bytes(&reference.to_tensors()).unwrap();
    let back = Reference::from_tensors(&from_bytes(&bytes).unwrap()).unwrap();
    assert_eq!(back, reference);
    assert_eq!(back.digest(), reference.digest());
    for name in reference.to_tensors().keys() {
        let mut tensors = reference.to_tensors();
        if let Some((_, values)) = tensors.get_mut(name) {
            match values.first_mut() {
                Some(first) => *first = f64::NAN,
                None => continue,
            }
        }
        assert!(Reference::from_tensors(&tensors).is_err(), "{name} with NaN was taken");
        tensors.remove(name);
        assert!(Reference::from_tensors(&tensors).is_err(), "{name} was not missed");
    }
}
