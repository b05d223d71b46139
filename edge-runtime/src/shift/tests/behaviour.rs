//! The monitor as a user meets it: what enters, what stays, what it says.

use super::*;
use std::time::Duration;

const CHANNELS: [Channel; 3] = [Channel::Confidence, Channel::LumaMean, Channel::MaskedCosine];

fn reference(seed: u64) -> Reference {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let frames: Vec<FrameScores> = (0..200).map(|_| noise_frame(&CHANNELS, 0.0, &mut rng)).collect();
    independent(&frames, &CHANNELS)
}

fn monitor(contract: Contract) -> Monitor {
    Monitor::new(reference(1), contract).unwrap()
}

/// Feeds shifted frames until it rings.
fn ring(monitor: &mut Monitor, shifted: &[Channel]) -> Observation {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    for seed in 0..200 {
        let values = CHANNELS.map(|c| (c, normal(&mut rng) + if shifted.contains(&c) { 4.0 } else { 0.0 }));
        let observation = monitor.observe(&picture(1000 + seed), &frame(&values));
        if observation.alarm.is_some() {
            return observation;
        }
    }
    unreachable!("never rang")
}

#[test]
fn rings_stays_and_is_acknowledged() {
    let mut monitor = monitor(Contract::default());
    let rang = ring(&mut monitor, &[Channel::LumaMean]);
    let alarm = rang.alarm.clone().unwrap();
    assert_eq!(rang.state, State::Shift);
    assert_eq!((alarm.family, alarm.channels.as_slice()), (Family::InputChanged, [Channel::LumaMean].as_slice()));
    assert_eq!(alarm.frame, rang.effective_frames, "the frame that rings counts as the first");
    assert!(rang.log_r >= rang.log_limit && rang.kept);

    // Ordinary frames neither end it nor enter anything.
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for seed in 0..50 {
        let later = monitor.observe(&picture(seed), &noise_frame(&CHANNELS, 0.0, &mut rng));
        assert_eq!((later.state, later.kept, later.log_r), (State::Shift, false, rang.log_r));
        assert_eq!(later.effective_frames, rang.effective_frames);
        assert_eq!(later.alarm, rang.alarm);
    }
    monitor.acknowledge(false).unwrap();
    assert_eq!(monitor.log_r(), f64::NEG_INFINITY);
    let next = monitor.observe(&picture(777), &noise_frame(&CHANNELS, 0.0, &mut rng));
    assert_eq!((next.state, next.effective_frames), (State::Healthy, rang.effective_frames + 1));
}

#[test]
fn accepting_takes_a_new_reference_from_what_was_seen() {
    let mut monitor = monitor(contract(1e4, 0));
    ring(&mut monitor, &CHANNELS);
    assert!(monitor.acknowledge(true).is_err(), "nothing seen yet");
    assert!(monitor.alarm().is_some(), "a refused acceptance leaves the alarm");
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for seed in 0..150 {
        monitor.observe(&picture(seed), &noise_frame(&CHANNELS, 4.0, &mut rng));
    }
    monitor.acknowledge(true).unwrap();
    assert_eq!(monitor.reference().frames(), 150);
    assert!(monitor.reference().values(Channel::LumaMean)[0] > 0.0);
    let rang = (0..200).any(|seed| {
        monitor.observe(&picture(500 + seed), &noise_frame(&CHANNELS, 4.0, &mut rng)).state == State::Shift
    });
    assert!(!rang, "what was accepted is the new normal");
    assert!(monitor.promise().conditions.iter().any(|c| c.contains("accepted")));
}

#[test]
fn accepted_frames_of_a_video_carry_no_guarantee() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let raw: Vec<FrameScores> = (0..2_000).map(|_| noise_frame(&CHANNELS, 0.0, &mut rng)).collect();
    let weights = Weights::uniform(&CHANNELS).unwrap();
    let options = ReferenceOptions { independent: false, weights, problems: Vec::new() };
    let mut monitor = Monitor::new(Reference::build(&raw, &options).unwrap(), contract(1e4, 0)).unwrap();
    assert!(monitor.promise().guarantee);
    ring(&mut monitor, &CHANNELS);
    let step = monitor.reference().step() as u64;
    for seed in 0..150 * step {
        monitor.observe(&picture(seed), &noise_frame(&CHANNELS, 4.0, &mut rng));
    }
    monitor.acknowledge(true).unwrap();
    let promise = monitor.promise();
    assert!(!promise.guarantee && promise.sentence.contains("accepted on the device"), "{}", promise.sentence);
}

#[test]
fn recovery_ends_an_alarm_after_its_frames() {
    let mut monitor = monitor(Contract { recovery: Some(5), ..Contract::default() });
    ring(&mut monitor, &[Channel::LumaMean]);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let states: Vec<State> =
        (0..7).map(|i| monitor.observe(&picture(i), &noise_frame(&CHANNELS, 0.0, &mut rng)).state).collect();
    assert_eq!(states[..5], [State::Shift; 5]);
    assert_eq!(states[5..], [State::Healthy; 2]);
}

