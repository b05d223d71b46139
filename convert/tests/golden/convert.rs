//! The whole conversion on photographs: the ResNet-8 of the fixtures, labels mostly its own answers.

use crate::common::*;
use excon_convert::compare::{Allowed, Verdict};
use excon_convert::fold::Folded;
use excon_convert::{Choice, Error, Options, Source, Step, Target, convert, export, onnx, probe::Probe, quantize};
use excon_edge::bundle::{Bundle, Precision};
use excon_edge::engine::tract::TractEngine;
use excon_edge::engine::{Engine, tensorrt};
use excon_edge::image::Preprocess;
use excon_edge::predictor::Predictor;
use excon_edge::shift::Channel;
use excon_train::dataset::{Dataset, OpenOptions, Split, open};
use std::path::Path;
use std::sync::OnceLock;

const PREPROCESS: Preprocess = Preprocess { size: SIDE, mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] };

pub fn source() -> Source {
    Source {
        path: "golden".into(),
        network: folded(),
        projection: None,
        labels: labels(),
        preprocess: PREPROCESS,
        recipe: "cross-entropy".into(),
        data: "photographs".into(),
        data_digest: "0".repeat(64),
        seed: 11,
        notes: vec![],
    }
}

fn data() -> &'static Dataset {
    static DATA: OnceLock<Dataset> = OnceLock::new();
    DATA.get_or_init(|| data_of(&folded()))
}

/// TrashNet pictures at 32 × 32 with a network's own answers as labels, every seventh (and one of each class) wrong.
pub fn data_of(network: &Folded) -> Dataset {
    let options = OpenOptions { image_size: Some(SIDE), ..OpenOptions::default() };
    let all = open("trashnet", &options).unwrap();
    let probe = Probe::new(&export::float(network, &[]), [3, SIDE, SIDE]).unwrap();
    let relabel = |split: &Split, count: usize| {
        let n = split.len();
        let mut split = split.subset(&(0..count).map(|i| i * n / count).collect::<Vec<_>>());
        let answers = probe.run_all(&normalised(&split), |o| argmax(&o[0])).unwrap();
        split.labels = answers.iter().enumerate().map(|(i, &a)| if i % 7 == 0 { (i / 7) % 10 } else { a }).collect();
        split
    };
    let (train, validation) = (relabel(&all.train, 180), relabel(&all.validation, 140));
    Dataset { name: "photographs".into(), labels: labels(), digest: "0".repeat(64), train, validation, ..all }
}

/// Every picture as the network takes it.
pub fn normalised(split: &Split) -> Vec<f32> {
    let mut images = vec![];
    (0..split.len()).for_each(|i| PREPROCESS.normalise(&split.to_picture(i), &mut images));
    images
}

pub fn options(out: &Path) -> Options {
    Options {
        precision: Choice::Int8,
        calibration_pictures: 60,
        held_back_pictures: 60,
        class_mean_pictures: 150,
        ..Options::new(out)
    }
}

