//! The network behind the engine trait, and the figures of a split.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::explain::network_head;
use crate::golden::{gap, network, tensors, values, whole};
use excon_edge::engine::{Outputs, Shapes};

/// The twelve reference pictures as a split.
fn split() -> (Split, Preprocess) {
    let f = tensors("network/batch");
    let bytes = f["image_u8"].permute((0, 2, 3, 1)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let names = (0..12).map(|i| format!("{i}")).collect();
    let split = Split { size: 32, rgb: bytes, labels: whole(&f["label"]), names, ..Split::default() };
    (split, Preprocess { size: 32, mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] })
}

#[test]
fn the_engine_gives_the_reference_logits_and_maps() {
    let engine = NetworkEngine::new(network(), 32).unwrap();
    let images: Vec<f32> = tensors("network/batch")["input"].flatten_all().unwrap().to_vec1().unwrap();
    let out = engine.run(&images).unwrap();
    let f = tensors("network/eval_forward");
    let as_f64 = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    assert!(gap(&as_f64(&out.logits), &values(&f["logits"])) < 2e-5);
    let maps = values(&f["last_map"]);
    assert!(gap(&as_f64(&out.features[..maps.len()]), &maps) < 2e-5);
    assert_eq!(engine.shapes(), Shapes { input: [3, 32, 32], classes: 10, features: [64, 8, 8] });
    assert!(engine.run(&images[1..]).is_err());
    assert!(engine.run(&[]).is_err());
    // The batch does not change an answer.
    let one = engine.run(&images[..3 * 32 * 32]).unwrap();
    assert!(gap(&as_f64(&one.logits), &as_f64(&out.logits[..10])) < 1e-5);
}

#[test]
fn figures_of_a_split_agree_with_a_direct_count() {
    let engine = NetworkEngine::new(network(), 32).unwrap();
    let head = network_head(&network()).unwrap();
    let (split, preprocess) = split();
    let e = evaluate(&engine, &head, &split, &preprocess, &Scaling::default()).unwrap();
    // The fixture's notes: the network labels 5 of the 12 right.
    assert_eq!((e.measured.metrics.count, e.measured.metrics.accuracy), (12, 5.0 / 12.0));
    assert!(e.completeness_residual < 1e-5);
    assert_eq!((e.faithfulness.unwrap().count, &e.no_map), (12, &None));
    assert_eq!(e.logits, logits(&engine, &split, &preprocess).unwrap());
    let hotter = evaluate(&engine, &head, &split, &preprocess, &4.0.into()).unwrap();
    assert_eq!(hotter.measured.metrics.accuracy, e.measured.metrics.accuracy);
    assert_ne!(hotter.measured.metrics.nll, e.measured.metrics.nll);
    let strange = Split { labels: vec![10; 12], ..split };
    assert!(evaluate(&engine, &head, &strange, &preprocess, &Scaling::default()).is_err());
}

/// A network whose last map is one cell: two numbers, of which the first is the picture's mean.
struct OneCell;

impl Engine for OneCell {
    fn name(&self) -> &str {
        "one cell"
    }

    fn shapes(&self) -> Shapes {
        Shapes { input: [3, 32, 32], classes: 10, features: [2, 1, 1] }
    }

    fn run(&self, images: &[f32]) -> excon_edge::Result<Outputs> {
        let mean = |image: &[f32]| image.iter().sum::<f32>() / image.len() as f32;
        let features: Vec<f32> = images.chunks(3 * 32 * 32).flat_map(|image| [mean(image), 1.0]).collect();
        let logits = features.chunks(2).flat_map(|f| (0..10).map(|k| f[0] * k as f32)).collect();
        Ok(Outputs { logits, features })
    }
}

#[test]
fn without_maps_nothing_is_said_of_them() {
    let (split, preprocess) = split();
    let weight = (0..10).flat_map(|k| [k as f32, 0.0]).collect();
    let head = LinearHead::new(10, 2, weight, vec![0.0; 10]).unwrap();
    let e = evaluate(&OneCell, &head, &split, &preprocess, &Scaling::default()).unwrap();
    assert_eq!(e.no_map.as_deref(), Some(NO_MAP));
    assert!(e.faithfulness.is_none() && e.localisation.is_none() && e.completeness_residual < 1e-5);
    let x = explanations(&OneCell, &head, &split, &preprocess, 4, &mut |_| ()).unwrap().unwrap();
    assert!(x.deletion.is_none() && x.insertion.is_none());
    assert!(x.occlusion.cosine.is_finite(), "the embedding is there without a map");
}
