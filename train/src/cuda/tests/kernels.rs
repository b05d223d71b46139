//! Each kernel against its CPU twin, on shapes that fill no block evenly.

use super::*;
use crate::augment::{RandomView, View, ViewSeed, render};
use crate::cuda::device::{Convolution, Direction};
use crate::cuda::engine::ViewWords;
use crate::cuda::kernels::{After, NormAt, Sgd as Step, Weights, Windows};
use crate::dataset::Split;
use crate::kernel;
use crate::loss::{Background, SupCon, cross_entropy};
use crate::network::MOMENTUM;
use crate::optimizer::{Sgd, SgdConfig};
use crate::recipe::Draw;
use candle_core::{Device as Cpu, Var};
use excon_edge::kernel::Clip;
use excon_edge::saliency::{Map as Saliency, keep_above, keep_top};

const BOTH: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Cpu::Cpu).unwrap()
}

fn var(values: &[f32], shape: &[usize]) -> Var {
    Var::from_tensor(&tensor(values, shape)).unwrap()
}

/// The gradients of `Σ y · g` by these variables.
fn gradients(y: &Tensor, g: &Tensor, variables: &[&Var]) -> Vec<Vec<f32>> {
    let store = (y * g).unwrap().sum_all().unwrap().backward().unwrap();
    variables.iter().map(|v| of(store.get(v).unwrap())).collect()
}

struct Norm {
    values: Vec<Block>,
}

impl Norm {
    fn new(machine: &Machine, values: [&[f32]; 4]) -> Self {
        Self { values: values.map(|v| machine.pool.put(v).unwrap()).into() }
    }

    fn at(&self) -> NormAt {
        let at = |i: usize| self.values[i].address();
        NormAt { gamma: at(0), beta: at(1), mean: at(2), variance: at(3) }
    }
}

#[test]
fn norms_match_forward_and_backward() {
    let mut rng = rng(1);
    for precision in BOTH {
        for (shape, residual, clip, two) in [
            ([3, 5, 7, 8], false, Clip::RELU, false),
            ([2, 9, 3, 24], true, Clip { low: 0.0, high: 0.75 }, true),
            ([5, 2, 2, 304], true, Clip::NONE, false),
            ([40, 4, 4, 16], false, Clip::NONE, true),
        ] {
            let (len, channels) = (shape.iter().product::<usize>(), shape[3]);
            let draw = |n, rng: &mut ChaCha8Rng| numbers(rng, n);
            let (x, r, g1, g2) = (draw(len, &mut rng), draw(len, &mut rng), draw(len, &mut rng), draw(len, &mut rng));
            let (gamma, beta) = (draw(channels, &mut rng), draw(channels, &mut rng));
            let [x_var, r_var, gamma_var, beta_var] =
                [var(&x, &shape), var(&r, &shape), var(&gamma, &[channels]), var(&beta, &[channels])];
            let with = residual.then_some(r_var.as_tensor());
            let out = kernel::batch_norm(&x_var, &gamma_var, &beta_var, with, clip, None).unwrap();
            let g: Vec<f32> = g1.iter().zip(&g2).map(|(a, b)| if two { a + b } else { *a }).collect();
            let mut want = gradients(&out.y, &tensor(&g, &shape), &[&x_var, &gamma_var, &beta_var]);
            want.extend(residual.then(|| gradients(&out.y, &tensor(&g, &shape), &[&r_var]).remove(0)));
            let batch = out.batch.unwrap();
            on_devices(precision, |machine| {
                let norm = Norm::new(machine, [&gamma, &beta, &vec![0.5; channels], &vec![2.0; channels]]);
                let put = |v: &[f32]| upload(machine, &tensor(v, &shape));
                let (x, r, g1, g2) = (put(&x), put(&r), put(&g1), put(&g2));
                let statistics = machine.norm_statistics(&x, None, norm.at(), Some(MOMENTUM)).unwrap();
                let table: Vec<f32> = statistics.get(4 * channels).unwrap();
                close(&table[..channels], &batch.mean, 1e-5, "mean");
                let count = batch.count as f32;
                let running = |v: f32| 2.0 + MOMENTUM * (v * count / (count - 1.0) - 2.0);
                let variance: Vec<f32> = batch.variance.iter().map(|v| running(*v)).collect();
                close(&norm.values[3].get(channels).unwrap(), &variance, 1e-5, "running variance");
                let mean: Vec<f32> = batch.mean.iter().map(|m| 0.5 + MOMENTUM * (m - 0.5)).collect();
                close(&norm.values[2].get(channels).unwrap(), &mean, 1e-5, "running mean");

                let y = machine.like(&x).unwrap();
                let part = |n: usize| statistics.address() + (4 * n * channels) as u64;
                let with = residual.then_some(&r);
                machine.norm_apply(&x, with, (part(2), part(3)), clip, &y).unwrap();
                let rounding = rounding(machine);
                close(&values(machine, &y), &of(&out.y), 4.0 * rounding, "y");

                // The CPU's own result decides about the activation, as rounding may have moved a number to an end.
                let inside = |v: &f32| if *v > 0.0 && *v < clip.high { 0.5 } else { 0.0 };
                write(machine, &y.block, &of(&out.y).iter().map(inside).collect::<Vec<_>>());
                let gradient = machine.pool.floats(2 * channels).unwrap();
                let to = (gradient.address(), gradient.address() + 4 * channels as u64);
                let gate = (clip != Clip::NONE).then_some((&y, clip.high));
                let after = After { gradient: [Some(&g1), two.then_some(&g2)], gate, residual };
                let (dx, dr) = machine.norm_gradient(&after, &x, &statistics, None, norm.at().gamma, to).unwrap();
                let parameters: Vec<f32> = gradient.get(2 * channels).unwrap();
                close(&values(machine, &dx), &want[0], 4.0 * rounding + 1e-5, "dx");
                close(&parameters[..channels], &want[1], 1e-4, "gamma");
                close(&parameters[channels..], &want[2], 1e-4, "beta");
                if let Some(dr) = dr {
                    close(&values(machine, &dr), &want[3], rounding, "residual");
                }
            });
        }
    }
}