#[test]
fn a_bundle_is_sealed_and_predicts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("photographs.excon");
    let mut steps = vec![];
    let done = convert(&source(), data(), Target::Cpu, &options(&out), &mut |s| steps.push(s)).unwrap();
    assert!(matches!(steps[..], [Step::Ways(60), Step::Compare(_), Step::Fit(_), Step::Write]));

    let bundle = Bundle::open(&out).unwrap();
    let manifest = &bundle.manifest;
    assert_eq!((manifest.precision, manifest.target.as_str()), (Precision::Int8, "cpu"));
    assert_eq!((&manifest.labels, manifest.network.features), (&labels(), [64, 8, 8]));
    assert_eq!(manifest.provenance.data, format!("photographs {}", "0".repeat(64)));
    quantize::check(&onnx::decode(&bundle.model).unwrap(), Target::Cpu.codes()).unwrap();
    assert_eq!((bundle.golden.count, bundle.projection.is_none()), (4, true));

    // Constants: from disjoint halves, on this engine.
    let fit = done.report.fit.as_ref().unwrap();
    assert_eq!(fit.fit_pictures + fit.reference_frames + fit.sensor_faults, data().validation.len());
    let [none, chosen] = [0, fit.calibrations.iter().position(|c| c.chosen).unwrap()].map(|i| &fit.calibrations[i]);
    assert!(chosen.held_out_nll < none.held_out_nll && fit.scaling.temperature != 1.0, "{:?}", fit.calibrations);
    assert!(fit.completeness_residual < 1e-4 && fit.problems.is_empty(), "{fit:?}");
    let conformal = fit.conformal.as_ref().unwrap();
    assert!((0.0..=1.0).contains(&conformal.quantile));
    assert_eq!(bundle.reference.values(Channel::Confidence).len(), fit.reference_frames);
    assert_eq!(bundle.reference.values(Channel::MaskedCosine).len(), fit.reference_frames);
    assert_eq!(bundle.reference.weights().get(Channel::CamEntropy), 0.0, "saliency has not earned weight here");
    for channel in Channel::TOWARD {
        assert_eq!(bundle.reference.values(channel).len(), fit.reference_frames, "{}", channel.name());
        assert!(bundle.reference.weights().get(channel) > 0.0, "{}", channel.name());
    }
    assert_eq!(bundle.reference.values(Channel::ProjectionFirst).len(), fit.reference_frames);

    // The accuracy estimate saw both halves, of which every seventh label is wrong.
    let accuracy = bundle.accuracy.as_ref().unwrap();
    assert_eq!(accuracy.pictures(), data().validation.len());
    assert!((0.7..0.9).contains(&accuracy.healthy()), "{}", accuracy.healthy());

    // Int8 against float.
    let comparison = done.report.comparison.as_ref().unwrap();
    assert!(comparison.agreement > 0.93, "{}", comparison.agreement);
    assert_eq!(comparison.int8.count, manifest.budget[0].pictures);
    let budget = &done.report.budget;
    assert_eq!(budget[0].verdict, Verdict::TooFewPictures, "70 pictures cannot settle half a point: {budget:?}");
    let noise: Vec<f64> = done.report.layers.iter().filter_map(|l| l.signal_to_noise_db).collect();
    assert_eq!(noise.len(), export::maps(&folded()).len() - 1);
    assert!(noise.iter().all(|&db| db > 12.0 && db < 70.0), "{noise:?}");

    // What the bundle says is what the engine measured.
    let predictor = Predictor::open(&out).unwrap();
    let validation = &data().validation;
    let right = (0..validation.len())
        .filter(|&i| predictor.predict(&validation.to_picture(i)).unwrap().class == validation.labels[i])
        .count();
    assert!(right as f64 > 0.75 * validation.len() as f64, "{right}");
    // JSON reads a number back to the last digit but one.
    let text = serde_json::to_string(&done.report).unwrap();
    let read = serde_json::from_str::<excon_convert::ConversionReport>(&text).unwrap().budget;
    for (read, said) in read.iter().zip(&done.report.budget) {
        assert_eq!(
            (&read.item.name, read.item.pictures, read.verdict),
            (&said.item.name, said.item.pictures, said.verdict)
        );
        assert!((read.item.measured - said.item.measured).abs() <= 1e-12);
    }
    assert_eq!(read.len(), done.report.budget.len());
}

#[test]
fn the_same_conversion_gives_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let once = |name: &str| {
        let out = folder.path().join(name);
        convert(&source(), data(), Target::Cpu, &options(&out), &mut |_| ()).unwrap();
        std::fs::read(out).unwrap()
    };
    assert!(once("a.excon") == once("b.excon"));
}

#[test]
fn a_model_alone_is_written_and_other_runtimes_agree() {
    let folder = tempfile::tempdir().unwrap();
    for precision in [Choice::Float, Choice::Int8] {
        let out = folder.path().join("model.onnx");
        let options = Options { precision, ..options(&out) };
        let done = convert(&source(), data(), Target::Cpu, &options, &mut |_| ()).unwrap();
        assert_eq!(done.report.comparison.is_some(), precision == Choice::Int8);
        assert!(done.bundle.is_none() && done.report.fit.is_none());
        let model = onnx::decode(&std::fs::read(&out).unwrap()).unwrap();
        let split = &data().validation;
        let images = normalised(split);
        let ours = Probe::new(&model, [3, SIDE, SIDE]).unwrap().run_all(&images, |o| o).unwrap();
        for (runtime, theirs) in elsewhere(&model, [3, SIDE, SIDE], &images) {
            let same = ours.iter().zip(theirs[0].chunks_exact(10)).filter(|(a, b)| argmax(&a[0]) == argmax(b)).count();
            assert!(same as f64 >= 0.99 * split.len() as f64, "{precision:?}, {runtime:?}: {same} of {}", split.len());
            if precision == Choice::Float {
                let logits: Vec<f32> = ours.iter().flat_map(|o| o[0].clone()).collect();
                assert!(largest_gap(&logits, &theirs[0]) <= 1e-4, "{runtime:?}");
            }
        }
    }
}