#[test]
fn sensor_faults_enter_nothing() {
    let (mut with, mut without) = (monitor(Contract::default()), monitor(Contract::default()));
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for seed in 0..50 {
        let scores = noise_frame(&CHANNELS, 0.0, &mut rng);
        let a = with.observe(&picture(seed), &scores);
        let fault = with.observe(&picture(seed), &frame(&CHANNELS.map(|c| (c, 1e9))));
        assert_eq!((fault.state, fault.fault, fault.kept), (State::SensorFault, Some(SensorFault::Frozen), false));
        let b = without.observe(&picture(seed), &scores);
        assert_eq!((a.log_r, &a.channels), (b.log_r, &b.channels));
    }
    let promise = with.promise();
    assert!(!promise.guarantee && promise.sentence.starts_with("no guarantee: sensor fault"), "{}", promise.sentence);
    assert!(without.promise().guarantee);
}

#[test]
fn a_missing_score_leaves_that_channel_alone() {
    let mut monitor = monitor(Contract::default());
    let full = monitor.observe(&picture(0), &frame(&CHANNELS.map(|c| (c, 1.0))));
    let part = monitor.observe(&picture(1), &frame(&[(Channel::Confidence, 1.0)]));
    let log_r = |o: &Observation, c: Channel| o.channels.iter().find(|r| r.channel == c).unwrap().log_r;
    assert_eq!(log_r(&full, Channel::LumaMean), log_r(&part, Channel::LumaMean));
    assert_ne!(log_r(&full, Channel::Confidence), log_r(&part, Channel::Confidence));
    assert!(part.channels.iter().all(|r| r.p.is_some() == (r.channel == Channel::Confidence)));
    let shares: f64 = part.channels.iter().map(|r| r.share).sum();
    assert!((shares - 1.0).abs() < 1e-12);
}

#[test]
fn a_score_that_is_not_a_number_is_unusual() {
    let mut monitor = monitor(Contract::default());
    let observation = monitor.observe(&picture(0), &frame(&[(Channel::Confidence, f64::NAN)]));
    assert!(observation.channels[0].p.unwrap() < 1.0 / 200.0);
}

#[test]
fn a_family_on_notice_does_not_ring() {
    let contract = Contract { notices: vec![Family::InputChanged], ..Contract::default() };
    let mut monitor = monitor(contract);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut noticed = false;
    for seed in 0..100 {
        let values = CHANNELS.map(|c| (c, normal(&mut rng) + if c == Channel::LumaMean { 4.0 } else { 0.0 }));
        let observation = monitor.observe(&picture(seed), &frame(&values));
        assert!(observation.alarm.is_none());
        noticed |= observation.notices == [Family::InputChanged];
    }
    assert!(noticed);
    monitor.set_notice(Family::InputChanged, false);
    let after = monitor.observe(&picture(999), &noise_frame(&CHANNELS, 0.0, &mut rng));
    assert_eq!(after.state, State::Healthy, "turned back, its evidence starts from 0");
}

#[test]
fn weight_zero_is_shown_but_cannot_ring() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let frames: Vec<FrameScores> = (0..200).map(|_| noise_frame(&CHANNELS, 0.0, &mut rng)).collect();
    let options = ReferenceOptions { independent: true, ..ReferenceOptions::default() };
    let mut monitor = Monitor::new(Reference::build(&frames, &options).unwrap(), Contract::default()).unwrap();
    let mut last = None;
    for seed in 0..100 {
        let values = CHANNELS.map(|c| (c, normal(&mut rng) + if c == Channel::MaskedCosine { 5.0 } else { 0.0 }));
        last = Some(monitor.observe(&picture(seed), &frame(&values)));
    }
    let last = last.unwrap();
    let masked = last.channels.iter().find(|r| r.channel == Channel::MaskedCosine).unwrap();
    assert!(last.alarm.is_none());
    assert!(masked.log_r > last.log_limit);
    assert_eq!((masked.weight, masked.share), (0.0, 0.0));
}

#[test]
fn slow_frames_and_failed_self_tests_are_told_apart_from_shift() {
    let budget = Some(Duration::from_millis(10));
    let mut monitor = monitor(Contract { latency_budget: budget, ..Contract::default() });
    let mut scores = frame(&CHANNELS.map(|c| (c, 0.0)));
    let slow = monitor.observe_timed(&picture(0), &scores, Some(Duration::from_millis(11)));
    assert_eq!((slow.state, slow.kept), (State::Slow, true));
    for (residual, failed) in [(1e-6, false), (2e-4, true), (f64::NAN, true)] {
        scores.completeness = Some(residual);
        let observation = monitor.observe(&picture(residual.to_bits()), &scores);
        assert_eq!(observation.self_test_failed.is_some(), failed);
        assert_eq!((observation.state == State::EngineFault, observation.kept), (failed, !failed));
    }
    assert_eq!(monitor.self_test_failures(), 2);
}

