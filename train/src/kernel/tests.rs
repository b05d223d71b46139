//! Every kernel, on every instruction set of this processor, against candle's own operations and their gradients.
#![allow(clippy::unwrap_used)]

use super::*;
use candle_core::{D, Device, Var};
use excon_edge::kernel::{Clip, Isa};
use rand::RngExt;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

fn random(rng: &mut ChaCha8Rng, shape: &[usize]) -> Var {
    let values = (0..shape.iter().product::<usize>()).map(|_| rng.random::<f32>() * 2.0 - 0.8).collect();
    Var::from_vec::<_, f32>(values, shape, &Device::Cpu).unwrap()
}

#[track_caller]
fn close(got: &Tensor, wanted: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(got.dims(), wanted.dims(), "{what}");
    let largest =
        |t: &Tensor| t.flatten_all().unwrap().abs().unwrap().max(D::Minus1).unwrap().to_scalar::<f32>().unwrap();
    let (gap, scale) = (largest(&(got - wanted).unwrap()), largest(wanted).max(1.0));
    assert!(gap <= tolerance * scale, "{what}: off by {gap} where the largest is {scale}");
}

/// The loss Σ y · weights, whose gradient at `y` is an arbitrary `weights`.
fn weighted(y: &Tensor, weights: &Tensor) -> Tensor {
    (y * weights).unwrap().sum_all().unwrap()
}

fn nchw(x: &Tensor) -> Tensor {
    x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap()
}

#[test]
fn convolution_and_both_gradients_equal_candles() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    // images, height, width, inputs, outputs, kernel, stride, padding
    let cases = [
        (2, 9, 7, 3, 16, 3, 1, 1),
        (3, 8, 11, 5, 33, 3, 2, 1),
        (1, 13, 13, 16, 5, 7, 2, 3),
        (5, 6, 6, 33, 16, 1, 1, 0),
        (2, 7, 8, 16, 33, 1, 2, 0),
        (2, 10, 10, 33, 33, 3, 1, 1),
        (2, 10, 9, 3, 3, 7, 1, 3),
        (2, 11, 11, 16, 16, 3, 2, 0),
        (1, 5, 5, 5, 64, 5, 3, 4),
        (9, 4, 4, 48, 40, 3, 1, 1),
        (1, 1, 1, 3, 5, 3, 2, 1),
        (1, 70, 70, 16, 16, 3, 1, 1),
    ];
    for case @ (n, h, w, c, o, k, stride, padding) in cases {
        let x = random(&mut rng, &[n, h, w, c]);
        let weight = random(&mut rng, &[o, c, k, k]);
        // Stride as every s-th result of stride 1: candle's own gradient of a stride fails on unequal odd sides.
        let every = |side: usize| {
            let kept: Vec<u32> = (0..(side + 2 * padding - k + 1) as u32).step_by(stride).collect();
            Tensor::new(kept, &Device::Cpu).unwrap()
        };
        let wanted = nchw(&x).conv2d(&weight, padding, 1, 1, 1).unwrap();
        let wanted = wanted.index_select(&every(h), 2).unwrap().index_select(&every(w), 3).unwrap();
        let wanted = wanted.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let g = random(&mut rng, wanted.dims());
        let wanted_grads = weighted(&wanted, &g).backward().unwrap();
        for isa in Isa::available() {
            let what = format!("{case:?} {}", isa.name());
            let y = x.apply_op2(&weight, Convolution { stride, padding, depthwise: false, isa }).unwrap();
            close(&y, &wanted, 1e-5, &what);
            let grads = weighted(&y, &g).backward().unwrap();
            close(grads.get(&x).unwrap(), wanted_grads.get(&x).unwrap(), 1e-5, &format!("{what}: input"));
            close(grads.get(&weight).unwrap(), wanted_grads.get(&weight).unwrap(), 2e-5, &format!("{what}: weight"));
        }
    }
}

#[test]
fn gradients_nobody_asks_for_are_not_computed() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (x, weight) = (random(&mut rng, &[1, 5, 5, 3]), random(&mut rng, &[4, 3, 3, 3]));
    let grads = conv2d(&x.as_detached_tensor(), &weight, 1, 1, 1).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_none() && grads.get(&weight).is_some());
    let grads = conv2d(&x, &weight.as_detached_tensor(), 1, 1, 1).unwrap().sum_all().unwrap().backward().unwrap();
    assert!(grads.get(&x).is_some() && grads.get(&weight).is_none());
}