/// Rows of weight 2 are as two equal rows, rows of weight 0 as none.
#[test]
fn weighted_rows_stand_for_copies() {
    let (shape, weights) = ([5usize, 3, 3, 16], [1.0f32, 2.0, 0.0, 2.0, 1.0]);
    let each = 9 * 16;
    let mut rng = rng(2);
    let (x, g) = (numbers(&mut rng, 5 * each), numbers(&mut rng, 5 * each));
    let copies: Vec<usize> = (0..5).flat_map(|row| std::iter::repeat_n(row, weights[row] as usize)).collect();
    let rows = |v: &[f32], share: bool| -> Vec<f32> {
        let part = |&row: &usize| {
            let scale = if share { 1.0 / weights[row] } else { 1.0 };
            v[row * each..(row + 1) * each].iter().map(move |v| v * scale)
        };
        copies.iter().flat_map(part).collect()
    };
    let gamma = numbers(&mut rng, 16);
    let (x_var, gamma_var, beta_var) =
        (var(&rows(&x, false), &[6, 3, 3, 16]), var(&gamma, &[16]), var(&[0.0; 16], &[16]));
    let out = kernel::batch_norm(&x_var, &gamma_var, &beta_var, None, Clip::NONE, None).unwrap();
    let want = gradients(&out.y, &tensor(&rows(&g, true), &[6, 3, 3, 16]), &[&x_var, &gamma_var]);
    let mut dx_want = vec![0f32; 5 * each];
    for (at, &row) in copies.iter().enumerate() {
        for i in 0..each {
            dx_want[row * each + i] += want[0][at * each + i];
        }
    }
    on_devices(Precision::F32, |machine| {
        let norm = Norm::new(machine, [&gamma, &[0.0; 16], &[0.0; 16], &[1.0; 16]]);
        let put = |v: &[f32]| Rc::new(machine.pool.put(v).unwrap());
        let weights = Weights { each: put(&weights), total: put(&[6.0]) };
        let x = upload(machine, &tensor(&x, &shape));
        // The gradient of a row that is not there is 0.
        let g: Vec<f32> = g.iter().enumerate().map(|(i, g)| if i / each == 2 { 0.0 } else { *g }).collect();
        let g = upload(machine, &tensor(&g, &shape));
        let statistics = machine.norm_statistics(&x, Some(&weights), norm.at(), None).unwrap();
        let batch = out.batch.as_ref().unwrap();
        close(&statistics.get::<f32>(16).unwrap(), &batch.mean, 1e-5, "mean");
        let to = machine.pool.floats(32).unwrap();
        let places = (to.address(), to.address() + 64);
        let after = After { gradient: [Some(&g), None], gate: None, residual: false };
        let (dx, _) = machine.norm_gradient(&after, &x, &statistics, Some(&weights), norm.at().gamma, places).unwrap();
        close(&values(machine, &dx), &dx_want, 1e-5, "dx");
        close(&to.get::<f32>(16).unwrap(), &want[1], 1e-5, "gamma");
    });
}

