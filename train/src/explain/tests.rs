//! Maps and masks against independent reference values, and the switches of the explainer.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::golden::{channel_last, gap, largest, network, tensors, values, whole};

fn flat(maps: &[Map]) -> Vec<f64> {
    maps.iter().flat_map(|m| &m.values).map(|v| f64::from(*v)).collect()
}

fn batch() -> (Tensor, Vec<usize>) {
    let f = tensors("network/batch");
    (channel_last(&f["input"].narrow(0, 0, 4).unwrap()), whole(&f["label"].narrow(0, 0, 4).unwrap()))
}

fn close(maps: &[Map], want: &Tensor, name: &str) {
    let want = values(want);
    let gap = gap(&flat(maps), &want);
    assert!(gap <= 1e-4 * largest(&want), "{name}: {gap}");
}

#[test]
fn grad_cam_matches_reference() {
    let (images, labels) = batch();
    let f = tensors("explain/maps");
    let network = network();
    for layer in ["stage1.conv2", "stage2.conv2", "last"] {
        let node = network.graph().find(layer).unwrap_or(network.graph().features);
        for target in ["label", "predicted"] {
            let choose = |p: &[usize]| if target == "label" { labels.clone() } else { p.to_vec() };
            let (maps, predicted) = grad_cam(&network, &images, NormMode::Eval, node, choose).unwrap();
            assert_eq!(predicted, whole(&f["predicted"]));
            close(&maps, &f[&format!("gradcam.{layer}.{target}")], layer);
        }
    }
}

#[test]
fn grad_cam_with_batch_statistics_holds_cross_image_terms() {
    let (images, labels) = batch();
    let network = network();
    let before = network.state().unwrap()["stem_bn.running_mean"].copy().unwrap();
    let at = network.graph().paper_cam;
    let (maps, _) = grad_cam(&network, &images, NormMode::Batch, at, |_| labels.clone()).unwrap();
    close(&maps, &tensors("explain/maps")["gradcam_trainmode.stage2.conv2.label"], "train mode");
    assert_eq!(values(&before), values(&network.state().unwrap()["stem_bn.running_mean"]));
    grad_cam(&network, &images, NormMode::Train, at, |_| labels.clone()).unwrap();
    assert!(gap(&values(&before), &values(&network.state().unwrap()["stem_bn.running_mean"])) > 0.0);
}

#[test]
fn exact_maps_match_reference_and_the_runtime() {
    let (images, labels) = batch();
    let f = tensors("explain/maps");
    let network = network();
    let graph = network.graph();
    let out = network.infer(&images, NormMode::Eval, &[graph.features, graph.logits]).unwrap();
    let head = network_head(&network).unwrap();
    let maps = class_activation_maps(&out[0], &head, &labels).unwrap();
    close(&maps, &f["cam.label"], "label");
    close(&class_activation_maps(&out[0], &head, &whole(&f["predicted"])).unwrap(), &f["cam.predicted"], "predicted");

    let planar: Vec<f32> = out[0].permute((0, 3, 1, 2)).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let logits: Vec<Vec<f32>> = out[1].to_vec2().unwrap();
    for (i, features) in planar.chunks_exact(64 * 64).enumerate() {
        let map = excon_edge::saliency::class_activation_map(features, [64, 8, 8], &head, labels[i]);
        assert_eq!(map, maps[i]);
        let logit = logits[i][labels[i]];
        assert!(excon_edge::saliency::completeness_residual(&map, &head, labels[i], logit) < 1e-5);
    }
    assert!(class_activation_maps(&out[0], &head, &[0, 1]).is_err());
    assert!(class_activation_maps(&out[0], &head, &[0, 1, 2, 10]).is_err());
}

