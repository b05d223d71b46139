//! A complete bundle around the tiny network: fitted, with a reference of healthy pictures, ready to seal.

use super::{CHANNELS, CLASSES, MAP, Noise, SIZE, head, images, network};
use excon_edge::accuracy::{AccuracyModel, Outcome, Shifted};
use excon_edge::bundle::*;
use excon_edge::engine;
use excon_edge::image::{Picture, Preprocess};
use excon_edge::predictor::{Parts, Predictor};
use excon_edge::probability::{Conformal, SetScore};
use excon_edge::saliency::LinearHead;
use excon_edge::shift::{ClassMeans, Declared, FrameScores, PixelStatistics, Reference, ReferenceOptions, ScoreModel};
use std::sync::Arc;

pub const LABELS: [&str; CLASSES] = ["cup", "jar", "lid"];

/// A picture of coloured noise around a brightness of 0..1, wider than high.
pub fn picture(seed: u64, brightness: f32) -> Picture {
    let (width, height) = (20, 16);
    let mut noise = Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5EED);
    noise.take(8);
    let tint = [noise.next(), noise.next(), noise.next()];
    let rgb = (0..width * height * 3).map(|i| {
        let value = brightness + 0.1 * tint[i % 3] + 0.25 * brightness * noise.next();
        (255.0 * value).clamp(0.0, 255.0) as u8
    });
    Picture { width, height, rgb: rgb.collect() }
}