#[test]
fn pools_match() {
    let mut rng = rng(3);
    for precision in BOTH {
        for (shape, kernel, stride, padding) in
            [([2, 7, 5, 8], 3, 2, 1), ([3, 6, 6, 16], 2, 2, 0), ([1, 4, 9, 8], 3, 1, 1)]
        {
            let len = shape.iter().product();
            // Few different numbers, so that there are equal maxima.
            let x: Vec<f32> = (0..len).map(|_| rng.random_range(-3i32..3) as f32).collect();
            let x_var = var(&x, &shape);
            let y = kernel::max_pool(&x_var, kernel, stride, padding).unwrap();
            let g = numbers(&mut rng, y.elem_count());
            let want = gradients(&y, &tensor(&g, y.dims()), &[&x_var]).remove(0);
            let mean = kernel::global_pool(&x_var).unwrap();
            let mean_g = numbers(&mut rng, mean.elem_count());
            let mean_want = gradients(&mean, &tensor(&mean_g, mean.dims()), &[&x_var]).remove(0);
            on_devices(precision, |machine| {
                let x = upload(machine, x_var.as_tensor());
                let windows = Windows { kernel, stride, padding };
                let pooled = machine.max_pool(&x, windows).unwrap();
                assert_eq!(values(machine, &pooled), of(&y));
                let g = upload(machine, &tensor(&g, y.dims()));
                let dx = machine.max_pool_gradient(&x, &pooled, &g, windows).unwrap();
                close(&values(machine, &dx), &want, 2.0 * rounding(machine), "max pool");
                let pooled = machine.global_pool(&x).unwrap();
                close(&of_matrix(&pooled), &of(&mean), 1e-6, "mean");
                let dx = machine.global_pool_gradient(&matrix(machine, &mean_g, shape[3]), &x).unwrap();
                close(&values(machine, &dx), &mean_want, rounding(machine), "mean's gradient");
            });
        }
    }
}

