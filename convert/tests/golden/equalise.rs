//! Corrections before quantization: they change ranges and biases, and not what the float network says.

use crate::common::*;
use excon_convert::equalise::{bias_corrected, equalised};
use excon_convert::export;
use excon_convert::fold::{Folded, LayerOp};
use excon_convert::probe::Probe;
use excon_convert::quantize::{Codes, dequantize, quantize_weight};
use excon_convert::range::Observed;
use excon_convert::select::Ways;
use excon_train::network::{Stem, build};

/// ReLU6 and depthwise convolutions.
fn mobilenet() -> Folded {
    let graph = build("mobilenetv2-0.5", 10, Stem::Stride2, 8).unwrap();
    Folded::new(&graph, &random_weights(&graph, 4), SIDE).unwrap()
}

fn logits(network: &Folded, images: &[f32]) -> Vec<f32> {
    let probe = Probe::new(&export::float(network, &[]), network.input_shape()).unwrap();
    probe.run_all(images, |mut o| o.swap_remove(0)).unwrap().concat()
}

/// Σ over maps and channels of log2(range of the map / range of the channel): bits that a shared scale wastes.
fn wasted_bits(network: &Folded, observed: &Observed) -> f64 {
    let bits = |id| {
        let ranges = &observed.map(id).unwrap().largest;
        let widest = ranges.iter().fold(0.0f32, |m, &r| m.max(r));
        ranges.iter().filter(|&&r| r > 0.0).map(|r| f64::from(widest / r).log2()).sum::<f64>()
    };
    export::maps(network).into_iter().map(bits).sum()
}

#[test]
fn equalised_channels_change_nothing_on_the_calibration_pictures() {
    for network in [folded(), mobilenet()] {
        let images = pictures();
        let observed = Observed::new(&network, &images).unwrap();
        let equal = equalised(&network, &observed).unwrap();
        let (before, after) = (logits(&network, &images), logits(&equal, &images));
        let scale = before.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let gap = largest_gap(&before, &after);
        assert!(gap <= 1e-4 * scale, "{}: {gap} of {scale}", network.name);
        let wasted = [wasted_bits(&network, &observed), wasted_bits(&equal, &Observed::new(&equal, &images).unwrap())];
        assert!(wasted[1] < 0.9 * wasted[0], "{}: {wasted:?} bits", network.name);
        // The class-activation map is read from the last map, which stays.
        assert_eq!(equal.head(), network.head());
    }
}

/// A 1 × 1 convolution without activation has no border, so that its mean error must vanish.
#[test]
fn a_corrected_bias_takes_the_mean_error_away() {
    let (network, images) = (mobilenet(), pictures());
    let observed = Observed::new(&network, &images).unwrap();
    let corrected = bias_corrected(&network, &observed);
    let linear = |layer: &excon_convert::fold::Layer| {
        matches!(&layer.op, LayerOp::Conv { window, .. } if window.kernel == [1, 1]) && layer.activation.is_none()
    };
    let chosen = network.layers.iter().position(linear).unwrap();
    // Mean error of that layer alone, its weights rounded, with these biases.
    let error = |biases: &Folded| {
        let mut rounded = network.clone();
        rounded.layers[chosen] = biases.layers[chosen].clone();
        if let LayerOp::Conv { weight, bias, .. } = &mut rounded.layers[chosen].op {
            let (bytes, scales) = quantize_weight(weight, bias.len());
            let filter = weight.len() / bias.len();
            let value = |i: usize| dequantize(i32::from(bytes[i]), scales[i / filter], 0);
            weight.iter_mut().enumerate().for_each(|(i, w)| *w = value(i));
        }
        let rounded = Observed::new(&rounded, &images).unwrap();
        let means = |o: &Observed| o.map(chosen).unwrap().mean.clone();
        means(&rounded).iter().zip(means(&observed)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    };
    let (plain, corrected) = (error(&network), error(&corrected));
    assert!(corrected < 0.05 * plain, "{corrected} against {plain}");
}

/// The same network with every other channel between two convolutions at a sixty-fourth: as networks come out of training
/// whose batch norms differ much.
fn pulled_apart() -> Folded {
    let mut network = folded();
    let inner = |from: usize, to: usize, n: &Folded| {
        n.layers[to].inputs == [from] && n.layers.iter().filter(|l| l.inputs.contains(&from)).count() == 1
    };
    for to in 1..network.layers.len() {
        let from = network.layers[to].inputs[0];
        if !inner(from, to, &network) || network.layers[from].activation.is_none() {
            continue;
        }
        let scale = |weight: &mut [f32], channel: usize, k: f32| {
            if channel % 2 == 1 {
                weight.iter_mut().for_each(|w| *w *= k);
            }
        };
        let channels = network.layers[from].shape[0];
        let LayerOp::Conv { window, .. } = &network.layers[to].op else { continue };
        let taps = window.kernel.iter().product::<usize>();
        if let LayerOp::Conv { weight, .. } = &mut network.layers[to].op {
            weight.chunks_exact_mut(taps).enumerate().for_each(|(at, w)| scale(w, at % channels, 64.0));
        }
        if let LayerOp::Conv { weight, bias, .. } = &mut network.layers[from].op {
            let filter = weight.len() / channels;
            weight.chunks_exact_mut(filter).enumerate().for_each(|(at, w)| scale(w, at, 1.0 / 64.0));
            bias.chunks_exact_mut(1).enumerate().for_each(|(at, b)| scale(b, at, 1.0 / 64.0));
        }
    }
    network
}

#[test]
fn channels_that_lie_far_apart_are_equalised() {
    let (network, images) = (pulled_apart(), pictures());
    let gap = largest_gap(&logits(&network, &images), &logits(&folded(), &images));
    assert!(gap <= 1e-3, "pulling apart changes nothing: {gap}");
    let (calibration, held_back) = images.split_at(6 * ONE);
    let classes: Vec<usize> = integers("network/batch.safetensors", "label")[6..].iter().map(|&l| l as usize).collect();
    let held_back = (held_back.to_vec(), classes);
    let ways = Ways::new(&network, Codes::Symmetric, &labels(), calibration, held_back).unwrap();
    let chosen = ways.select(&Default::default()).unwrap();
    let least = |equalised: bool| {
        let of = chosen.trials.iter().filter(|t| t.equalised == equalised && !t.bias_corrected);
        of.map(|t| t.logit_error).fold(f64::INFINITY, f64::min)
    };
    assert!(chosen.best.equalised && least(true) < 0.5 * least(false), "{} against {}", least(true), least(false));
}