#[test]
fn masks_match_reference() {
    let f = tensors("explain/masks");
    for name in ["gradcam32", "hand_negative", "constant", "tiny_range", "negative32", "noise64"] {
        let (n, height, width) = f[&format!("{name}.map")].dims3().unwrap();
        let map: Vec<f32> = f[&format!("{name}.map")].flatten_all().unwrap().to_vec1().unwrap();
        let normalised = values(&f[&format!("{name}.normalised")]);
        let half = whole(&f[&format!("{name}.keep_gt_half")]);
        let top = f.get(&format!("{name}.keep_top15")).map(whole);
        for i in 0..n {
            let at = i * height * width..(i + 1) * height * width;
            let map = Map { width, height, values: map[at.clone()].to_vec() }.normalised();
            assert!(gap(&flat(std::slice::from_ref(&map)), &normalised[at.clone()]) <= 1e-6, "{name}");
            let keep = kept(&map, MaskRule::Value(0.5));
            for (j, keep) in keep.into_iter().enumerate() {
                let near = (normalised[at.start + j] - 0.5).abs() < 1e-5 && name != "hand_negative";
                assert!(near || usize::from(keep) == half[at.start + j], "{name} {i} {j}");
            }
            if let Some(top) = &top {
                let keep: Vec<usize> = kept(&map, MaskRule::Top(0.15)).into_iter().map(usize::from).collect();
                assert_eq!(keep, top[at.clone()], "{name}");
            }
        }
    }
}

#[test]
fn switches_do_what_they_say() {
    let (images, labels) = batch();
    let network = network();
    let black = [-2.0, -1.0, -3.0];
    let run = |config: ExplainConfig| explain(&network, &config, &images, &labels, black).unwrap();
    let device = run(ExplainConfig::device());

    let relu = run(ExplainConfig { cam_relu: true, ..ExplainConfig::device() });
    assert!(relu.maps.iter().flat_map(|m| &m.values).all(|v| *v >= 0.0));
    assert!(device.maps.iter().flat_map(|m| &m.values).any(|v| *v < 0.0));

    let filled = run(ExplainConfig { fill: Fill::Black, ..ExplainConfig::device() });
    let (z, b): (Vec<f32>, Vec<f32>) = (
        device.masked.flatten_all().unwrap().to_vec1().unwrap(),
        filled.masked.flatten_all().unwrap().to_vec1().unwrap(),
    );
    let keep: Vec<bool> = device.keep.concat();
    for (i, keep) in keep.iter().enumerate() {
        let (z, b) = (&z[3 * i..3 * i + 3], &b[3 * i..3 * i + 3]);
        assert!(if *keep { z == b } else { z == [0.0; 3] && b == black });
    }

    let top = run(ExplainConfig { mask_rule: MaskRule::Top(0.15), ..ExplainConfig::device() });
    assert!(top.keep.iter().all(|k| k.iter().filter(|k| **k).count() == 153));

    let pred = run(ExplainConfig { explain_target: Target::Pred, ..ExplainConfig::device() });
    let differs: Vec<bool> = device.maps.iter().zip(&pred.maps).map(|(a, b)| a != b).collect();
    let wrong: Vec<bool> = device.predicted.iter().zip(&labels).map(|(p, l)| p != l).collect();
    assert_eq!(differs, wrong);
}

#[test]
fn paper_mode_moves_the_running_statistics_three_times() {
    let (images, labels) = batch();
    let run = |config: ExplainConfig| {
        let network = network();
        explain(&network, &config, &images, &labels, [0.0; 3]).unwrap();
        values(&network.state().unwrap()["stem_bn.running_mean"])
    };
    let start = values(&tensors("network/weights")["stem_bn.running_mean"]);
    assert_eq!(run(ExplainConfig { explainer_bn: ExplainerNorm::TrainNoUpdate, ..ExplainConfig::paper() }), start);
    assert_eq!(run(ExplainConfig::device()), start);
    // The stem sees S, Z, S: after three updates 0.729 of the start is left.
    let moved = run(ExplainConfig::paper());
    let network = network();
    let mut want = start;
    let masked = explain(
        &network,
        &ExplainConfig { explainer_bn: ExplainerNorm::TrainNoUpdate, ..ExplainConfig::paper() },
        &images,
        &labels,
        [0.0; 3],
    )
    .unwrap()
    .masked;
    let stem = network.graph().find("stem_conv").unwrap();
    for x in [&images, &masked, &images] {
        let mean = network.infer(x, NormMode::Batch, &[stem]).unwrap()[0].mean((0, 1, 2)).unwrap();
        want.iter_mut().zip(values(&mean)).for_each(|(w, m)| *w = 0.9 * *w + 0.1 * m);
    }
    assert!(gap(&moved, &want) < 1e-5, "{}", gap(&moved, &want));
}