#[test]
fn sums_biases_and_gates_match() {
    let mut rng = rng(4);
    let shape = [3, 5, 5, 24];
    let len = shape.iter().product();
    let (a, b) = (numbers(&mut rng, len), numbers(&mut rng, len));
    let sums: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
    for precision in BOTH {
        on_devices(precision, |machine| {
            let put = |v: &[f32]| upload(machine, &tensor(v, &shape));
            let (a_map, b_map) = (put(&a), put(&b));
            let y = machine.like(&a_map).unwrap();
            machine.add(&a_map, Some(&b_map), Clip::NONE, &y).unwrap();
            close(&values(machine, &y), &sums, rounding(machine), "sum");
            machine.add(&a_map, None, Clip { low: 0.0, high: 0.5 }, &y).unwrap();
            assert_eq!(values(machine, &y), a.iter().map(|v| v.clamp(0.0, 0.5)).collect::<Vec<_>>());
            let gated: Vec<f32> = b.iter().zip(&a).map(|(g, y)| if *y > 0.0 { *g } else { 0.0 }).collect();
            assert_eq!(values(machine, &machine.gate(&b_map, &a_map, f32::INFINITY).unwrap()), gated);
            let inside: Vec<f32> = gated.iter().zip(&a).map(|(g, y)| if *y < 0.5 { *g } else { 0.0 }).collect();
            assert_eq!(values(machine, &machine.gate(&b_map, &a_map, 0.5).unwrap()), inside);

            let (rows, columns) = (25, 3 * 24);
            let (x, bias) = (matrix(machine, &a, columns), machine.pool.put(&b[..columns]).unwrap());
            machine.bias(&x, bias.address()).unwrap();
            let biased: Vec<f32> = a.iter().enumerate().map(|(i, v)| v + b[i % columns]).collect();
            assert_eq!(of_matrix(&x), biased);
            let relu = machine.relu_matrix(&x).unwrap();
            assert_eq!(of_matrix(&relu), biased.iter().map(|v| v.max(0.0)).collect::<Vec<_>>());
            let g = matrix(machine, &b, columns);
            machine.gate_matrix(&g, &matrix(machine, &a, columns)).unwrap();
            assert_eq!(of_matrix(&g), gated);
            let sums = machine.pool.floats(columns).unwrap();
            machine.column_sums(&matrix(machine, &a, columns), sums.address()).unwrap();
            let want: Vec<f32> = (0..columns).map(|c| (0..rows).map(|r| a[r * columns + c]).sum()).collect();
            close(&sums.get(columns).unwrap(), &want, 1e-6, "column sums");
        });
    }
}

#[test]
fn the_optimizer_matches_over_two_steps() {
    let mut rng = rng(5);
    let len = 1000;
    let (p, g1, g2) = (numbers(&mut rng, len), numbers(&mut rng, len), numbers(&mut rng, len));
    for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
        let config = SgdConfig { momentum, weight_decay: 0.1, nesterov };
        let variable = var(&p, &[len]);
        let mut twin = Sgd::new(vec![("p".into(), variable.clone())], config).unwrap();
        for g in [&g1, &g2] {
            let loss = (variable.as_tensor() * tensor(g, &[len])).unwrap().sum_all().unwrap();
            twin.step(&loss.backward().unwrap(), 0.3).unwrap();
        }
        let step = Step { rate: 0.3, momentum: momentum as f32, decay: 0.1, nesterov };
        for precision in BOTH {
            on_devices(precision, |machine| {
                let pool = &machine.pool;
                let (plain, weights) = (pool.put(&p).unwrap(), pool.put(&p).unwrap());
                let [b1, b2] = [(); 2].map(|()| pool.put(&vec![0f32; len]).unwrap());
                let copy = pool.take(4 * len).unwrap();
                let in_maps = pool.take(4 * len).unwrap();
                for g in [&g1, &g2] {
                    let gradient = pool.put(g).unwrap();
                    machine.sgd(plain.address(), b1.address(), gradient.address(), len, step).unwrap();
                    write(machine, &in_maps, g);
                    let (gradient, copy) = (in_maps.address(), copy.address());
                    machine.sgd_weights(weights.address(), b2.address(), gradient, copy, len, step).unwrap();
                }
                close(&plain.get(len).unwrap(), &of(&variable), 1e-6, "p");
                close(&weights.get(len).unwrap(), &of(&variable), 1e-6, "weights");
                close(&floats(machine, &copy, len).unwrap(), &of(&variable), rounding(machine), "copy");
                let b = of(&twin.state().unwrap()["momentum.p"]);
                close(&b1.get(len).unwrap(), &b, 1e-6, "momentum");
                machine.to_maps(plain.address(), len, copy.address()).unwrap();
                close(&floats(machine, &copy, len).unwrap(), &of(&variable), rounding(machine), "to maps");
            });
        }
    }
}

