//! The ring of unusual frames: what it keeps, what it leaves on disk, what it refuses.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::saliency::Map;
use crate::shift::ReferenceOptions;
use std::time::Duration;

#[test]
fn times_are_written_as_the_standard_wants() {
    let at = |s: u64| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(s));
    assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
    assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
    assert_eq!(at(951_868_800_000), "2000-03-01T00:00:00.000Z");
    assert_eq!(at(1_798_761_599_000), "2026-12-31T23:59:59.000Z");
}

fn frame(luma: f64) -> FrameScores {
    let mut scores = FrameScores::empty();
    scores.set(Channel::LumaMean, luma);
    scores.set(Channel::Confidence, 0.1);
    scores
}

#[test]
fn the_score_grows_with_the_distance_on_either_side() {
    let frames: Vec<FrameScores> = (0..101).map(|i| frame(f64::from(i) / 100.0)).collect();
    let options = ReferenceOptions { independent: true, ..Default::default() };
    let reference = Reference::build(&frames, &options).unwrap();
    let of = |luma: f64| score(&reference, &frame(luma));
    assert_eq!(of(0.5), 0.0);
    assert!(of(0.4) > 0.0 && (of(0.4) - of(0.6)).abs() < 1e-12);
    assert!(of(2.0) > of(1.5) && of(1.5) > of(1.0));
    let mut unsure = frame(0.5);
    unsure.set(Channel::Confidence, 0.2);
    let sure = {
        let mut s = frame(0.5);
        s.set(Channel::Confidence, 0.0);
        s
    };
    assert!(score(&reference, &unsure) > 10.0, "a check without spread says the most it may");
    assert_eq!(score(&reference, &sure), 0.0, "surer than ever is not unusual");
}

fn prediction() -> Prediction {
    Prediction {
        class: 0,
        label: "cup".into(),
        probabilities: vec![0.9, 0.1],
        logits: vec![2.0, 0.0],
        confidence: 0.9,
        prediction_set: None,
        abstains: false,
        cam: Map { width: 2, height: 2, values: vec![0.0, 1.0, 2.0, 3.0] },
        completeness: 0.0,
        pooled: vec![],
        projected: None,
    }
}

fn offer(ring: &mut Ring, score: f64) -> bool {
    let picture = Picture { width: 3, height: 2, rgb: vec![100; 18] };
    ring.offer(score, "frame", SystemTime::now(), &picture, &picture, &prediction()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_most_unusual_stay_and_a_restart_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut ring = Ring::open(folder.path(), 2).unwrap();
    assert!(offer(&mut ring, 1.0) && offer(&mut ring, 3.0) && offer(&mut ring, 2.0));
    assert!(!offer(&mut ring, 1.5) && !offer(&mut ring, f64::NAN));
    assert_eq!(names(folder.path()).len(), 6);
    assert_eq!(names(folder.path())[0], "000002.json");

    // What a kill may leave, and what is someone else's.
    for left in ["000009.png", "000008.map.png", ".partial-1-1", "000007.json"] {
        std::fs::write(folder.path().join(left), b"half").unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), b"mine").unwrap();
    let listed = list(folder.path()).unwrap();
    assert_eq!(listed.iter().map(|kept| kept.number).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(listed[0].read().unwrap(), std::fs::read(folder.path().join("000002.png")).unwrap());
    assert!(list(&folder.path().join("none")).unwrap().is_empty());
    let mut ring = Ring::open(folder.path(), 2).unwrap();
    assert_eq!(names(folder.path()).len(), 7);
    assert!(offer(&mut ring, 2.5) && !offer(&mut ring, 2.2));
    assert_eq!(names(folder.path())[0], "000002.json");
    assert_eq!(names(folder.path())[3], "000008.json", "numbers are not used again");

    assert_eq!(Ring::open(folder.path(), 1).unwrap().len(), 1, "a smaller ring drops the least unusual");
    let kept: Entry = serde_json::from_slice(&std::fs::read(folder.path().join("000002.json")).unwrap()).unwrap();
    assert_eq!((kept.score, kept.predicted.as_str(), kept.schema.as_str()), (3.0, "cup", SCHEMA));
    assert_eq!(crate::image::read(&folder.path().join("000002.png")).unwrap().width, 3);
}

#[test]
fn a_place_that_is_lost_costs_the_frame_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut ring = Ring::open(&folder.path().join("ring"), 2).unwrap();
    std::fs::remove_dir(folder.path().join("ring")).unwrap();
    let picture = Picture { width: 3, height: 2, rgb: vec![100; 18] };
    let failed = ring.offer(1.0, "frame", SystemTime::now(), &picture, &picture, &prediction());
    assert_eq!(failed.unwrap_err().exit_code(), 73);
    assert!(ring.is_empty());
}

#[test]
fn large_frames_are_reduced() {
    let picture = Picture { width: 3000, height: 10, rgb: vec![7; 90_000] };
    let small = reduced(&picture);
    assert_eq!((small.width, small.height), (1024, 3));
}
