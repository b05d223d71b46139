//! A trained network on the device answers and is attacked as on the CPU.

use super::*;
use crate::cuda::CudaNetwork;
use crate::evaluate::{NetworkEngine, WhiteBox};
use crate::golden::{channel_last, network, tensors, whole};
use crate::network::{Graph, Network, Stem, build};
use excon_edge::engine::Engine;

/// Networks for pictures of 32 pixels: the golden one, and one with depthwise convolutions, ReLU6 and sums without ReLU.
fn networks() -> [Network; 2] {
    let random = |graph: Graph| Network::new(graph, &mut rng(30)).unwrap();
    [network(), random(build("mobilenetv2-0.25", 10, Stem::Stride1, 24).unwrap())]
}

fn opened(which: usize) -> Option<CudaNetwork> {
    let [first, second] = networks();
    let opened = CudaNetwork::open(if which == 0 { first } else { second }, 32, Precision::F32);
    opened.inspect_err(|e| eprintln!("skipped: {e}")).ok()
}

#[test]
fn answers_are_those_of_the_cpu_however_many_pictures_are_asked_about() {
    for (which, cpu) in networks().into_iter().enumerate() {
        let Some(card) = opened(which) else { return };
        let cpu = NetworkEngine::new(cpu, 32).unwrap();
        assert_eq!(card.shapes(), cpu.shapes());
        let mut rng = rng(31);
        let images = numbers(&mut rng, 70 * 3 * 32 * 32);
        let (got, want) = (card.run(&images).unwrap(), cpu.run(&images).unwrap());
        close(&got.logits, &want.logits, 1e-4, "logits");
        close(&got.features, &want.features, 1e-4, "features");
        // Alone, a picture of the second batch is answered with the same bits.
        let one = card.run(&images[66 * 3072..67 * 3072]).unwrap();
        let classes = card.shapes().classes;
        assert_eq!(one.logits, got.logits[66 * classes..67 * classes]);
        assert!(card.run(&images[1..]).is_err());
        assert!(card.run(&[]).is_err());
    }
}

#[test]
fn the_gradient_of_pictures_is_the_reference_gradient() {
    let Some(card) = opened(0) else { return };
    let f = tensors("network/batch");
    let pixels = (channel_last(&f["image_u8"]).to_dtype(candle_core::DType::F32).unwrap() / 255.0).unwrap();
    let labels = whole(&f["label"]);
    let target = crate::evaluate::Target::new(&card, &[0.5071, 0.4867, 0.4408], &[0.2675, 0.2565, 0.2761]).unwrap();
    let got = target.gradient(&pixels, &labels).unwrap().narrow(0, 0, 4).unwrap();
    let want = channel_last(&tensors("attack/fgsm_pgd")["loss_gradient_pixel_space"]);
    close(&of(&got), &of(&want), 1e-4, "gradient");
}

#[test]
fn gradients_pass_through_every_kind_of_node() {
    let Some(card) = opened(1) else { return };
    let [_, cpu] = networks();
    let cpu = NetworkEngine::new(cpu, 32).unwrap();
    let mut rng = rng(32);
    let x = Tensor::from_vec(numbers(&mut rng, 66 * 3072), (66, 32, 32, 3), &candle_core::Device::Cpu).unwrap();
    let labels: Vec<usize> = (0..66).map(|i| i % 10).collect();
    let (got, want) = (card.gradient(&x, &labels).unwrap(), cpu.gradient(&x, &labels).unwrap());
    assert_eq!(got.dims(), want.dims());
    // Rounding may move a value across the end of a ReLU6, which changes that picture's gradient; the others agree.
    let (got, want) = (of(&got), of(&want));
    let limit = 1e-3 * want.iter().fold(0f32, |m, v| m.max(v.abs()));
    let agree = |(a, b): &(&[f32], &[f32])| gap(a, b) <= limit;
    let agreeing = got.chunks(3072).zip(want.chunks(3072)).filter(agree).count();
    assert!(agreeing >= 60, "{agreeing} of 66 pictures");
    close(&of(&card.logits(&x).unwrap()), &of(&cpu.logits(&x).unwrap()), 1e-4, "logits");
}

#[test]
fn what_the_device_cannot_run_is_refused_when_it_is_opened() {
    if opened(0).is_none() {
        return;
    }
    let graph = build("resnet8", 10, Stem::Imagenet, 24).unwrap();
    let network = Network::new(graph, &mut rng(33)).unwrap();
    // A kernel of seven on pictures of no pixels.
    let error = CudaNetwork::open(network, 0, Precision::F32).err().unwrap().to_string();
    assert!(error.contains("kernel larger"), "{error}");
}