#[test]
fn cross_entropy_matches_and_leaves_other_rows_alone() {
    let mut rng = rng(6);
    for (batch, classes) in [(5, 3), (4, 300), (1, 257)] {
        let real = 2 * batch;
        let all: Vec<f32> = numbers(&mut rng, (real + 2) * classes).iter().map(|v| 9.0 * v).collect();
        let labels: Vec<usize> = (0..batch).map(|_| rng.random_range(0..classes)).collect();
        let logits = var(&all[..real * classes], &[real, classes]);
        let loss = cross_entropy(&logits, &[labels.clone(), labels.clone()].concat()).unwrap();
        let want = of(&(loss.backward().unwrap().get(&logits).unwrap() * 0.5).unwrap());
        let hits = crate::explain::argmax(&logits).unwrap();
        let hits: Vec<f32> =
            hits.iter().enumerate().map(|(i, c)| f32::from(u8::from(*c == labels[i % batch]))).collect();
        on_devices(Precision::F32, |machine| {
            let on_device = machine.pool.put(&labels.iter().map(|l| *l as i32).collect::<Vec<_>>()).unwrap();
            let logits = matrix(machine, &all, classes);
            let (gradient, losses, right) = machine.cross_entropy(&logits, &on_device, batch, real, 0.5).unwrap();
            let got = of_matrix(&gradient);
            close(&got[..real * classes], &want, 1e-5, "gradient");
            assert!(got[real * classes..].iter().all(|v| *v == 0.0));
            let losses: Vec<f32> = losses.get(real + 2).unwrap();
            close(&[losses[..real].iter().sum::<f32>() / real as f32], &[of(&loss)[0]], 1e-5, "loss");
            assert_eq!(losses[real..], [0.0; 2]);
            assert_eq!(right.get::<f32>(real).unwrap(), hits);
            let predicted = machine.predict(&logits).unwrap().get::<i32>(real).unwrap();
            let right: Vec<f32> = predicted
                .iter()
                .enumerate()
                .map(|(i, c)| f32::from(u8::from(*c as usize == labels[i % batch])))
                .collect();
            assert_eq!(right, hits);
        });
    }
}

/// The contrastive loss with background in all treatments: a weighted row stands for its two copies.
#[test]
fn supcon_matches_with_background() {
    let mut rng = rng(7);
    let (batch, columns) = (9, 20);
    let labels: Vec<usize> = (0..batch).map(|_| rng.random_range(0..4)).collect();
    let rows = numbers(&mut rng, 3 * batch * columns);
    let fails: Vec<bool> = (0..batch).map(|i| i % 3 == 1).collect();
    let failing: Vec<usize> = (0..batch).filter(|i| fails[*i]).map(|i| 2 * batch + i).collect();
    for (treatment, temperature) in
        [(Background::Off, 0.1), (Background::Negatives, 0.1), (Background::Class, 0.1), (Background::Class, 0.7)]
    {
        let background: &[usize] = if treatment == Background::Off { &[] } else { &failing };
        let order: Vec<usize> = (0..2 * batch).chain(background.iter().chain(background).copied()).collect();
        let of_rows: Vec<f32> = order.iter().flat_map(|&r| rows[r * columns..(r + 1) * columns].to_vec()).collect();
        let projections = var(&of_rows, &[order.len(), columns]);
        let supcon = SupCon { temperature, base: 0.07 };
        let loss = supcon.loss(&projections, &labels.repeat(2), treatment).unwrap().loss;
        let gradient = of(loss.backward().unwrap().get(&projections).unwrap());
        let mut want = vec![0f32; 3 * batch * columns];
        for (at, &row) in order.iter().enumerate() {
            (0..columns).for_each(|c| want[row * columns + c] += gradient[at * columns + c]);
        }
        on_devices(Precision::F32, |machine| {
            let count = if treatment == Background::Off { 2 * batch } else { 3 * batch };
            let put = |v: Vec<i32>| machine.pool.put(&v).unwrap();
            let on_device = put(labels.iter().map(|l| *l as i32).collect());
            let predicted = put(labels.iter().zip(&fails).map(|(l, f)| (l + usize::from(*f)) as i32).collect());
            let weights = (treatment != Background::Off)
                .then(|| machine.row_weights(&predicted, &on_device, 2 * batch, count).unwrap());
            if let Some(weights) = &weights {
                let total: Vec<f32> = weights.total.get(1).unwrap();
                assert_eq!(total[0] as usize, order.len());
            }
            let p = matrix(machine, &rows[..count * columns], columns);
            let (z, norms) = machine.normalise_rows(&p).unwrap();
            let s = machine.matrix(count, count).unwrap();
            let tau = temperature as f32;
            let operands = (z.at(), z.at(), s.at());
            machine.product([count, count, columns], [false, true], operands, (1.0 / tau, false, true)).unwrap();
            let own = treatment == Background::Class;
            let constants = (tau, 0.07);
            let terms = machine.supcon(&s, &on_device, (batch, 2 * batch), weights.as_ref(), own, constants).unwrap();
            let terms: Vec<f32> = terms.get(count).unwrap();
            close(&[terms.iter().sum::<f32>()], &[of(&loss)[0]], 1e-5, "loss");
            let dz = machine.matrix(count, columns).unwrap();
            let (shape, operands) = ([count, columns, count], (s.at(), z.at(), dz.at()));
            machine.product(shape, [false, false], operands, (1.0, false, true)).unwrap();
            machine.product(shape, [true, false], operands, (1.0, true, true)).unwrap();
            machine.normalise_rows_gradient(&dz, &z, &norms).unwrap();
            close(&of_matrix(&dz), &want[..count * columns], 2e-5, "gradient");
        });
    }
}