#[test]
fn depthwise_convolution_and_both_gradients_equal_candles() {
    let mut rng = ChaCha8Rng::seed_from_u64(15);
    for _ in 0..12 {
        let mut draw = |from: usize, to: usize| rng.random_range(from..=to);
        let (n, h, w, c) = (draw(1, 3), draw(3, 13), draw(3, 19), draw(2, 70));
        let (k, stride) = (draw(1, 5), draw(1, 3));
        let padding = draw(0, k - 1).max(k.saturating_sub(h.min(w)).div_ceil(2));
        let what = format!("{:?}", (n, h, w, c, k, stride, padding));
        let x = random(&mut rng, &[n, h, w, c]);
        let weight = random(&mut rng, &[c, 1, k, k]);
        let every = |side: usize| {
            let kept: Vec<u32> = (0..(side + 2 * padding - k + 1) as u32).step_by(stride).collect();
            Tensor::new(kept, &Device::Cpu).unwrap()
        };
        let wanted = nchw(&x).conv2d(&weight, padding, 1, 1, c).unwrap();
        let wanted = wanted.index_select(&every(h), 2).unwrap().index_select(&every(w), 3).unwrap();
        let wanted = wanted.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        let g = random(&mut rng, wanted.dims());
        let wanted_grads = weighted(&wanted, &g).backward().unwrap();
        for isa in Isa::available() {
            let what = format!("{what} {}", isa.name());
            let y = x.apply_op2(&weight, Convolution { stride, padding, depthwise: true, isa }).unwrap();
            close(&y, &wanted, 1e-5, &what);
            let grads = weighted(&y, &g).backward().unwrap();
            close(grads.get(&x).unwrap(), wanted_grads.get(&x).unwrap(), 1e-5, &format!("{what}: input"));
            close(grads.get(&weight).unwrap(), wanted_grads.get(&weight).unwrap(), 2e-5, &format!("{what}: weight"));
        }
    }
}

#[test]
fn grouped_and_depthwise_convolutions_equal_candles() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for (c, o, groups) in [(6, 4, 2), (5, 5, 5)] {
        let x = random(&mut rng, &[2, 7, 6, c]);
        let weight = random(&mut rng, &[o, c / groups, 3, 3]);
        let y = nchw(&conv2d(&x, &weight, 2, 1, groups).unwrap());
        close(&y, &nchw(&x).conv2d(&weight, 1, 2, 1, groups).unwrap(), 1e-5, "groups");
    }
}

