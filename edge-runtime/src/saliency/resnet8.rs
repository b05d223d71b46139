//! For tests: the ResNet-8 of the golden vectors, written plainly, as an engine to explain.

#![allow(clippy::unwrap_used)]

use super::{LinearHead, pool};
use crate::engine::{Engine, Outputs, Shapes};
use crate::fixture::Golden;

/// A convolution with its batch norm's running statistics folded in.
struct Convolution {
    /// Output channels, input channels, kernel side.
    shape: [usize; 3],
    stride: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// One picture's map: side and planes.
type Volume = (usize, Vec<f32>);

/// Two convolutions and, where the shape changes, the shortcut's.
type Block = (Convolution, Convolution, Option<Convolution>);

/// The network.
pub struct ResNet8 {
    stem: Convolution,
    blocks: Vec<Block>,
    pub head: LinearHead,
}

impl Convolution {
    fn open(golden: &Golden, conv: &str, norm: &str, stride: usize) -> Self {
        let conv = format!("{conv}.weight");
        let shape = golden.shape(&conv);
        let [gamma, beta, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|part| golden.f64(&format!("{norm}.{part}")));
        let scale: Vec<f64> = gamma.iter().zip(variance).map(|(g, v)| g / (v + 1e-5).sqrt()).collect();
        let taps = shape[1] * shape[2] * shape[3];
        let weight = golden.f64(&conv).iter().enumerate().map(|(i, w)| (w * scale[i / taps]) as f32).collect();
        let bias = (0..shape[0]).map(|o| (beta[o] - mean[o] * scale[o]) as f32).collect();
        Self { shape: [shape[0], shape[1], shape[2]], stride, weight, bias }
    }

    fn apply(&self, (side, values): &Volume) -> Volume {
        let [outputs, inputs, kernel] = self.shape;
        let (pad, out_side) = (kernel / 2, side / self.stride);
        let wide = side + 2 * pad;
        let mut padded = vec![0f32; inputs * wide * wide];
        for (index, row) in values.chunks_exact(*side).enumerate() {
            let (plane, y) = (index / side, index % side);
            padded[(plane * wide + y + pad) * wide + pad..][..*side].copy_from_slice(row);
        }
        let mut out = Vec::with_capacity(outputs * out_side * out_side);
        for output in 0..outputs {
            let mut plane = vec![self.bias[output]; out_side * out_side];
            let weights = &self.weight[output * inputs * kernel * kernel..][..inputs * kernel * kernel];
            for (tap, weight) in weights.iter().enumerate() {
                let (input, ky, kx) = (tap / (kernel * kernel), tap / kernel % kernel, tap % kernel);
                for (y, row) in plane.chunks_exact_mut(out_side).enumerate() {
                    let source = &padded[(input * wide + y * self.stride + ky) * wide + kx..];
                    let source = source.iter().step_by(self.stride);
                    row.iter_mut().zip(source).for_each(|(sum, value)| *sum += weight * value);
                }
            }
            out.extend(plane);
        }
        (out_side, out)
    }
}

impl ResNet8 {
    pub fn open() -> Self {
        let golden = Golden::open("network/weights.safetensors");
        let block = |(stage, stride): (&str, usize)| {
            let part = |conv: &str, norm: &str, stride| {
                Convolution::open(&golden, &format!("{stage}.{conv}"), &format!("{stage}.{norm}"), stride)
            };
            let short = (stride > 1).then(|| part("short_conv", "short_bn", stride));
            (part("conv1", "bn1", stride), part("conv2", "bn2", 1), short)
        };
        Self {
            stem: Convolution::open(&golden, "stem_conv", "stem_bn", 1),
            blocks: [("stage1", 1), ("stage2", 2), ("stage3", 2)].map(block).into(),
            head: LinearHead::new(10, 64, golden.f32("fc.weight"), golden.f32("fc.bias")).unwrap(),
        }
    }

    fn features(&self, image: &[f32]) -> Vec<f32> {
        let relu = |values: &mut [f32]| values.iter_mut().for_each(|v| *v = v.max(0.0));
        let mut x = self.stem.apply(&(32, image.to_vec()));
        relu(&mut x.1);
        for (first, second, short) in &self.blocks {
            let mut y = first.apply(&x);
            relu(&mut y.1);
            let mut y = second.apply(&y);
            let short = short.as_ref().map_or(x.clone(), |s| s.apply(&x));
            y.1.iter_mut().zip(&short.1).for_each(|(a, b)| *a += b);
            relu(&mut y.1);
            x = y;
        }
        x.1
    }
}

impl Engine for ResNet8 {
    fn name(&self) -> &str {
        "plain"
    }

    fn shapes(&self) -> Shapes {
        Shapes { input: [3, 32, 32], classes: 10, features: [64, 8, 8] }
    }

    fn run(&self, images: &[f32]) -> crate::Result<Outputs> {
        let mut outputs = Outputs { logits: Vec::new(), features: Vec::new() };
        for image in images.chunks_exact(3 * 32 * 32) {
            let features = self.features(image);
            outputs.logits.extend(self.head.logits(&pool(&features, 64)));
            outputs.features.extend(features);
        }
        Ok(outputs)
    }
}