#[test]
fn views_are_those_of_the_cpu() {
    let mut rng = rng(8);
    for size in [8usize, 33, 64] {
        let rgb: Vec<u8> = (0..5 * size * size * 3).map(|_| rng.random()).collect();
        let split = Split { size, rgb, labels: vec![0; 5], names: vec![String::new(); 5], ..Split::default() };
        let (mean, std) = ([0.5, 0.4, 0.3], [0.2, 0.3, 0.25]);
        let strong = RandomView { scale: (0.01, 1.0), grayscale: 0.3, ..RandomView::contrastive() };
        let indices: Vec<usize> = (0..40).map(|i| i % 5).collect();
        let seed = |view| ViewSeed { seed: 3, epoch: 2, view };
        // Forty different views of five pictures.
        let want: Vec<f32> = (0..8)
            .flat_map(|v| render(&split, &indices[..5], &View::Random(strong.clone()), mean, std, seed(v)))
            .collect();
        let standard = render(&split, &indices[..5], &View::Standard, mean, std, seed(0));
        for precision in BOTH {
            on_devices(precision, |machine| {
                let pictures = machine.pool.put(&split.rgb).unwrap();
                let words: Vec<ViewWords> = (0..8)
                    .flat_map(|v| (0..5).map(move |i| (v, i)))
                    .map(|(v, i)| ViewWords::random(size, &strong, seed(v), Draw { index: i, key: i }))
                    .collect();
                let to = machine.map([42, size, size, PACK]).unwrap();
                let words = machine.pool.put(&words).unwrap();
                machine.views(&pictures, &words, 40, (mean, std), &to, 2).unwrap();
                let got: Vec<f32> = values(machine, &to)[2 * size * size * PACK..].to_vec();
                assert!(got.chunks_exact(PACK).all(|p| p[3..].iter().all(|v| *v == 0.0)));
                let got: Vec<f32> = got.chunks_exact(PACK).flat_map(|p| p[..3].to_vec()).collect();
                close(&got, &want, 2e-5 + rounding(machine), "random views");

                let words: Vec<ViewWords> =
                    [false, true].into_iter().flat_map(|m| (0..5).map(move |i| ViewWords::standard(i, m))).collect();
                let words = machine.pool.put(&words).unwrap();
                let to = machine.map([10, size, size, PACK]).unwrap();
                machine.views(&pictures, &words, 10, (mean, std), &to, 0).unwrap();
                let got: Vec<f32> = values(machine, &to).chunks_exact(PACK).flat_map(|p| p[..3].to_vec()).collect();
                let (plain, mirrored) = got.split_at(standard.len());
                close(plain, &standard, rounding(machine), "clean pictures");
                let back: Vec<f32> = mirrored
                    .chunks_exact(3 * size)
                    .flat_map(|row| row.chunks_exact(3).rev().flatten().copied().collect::<Vec<_>>())
                    .collect();
                assert_eq!(back, plain);
            });
        }
    }
}