#[test]
fn the_fused_epilogue_adds_bias_and_residual_and_clips() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    for outputs in [5, 16, 33] {
        let x = random(&mut rng, &[3, 7, 5, 9]);
        let weight = random(&mut rng, &[outputs, 9, 3, 3]);
        let residual = random(&mut rng, &[3, 4, 3, outputs]);
        let bias = random(&mut rng, &[outputs]);
        let plain = conv2d(&x, &weight, 2, 1, 1).unwrap().broadcast_add(&bias).unwrap();
        let bias = bias.to_vec1().unwrap();
        let fused = |residual, clip| conv2d_fused(&x, &weight, 2, 1, 1, &bias, residual, clip).unwrap();
        close(&fused(None, Clip::NONE), &plain, 1e-5, "bias");
        close(&fused(None, Clip::RELU), &plain.relu().unwrap(), 1e-5, "bias, ReLU");
        let sum = (&plain + residual.as_tensor()).unwrap();
        close(&fused(Some(residual.as_tensor()), Clip::RELU), &sum.relu().unwrap(), 1e-5, "bias, residual, ReLU");
    }
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let x = Tensor::zeros((1, 4, 4, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let weight =
        |shape: (usize, usize, usize, usize)| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(conv2d(&x, &weight((2, 4, 3, 3)), 1, 1, 1).is_err());
    assert!(conv2d(&x, &weight((2, 3, 7, 7)), 1, 1, 1).is_err());
    assert!(conv2d(&x, &weight((2, 3, 3, 3)), 0, 1, 1).is_err());
    assert!(conv2d(&x, &weight((0, 3, 3, 3)), 1, 1, 1).is_err());
    assert!(conv2d(&x.to_dtype(candle_core::DType::F64).unwrap(), &weight((2, 3, 3, 3)), 1, 1, 1).is_err());
    assert!(max_pool(&x, 2, 2, 2).is_err());
}

/// A ReLU6 that cuts at a value which the tests' numbers reach.
const NARROW: Clip = Clip { low: 0.0, high: 0.7 };

/// Batch norm from candle's elementary operations.
fn plain_norm(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    residual: Option<&Tensor>,
    clip: Clip,
    fixed: Option<&Statistics>,
) -> Tensor {
    let (mean, variance) = match fixed {
        Some(s) => (
            Tensor::new(s.mean.as_slice(), &Device::Cpu).unwrap(),
            Tensor::new(s.variance.as_slice(), &Device::Cpu).unwrap(),
        ),
        None => {
            let mean = x.mean((0, 1, 2)).unwrap();
            let centred = x.broadcast_sub(&mean).unwrap();
            (mean, centred.sqr().unwrap().mean((0, 1, 2)).unwrap())
        }
    };
    let deviation = (variance + EPSILON).unwrap().sqrt().unwrap();
    let y = x.broadcast_sub(&mean).unwrap().broadcast_div(&deviation).unwrap();
    let mut y = y.broadcast_mul(weight).unwrap().broadcast_add(bias).unwrap();
    if let Some(residual) = residual {
        y = (y + residual).unwrap();
    }
    if clip == Clip::NONE { y } else { y.clamp(clip.low, clip.high).unwrap() }
}

#[test]
fn norm_residual_and_relu_and_their_gradients_equal_candles() {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for channels in [3, 5, 16, 33, 64] {
        for (with_residual, clip, eval) in [
            (false, Clip::NONE, false),
            (false, Clip::RELU, false),
            (true, Clip::RELU, false),
            (true, Clip::NONE, true),
            (false, Clip::RELU, true),
            (false, NARROW, false),
            (true, NARROW, false),
        ] {
            let what = format!("{channels} channels, residual {with_residual}, {clip:?}, eval {eval}");
            let shape = [3, 11, 9, channels];
            let (x, r) = (random(&mut rng, &shape), random(&mut rng, &shape));
            let (weight, bias) = (random(&mut rng, &[channels]), random(&mut rng, &[channels]));
            let fixed = eval.then(|| Statistics {
                mean: random(&mut rng, &[channels]).to_vec1().unwrap(),
                variance: (0..channels).map(|_| rng.random::<f32>() + 0.5).collect(),
                count: 0,
            });
            let residual = with_residual.then_some(r.as_tensor());
            let output = batch_norm(&x, &weight, &bias, residual, clip, fixed.as_ref()).unwrap();
            let wanted = plain_norm(&x, [&weight, &bias], residual, clip, fixed.as_ref());
            close(&output.y, &wanted, 1e-5, &what);
            assert_eq!(output.batch.is_none(), eval);
            let g = random(&mut rng, &shape);
            let grads = weighted(&output.y, &g).backward().unwrap();
            let wanted = weighted(&wanted, &g).backward().unwrap();
            for (name, var) in [("x", &x), ("weight", &weight), ("bias", &bias), ("residual", &r)] {
                match (grads.get(var), wanted.get(var)) {
                    (Some(got), Some(wanted)) => close(got, wanted, 2e-5, &format!("{what}: {name}")),
                    (got, wanted) => assert_eq!(got.is_some(), wanted.is_some(), "{what}: {name}"),
                }
            }
        }
    }
}

#[test]
fn statistics_survive_a_large_mean() {
    // 1000 ± 0.5: the difference of squares would lose the variance in single precision.
    let values: Vec<f32> = (0..4 * 32 * 32 * 16).map(|i| 1000.0 + if i / 16 % 2 == 0 { 0.5 } else { -0.5 }).collect();
    let x = Tensor::from_vec(values, (4, 32, 32, 16), &Device::Cpu).unwrap();
    let ones = Tensor::ones(16, candle_core::DType::F32, &Device::Cpu).unwrap();
    let batch = batch_norm(&x, &ones, &ones, None, Clip::NONE, None).unwrap().batch.unwrap();
    assert_eq!(batch.count, 4 * 32 * 32);
    for c in 0..16 {
        assert!((batch.mean[c] - 1000.0).abs() < 1e-3, "{}", batch.mean[c]);
        assert!((batch.variance[c] - 0.25).abs() < 1e-4, "{}", batch.variance[c]);
    }
}

#[test]
fn pools_and_their_gradients() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let x = random(&mut rng, &[2, 8, 6, 5]);
    let g = random(&mut rng, &[2, 4, 3, 5]);
    let y = max_pool(&x, 2, 2, 0).unwrap();
    let wanted = x.reshape((2, 4, 2, 3, 2, 5)).unwrap().max(4).unwrap().max(2).unwrap();
    close(&y, &wanted, 0.0, "max pool");
    let grads = weighted(&y, &g).backward().unwrap();
    let wanted = weighted(&wanted, &g).backward().unwrap();
    close(grads.get(&x).unwrap(), wanted.get(&x).unwrap(), 1e-6, "max pool gradient");

    // Overlapping windows with a border: a single peak is the maximum of four windows and gets all their gradients.
    let peak = (0..25).map(|i| if i == 6 { 2.0f32 } else { -1.0 - i as f32 }).collect();
    let x = Var::from_vec::<_, f32>(peak, (1, 5, 5, 1), &Device::Cpu).unwrap();
    let y = max_pool(&x, 3, 2, 1).unwrap();
    assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap()[..5], [2.0, 2.0, -4.0, 2.0, 2.0]);
    let grads = y.sum_all().unwrap().backward().unwrap();
    let at = grads.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!((at[6], at.iter().sum::<f32>()), (4.0, 9.0));

    let x = random(&mut rng, &[3, 4, 5, 7]);
    let y = global_pool(&x).unwrap();
    let wanted = x.mean((1, 2)).unwrap();
    close(&y, &wanted, 1e-6, "global pool");
    let g = random(&mut rng, &[3, 7]);
    let grads = weighted(&y, &g).backward().unwrap();
    close(
        grads.get(&x).unwrap(),
        weighted(&wanted, &g).backward().unwrap().get(&x).unwrap(),
        1e-6,
        "global pool gradient",
    );
}

#[test]
fn results_do_not_depend_on_scheduling() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let x = random(&mut rng, &[13, 12, 12, 16]);
    let weight = random(&mut rng, &[16, 16, 3, 3]);
    let step = || {
        let y = conv2d(&x, &weight, 1, 1, 1).unwrap();
        let grads = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        [&x, &weight].map(|v| grads.get(v).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let first = step();
    (0..5).for_each(|_| assert_eq!(step(), first));
}