/// PNG bytes of a picture.
pub fn png(picture: &Picture) -> Vec<u8> {
    use image::ImageEncoder;
    let mut bytes = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    let (width, height) = (picture.width as u32, picture.height as u32);
    encoder.write_image(&picture.rgb, width, height, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

fn projection() -> ProjectionHead {
    let mut noise = Noise(21);
    let tensors: Tensors = [
        ("head.0.weight".to_string(), Tensor::f32(&[CHANNELS, CHANNELS], noise.take(CHANNELS * CHANNELS))),
        ("head.0.bias".to_string(), Tensor::f32(&[CHANNELS], noise.take(CHANNELS))),
        ("head.2.weight".to_string(), Tensor::f32(&[4, CHANNELS], noise.take(4 * CHANNELS))),
        ("head.2.bias".to_string(), Tensor::f32(&[4], noise.take(4))),
    ]
    .into();
    ProjectionHead::from_tensors(&tensors, CHANNELS).unwrap().unwrap()
}

/// The parts of a predictor before anything is fitted.
pub fn parts(int8: bool) -> Parts {
    let (weight, bias) = head();
    Parts {
        engine: Arc::from(engine::open(&network(int8).bytes(), "tiny.onnx").unwrap()),
        labels: LABELS.map(String::from).to_vec(),
        preprocess: Preprocess { size: SIZE, mean: [0.5; 3], std: [0.25; 3] },
        head: LinearHead::new(CLASSES, CHANNELS, weight, bias).unwrap(),
        projection: Some(projection()),
        scaling: 1.25.into(),
        conformal: Some(conformal()),
        abstention: None,
        scores: None,
    }
}

fn conformal() -> Conformal {
    Conformal { method: SetScore::Aps, alpha: 0.1, quantile: 0.63, pictures: 10, penalty: None, by_class: None }
}

/// A bundle with a shift reference of so many healthy pictures (brightness 0.5, seeds from 1,000).
pub fn writer(int8: bool, frames: usize) -> Writer {
    versioned(int8, frames, 3)
}

/// As [`writer`], of a version.
pub fn versioned(int8: bool, frames: usize, version: u64) -> Writer {
    made_for("cpu", int8, frames, version)
}

/// As [`versioned`], for a target.
pub fn made_for(target: &str, int8: bool, frames: usize, version: u64) -> Writer {
    let mut parts = parts(int8);
    let fitting = Predictor::assemble(parts.clone()).unwrap();
    let mut means = ClassMeans::new(CLASSES, CHANNELS);
    let mut pixels = Vec::new();
    for seed in 0..60 {
        let picture = fitting.resize(&picture(seed, 0.5));
        means.add(seed as usize % CLASSES, &fitting.predict(&picture).unwrap().pooled).unwrap();
        pixels.push(PixelStatistics::of(&picture));
    }
    let model = ScoreModel::fit(&means, &pixels).unwrap();
    parts.scores = Some(model.clone());
    let predictor = Predictor::assemble(parts.clone()).unwrap();
    let score = |seed: usize| -> FrameScores {
        let picture = picture(1_000 + seed as u64, 0.5);
        let prediction = predictor.predict(&picture).unwrap();
        predictor.scores(&picture, &prediction, seed.is_multiple_of(4)).unwrap()
    };
    let options = ReferenceOptions { independent: true, ..Default::default() };
    let reference = Reference::build(&(0..frames).map(score).collect::<Vec<_>>(), &options).unwrap();

    let inputs = images(2);
    let outputs = parts.engine.run(&inputs).unwrap();
    let golden = Golden { count: 2, inputs, logits: outputs.logits, features: outputs.features };
    let manifest = Manifest { version, target: target.into(), ..manifest(int8, frames, parts.engine.name()) };
    let mut writer = Writer::new(manifest);
    writer.member(MODEL, network(int8).bytes());
    writer.reference(&parts.head, parts.projection.as_ref(), &model, &reference, Some(&accuracy(&predictor))).unwrap();
    writer.golden(&golden).unwrap();
    writer
}

/// An accuracy estimate: three of four pictures are answered rightly, whatever the light.
fn accuracy(predictor: &Predictor) -> AccuracyModel {
    let outcomes = |brightness: f32| -> Vec<Outcome> {
        let outcome = |seed: u64| {
            let picture = picture(3_000 + 7_919 * seed, brightness);
            let prediction = predictor.predict(&picture).unwrap();
            let scores = predictor.scores(&picture, &prediction, false).unwrap();
            Outcome { scores, right: !seed.is_multiple_of(4) }
        };
        (0..60).map(outcome).collect()
    };
    let shifted = |brightness| Shifted { kinds: vec![Declared::Gamma], frames: outcomes(brightness) };
    AccuracyModel::fit(&outcomes(0.5), &[shifted(0.45), shifted(0.55)]).unwrap()
}

pub fn manifest(int8: bool, frames: usize, engine: &str) -> Manifest {
    Manifest {
        schema: SCHEMA.into(),
        name: "tiny".into(),
        version: 3,
        target: "cpu".into(),
        precision: if int8 { Precision::Int8 } else { Precision::Float },
        labels: LABELS.map(String::from).to_vec(),
        preprocess: Preprocess { size: SIZE, mean: [0.5; 3], std: [0.25; 3] },
        network: NetworkShapes {
            input: [3, SIZE, SIZE],
            features: [CHANNELS, MAP, MAP],
            input_name: "input".into(),
            logits_name: "logits".into(),
            features_name: "features".into(),
        },
        calibration: Calibration {
            temperature: 1.25,
            refinement: None,
            engine: engine.into(),
            pictures: 10,
            conformal: Some(conformal()),
            abstention: None,
            completeness_residual: 1e-7,
        },
        shift: ShiftContract {
            mean_time_between_false_alarms: 1e6,
            reference_frames: frames,
            autocorrelation_time: 1.0,
            independent: true,
            masked_every: 16,
        },
        budget: vec![BudgetItem {
            name: "accuracy loss".into(),
            allowed: 0.01,
            measured: 0.002,
            pictures: 100,
            met: true,
        }],
        provenance: Provenance {
            recipe: "excon (device, joint)".into(),
            network: "tiny".into(),
            data: "noise".into(),
            seed: 1,
            tool: "test".into(),
        },
        files: Default::default(),
    }
}