#[test]
fn maps_and_masks_are_those_of_the_board() {
    let mut rng = rng(9);
    for (h, w, channels, size) in [(4, 4, 64, 32), (3, 5, 8, 17), (8, 8, 304, 64), (20, 16, 16, 16)] {
        let (rows, classes) = (3, 7);
        let features = numbers(&mut rng, rows * h * w * channels);
        let weight = numbers(&mut rng, classes * channels);
        let head =
            excon_edge::saliency::LinearHead { classes, channels, weight: weight.clone(), bias: vec![0.0; classes] };
        let target: Vec<usize> = (0..rows).map(|_| rng.random_range(0..classes)).collect();
        let maps =
            crate::explain::class_activation_maps(&tensor(&features, &[rows, h, w, channels]), &head, &target).unwrap();
        let pictures = numbers(&mut rng, rows * size * size * 3);
        let normalised: Vec<Saliency> = maps.iter().map(|m| m.upsample(size, size).normalised()).collect();
        let fill = [0.25, -0.5, 0.75];
        on_devices(Precision::F32, |machine| {
            let features = upload(machine, &tensor(&features, &[rows, h, w, channels]));
            let (weight, target) = (
                machine.pool.put(&weight).unwrap(),
                machine.pool.put(&target.iter().map(|t| *t as i32).collect::<Vec<_>>()).unwrap(),
            );
            let flat = |maps: &[Saliency]| maps.iter().flat_map(|m| m.values.clone()).collect::<Vec<f32>>();
            for relu in [false, true] {
                let got = machine.activation_map(&features, weight.address(), &target, relu).unwrap();
                let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
                let want: Vec<f32> = flat(&maps).iter().map(|v| v.max(floor)).collect();
                close(&got.get(rows * h * w).unwrap(), &want, 1e-5, "map");
            }
            // From the CPU's own maps, so that a mask cannot differ by rounding.
            let on_device = machine.pool.put(&flat(&maps)).unwrap();
            let got = machine.normalise_maps(&on_device, rows, (h, w), size).unwrap();
            close(&got.get(rows * size * size).unwrap(), &flat(&normalised), 1e-6, "normalised");
            let values_on_device = machine.pool.put(&flat(&normalised)).unwrap();
            let picture = upload(machine, &tensor(&pictures, &[rows, size, size, 3]));
            let masked = machine.like(&picture).unwrap();
            let want = |keep: &dyn Fn(&Saliency) -> Vec<bool>| -> Vec<f32> {
                let keep: Vec<bool> = normalised.iter().flat_map(keep).collect();
                pictures
                    .chunks_exact(3)
                    .zip(keep)
                    .flat_map(|(p, k)| if k { [p[0], p[1], p[2]] } else { fill })
                    .collect()
            };
            let three =
                || -> Vec<f32> { values(machine, &masked).chunks_exact(PACK).flat_map(|p| p[..3].to_vec()).collect() };
            machine.mask_above(&values_on_device, &picture, 0.5, fill, masked.at()).unwrap();
            assert_eq!(three(), want(&|m| keep_above(m, 0.5)));
            let count = (0.15 * (size * size) as f64) as usize;
            machine.mask_top(&values_on_device, &picture, count, fill, masked.at()).unwrap();
            assert_eq!(three(), want(&|m| keep_top(m, 0.15)));

            // Picture 1 fails; picture 2 is mirrored.
            let predicted = machine.pool.put(&[0i32, 1, 2]).unwrap();
            let labels = machine.pool.put(&[0i32, 2, 2]).unwrap();
            let mirror = machine.pool.put(&[0u8, 1, 1]).unwrap();
            let view = upload(machine, &tensor(&vec![7.0; rows * size * size * 3], &[rows, size, size, 3]));
            machine.choose_view(&masked, &predicted, &labels, Some(&mirror), &view).unwrap();
            let each = size * size * PACK;
            let (got, masked) = (values(machine, &view), values(machine, &masked));
            assert_eq!(got[..each], masked[..each]);
            assert!(got[each..2 * each].chunks_exact(PACK).all(|p| p[0] == 7.0 && p[3] == 0.0));
            let at = |v: &[f32], y: usize, x: usize| v[2 * each + (y * size + x) * PACK];
            assert!(
                (0..size * size).all(|p| at(&got, p / size, p % size) == at(&masked, p / size, size - 1 - p % size))
            );
        });
    }
}