#[test]
fn bundles_for_tensorrt_carry_what_a_board_needs_to_build_and_fit() {
    let folder = tempfile::tempdir().unwrap();
    for (target, precision) in [(Target::TensorRt, Precision::Int8), (Target::TensorRtHalf, Precision::Float)] {
        let out = folder.path().join(format!("{}.excon", target.name()));
        let options = Options { precision: Choice::Auto, ..options(&out) };
        convert(&source(), data(), target, &options, &mut |_| ()).unwrap();
        let bundle = Bundle::open(&out).unwrap();
        assert_eq!((bundle.manifest.target.as_str(), bundle.manifest.precision), (target.name(), precision));
        let (fit, rank) = bundle.calibration.as_ref().unwrap().halves();
        assert_eq!(fit.labels.len() + rank.labels.len(), data().validation.len());

        // In the form for TensorRT's parser it computes the same, to the bit.
        let master = tensorrt::Master::new(&bundle.model).unwrap();
        assert_eq!(master.int8, precision == Precision::Int8);
        let run = |model: &[u8]| TractEngine::from_onnx(model, "model").unwrap().run(&bundle.golden.inputs).unwrap();
        assert_eq!(run(&bundle.model), run(&master.bytes));
    }
    let int8 = options(&folder.path().join("x.excon"));
    let error = convert(&source(), data(), Target::TensorRtHalf, &int8, &mut |_| ()).unwrap_err();
    assert!(error.exit_code() == 64 && error.to_string().contains("8-bit"), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.excon");
    let refuse = |source: &Source, data: &Dataset, out: &Path, code: u8, words: &str| {
        let error = convert(source, data, Target::Cpu, &options(out), &mut |_| ()).unwrap_err();
        assert!(error.exit_code() == code && error.to_string().contains(words), "{error}");
    };
    let mut other = source();
    other.labels.swap(0, 1);
    refuse(&other, data(), &out, 65, "classes");
    let mut other = source();
    other.preprocess.size = 64;
    refuse(&other, data(), &out, 65, "--image-size 64");
    let empty = Dataset { validation: Split::default(), ..data().clone() };
    refuse(&source(), &empty, &out, 65, "no validation pictures");
    let one = Dataset { train: data().train.subset(&[0]), ..data().clone() };
    refuse(&source(), &one, &out, 65, "two at least");
    refuse(&source(), data(), &folder.path().join("x.bin"), 64, ".excon or .onnx");
    refuse(&source(), data(), &folder.path().join("missing/x.onnx"), 73, "missing");
    refuse(&source(), data(), &folder.path().join("missing/x.excon"), 73, "missing");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!(Target::ALL.iter().all(|t| t.name().parse::<Target>().unwrap() == *t));
    assert!(matches!("jetson".parse::<Target>(), Err(Error::Setting { .. })));
}

#[test]
fn other_pictures_than_trained_on_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let other = Dataset { digest: "1".repeat(64), ..data().clone() };
    let options = options(&folder.path().join("x.onnx"));
    let done = convert(&source(), &other, Target::Cpu, &options, &mut |_| ()).unwrap();
    assert!(done.report.notes[0].contains("not the ones"), "{:?}", done.report.notes);
}

#[test]
fn int8_that_costs_too_much_is_written_only_where_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("x.onnx");
    // Nothing may be lost, and even that not: a budget that no form of a network meets.
    let nothing = Allowed { accuracy_loss: -1.0, ece_loss: -1.0 };
    for (precision, written) in [(Choice::Auto, Precision::Float), (Choice::Int8, Precision::Int8)] {
        let options = Options { precision, allowed: nothing, ..options(&out) };
        let report = convert(&source(), data(), Target::Cpu, &options, &mut |_| ()).unwrap().report;
        assert_eq!(report.precision, written);
        assert_eq!(report.notes.iter().any(|note| note.starts_with("float is written")), precision == Choice::Auto);
        assert!(report.comparison.is_some() && report.timing.is_some(), "what was measured is said either way");
        assert_eq!(report.budget.is_empty(), precision == Choice::Auto);
    }
}

#[test]
fn pictures_in_two_splits_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { precision: Choice::Float, ..options(&folder.path().join("x.onnx")) };
    let convert = |data: &Dataset| convert(&source(), data, Target::Cpu, &options, &mut |_| ()).unwrap().report.notes;
    let clean = convert(data());
    let leaking = Dataset { test: data().train.subset(&[0, 5, 7]), ..data().clone() };
    let notes = convert(&leaking);
    assert!(notes.iter().any(|n| n.starts_with("3 of 3 test pictures are training pictures too")), "{notes:?}");
    assert!(!clean.iter().any(|n| n.contains("test pictures")), "{clean:?}");
}