#[test]
fn promise_in_words() {
    let promise = monitor(Contract::default()).promise();
    assert!(promise.guarantee && !promise.low_power && promise.reasons.is_empty());
    assert_eq!(
        promise.sentence,
        "With no shift, P(a false alarm within t effective frames) ≤ t/1,000,000, so the mean time between false \
         alarms is at least 1,000,000 effective frames"
    );
    // AR(1) of 300 frames is far below 100 τ: no guarantee, and few enough kept frames for low power.
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut series = Ar1::new(0.7, &mut rng);
    let raw: Vec<FrameScores> = (0..300).map(|_| frame(&[(Channel::LumaMean, series.next(&mut rng))])).collect();
    let options = ReferenceOptions { problems: vec![Problem::FitAndRankOverlap], ..ReferenceOptions::default() };
    let reference = Reference::build(&raw, &options).unwrap();
    assert_eq!(reference.step(), (3.0 * reference.autocorrelation_time()).ceil() as usize);
    assert_eq!(reference.frames(), 300usize.div_ceil(reference.step()));
    let promise = Monitor::new(reference, Contract::default()).unwrap().promise();
    assert!(!promise.guarantee && promise.low_power);
    assert_eq!(promise.reasons.len(), 2);
    assert!(promise.sentence.contains("not disjoint") && promise.sentence.contains("low power"));
}

#[test]
fn masked_passes_are_due_by_count_alone() {
    let mut monitor = monitor(Contract { masked_every: 4, ..Contract::default() });
    let due: Vec<bool> = (0..9)
        .map(|i| {
            let due = monitor.masked_pass_due();
            monitor.observe(&picture(i), &frame(&CHANNELS.map(|c| (c, 0.1))));
            due
        })
        .collect();
    assert_eq!(due, [true, false, false, false, true, false, false, false, true]);
}

#[test]
fn unusable_references_and_contracts_are_refused() {
    let few: Vec<FrameScores> = (0..5).map(|i| frame(&[(Channel::Cosine, f64::from(i))])).collect();
    assert!(Reference::build(&few, &ReferenceOptions::default()).is_err());
    assert!(Reference::build(&[], &ReferenceOptions::default()).is_err());
    let broken: Vec<FrameScores> = (0..50).map(|_| frame(&[(Channel::Cosine, f64::NAN)])).collect();
    let options = ReferenceOptions { independent: true, ..ReferenceOptions::default() };
    assert!(Reference::build(&broken, &options).is_err());
    for mean_time in [0.5, f64::NAN, f64::INFINITY] {
        assert!(Monitor::new(reference(1), contract(mean_time, 0)).is_err());
    }
}

#[test]
fn slow_drift_is_noticed_by_the_fixed_reference() {
    let mut monitor = monitor(contract(1e6, 0));
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    let mut noticed = None;
    for t in 0..3000u64 {
        let shift = t as f64 / 500.0;
        let values = CHANNELS.map(|c| (c, normal(&mut rng) + if c == Channel::Confidence { shift } else { 0.0 }));
        let observation = monitor.observe(&picture(t), &frame(&values));
        if observation.slow_drift {
            noticed = Some(t);
            break;
        }
        if observation.alarm.is_some() {
            monitor.acknowledge(false).unwrap();
        }
    }
    assert!(noticed.is_some());
}

#[test]
fn observations_serialise_with_stable_names() {
    let mut monitor = monitor(Contract::default());
    let json = serde_json::to_value(monitor.observe(&picture(0), &frame(&CHANNELS.map(|c| (c, 0.3))))).unwrap();
    assert_eq!(json["state"], "healthy");
    assert_eq!(json["channels"][1]["channel"], "luma_mean");
    assert_eq!(json["channels"][1]["family"], "input_changed");
}

/// The notice of slow drift stays when the drift is over, is saved, and goes when someone answers.
#[test]
fn slow_drift_stays_until_it_is_answered() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let channels = [Channel::Confidence];
    let frames: Vec<_> = (0..500).map(|_| noise_frame(&channels, 0.0, &mut rng)).collect();
    let reference = independent(&frames, &channels);
    let contract = Contract { notices: vec![Family::NetworkUnsure], ..contract(100.0, 0) };
    let mut monitor = Monitor::new(reference.clone(), contract.clone()).unwrap();
    let mut seen = |monitor: &mut Monitor, shift: f64, count: u64| {
        (0..count).map(|i| monitor.observe(&picture(i), &noise_frame(&channels, shift, &mut rng))).last().unwrap()
    };
    assert!(!seen(&mut monitor, 0.0, 20).slow_drift);
    assert!(seen(&mut monitor, 3.0, 60).slow_drift);
    assert!(seen(&mut monitor, -3.0, 400).slow_drift, "it went by itself");
    let path = std::path::Path::new("drift");
    let mut monitor = Monitor::from_bytes(path, &monitor.to_bytes(), reference, contract).unwrap();
    assert!(monitor.drift_since().is_some());
    let refused = monitor.acknowledge(true).unwrap_err().to_string();
    assert!(refused.contains("set aside under an alarm only") && monitor.drift_since().is_some(), "{refused}");
    let answered = monitor.acknowledge(false).unwrap();
    assert!(answered.slow_drift && answered.alarm.is_none());
    assert!(monitor.acknowledge(false).unwrap().is_nothing());
    assert_eq!(monitor.drift_since(), None);
    assert!(!seen(&mut monitor, 0.0, 20).slow_drift);
}