#[test]
fn totals_add_what_there_is() {
    let mut rng = rng(10);
    let (terms, losses) = (numbers(&mut rng, 700), numbers(&mut rng, 300));
    on_devices(Precision::F32, |machine| {
        let put = |v: &[f32]| machine.pool.put(v).unwrap();
        let (terms_on, losses_on, hits) = (put(&terms), put(&losses), put(&vec![1.0; 300]));
        let (predicted, labels) = (machine.pool.put(&[1i32, 2, 3]).unwrap(), machine.pool.put(&[1i32, 5, 3]).unwrap());
        let all = machine.totals(Some((&terms_on, 700)), Some((&losses_on, &hits, 299)), Some(&predicted), &labels, 3);
        let want = [terms.iter().sum(), losses[..299].iter().sum::<f32>(), 299.0, 2.0];
        close(&all.unwrap().get(4).unwrap(), &want, 1e-6, "totals");
        let none = machine.totals(None, None, None, &labels, 3).unwrap();
        assert_eq!(none.get::<f32>(4).unwrap(), [0.0; 4]);
    });
}

#[test]
fn convolutions_match_in_all_directions() {
    let mut rng = rng(11);
    for (rows, side, input, output, kernel, stride, padding) in
        [(2, 9, 8, 16, 3, 1, 1), (3, 8, 16, 8, 3, 2, 1), (1, 7, 8, 24, 1, 2, 0), (2, 12, 8, 8, 7, 2, 3)]
    {
        let x = numbers(&mut rng, rows * side * side * input);
        let w = numbers(&mut rng, output * kernel * kernel * input);
        let x_var = var(&x, &[rows, side, side, input]);
        let w_var = Var::from_tensor(
            &tensor(&w, &[output, kernel, kernel, input]).permute((0, 3, 1, 2)).unwrap().contiguous().unwrap(),
        )
        .unwrap();
        let y = kernel::conv2d(&x_var, &w_var, stride, padding, 1).unwrap();
        let g = numbers(&mut rng, y.elem_count());
        let want = gradients(&y, &tensor(&g, y.dims()), &[&x_var, &w_var]);
        let dw = of(&tensor(&want[1], &[output, input, kernel, kernel])
            .permute((0, 2, 3, 1))
            .unwrap()
            .contiguous()
            .unwrap());
        for precision in BOTH {
            on_devices(precision, |machine| {
                let device = machine.device();
                let shape =
                    Convolution { rows, height: side, width: side, input, output, kernel, stride, padding, groups: 1 };
                let x = upload(machine, x_var.as_tensor());
                let g = upload(machine, &tensor(&g, y.dims()));
                let (weight, gradient) =
                    (machine.pool.take(4 * w.len()).unwrap(), machine.pool.take(4 * w.len()).unwrap());
                write(machine, &weight, &w);
                let (to, dx) = (machine.like(&g).unwrap(), machine.like(&x).unwrap());
                device.convolve(Direction::Forward, &shape, [x.at(), weight.address()], to.at()).unwrap();
                device.convolve(Direction::Input, &shape, [g.at(), weight.address()], dx.at()).unwrap();
                device.convolve(Direction::Weights, &shape, [x.at(), g.at()], gradient.address()).unwrap();
                let tolerance = 1e-5 + 2.0 * rounding(machine);
                close(&values(machine, &to), &of(&y), tolerance, "forward");
                close(&values(machine, &dx), &want[0], tolerance, "input");
                close(&floats(machine, &gradient, w.len()).unwrap(), &dw, tolerance, "weights");
            });
        }
    }
}
