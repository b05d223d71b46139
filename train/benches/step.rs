//! Milliseconds per image of inference and of a whole training step, on one and two threads.
//!
//! `cargo bench -p excon-train --bench step -- [NETWORK …]`, all without a name. Wall time is the least of a few
//! repetitions, as other work on the machine can only add to it; CPU time (Linux) is that of all threads, averaged, and
//! tells more on a busy machine. GFLOP/s counts the convolutions' multiply-adds as two, three times for a step, by CPU
//! time where there is one.

use candle_core::{Device, Result, Tensor};
use excon_train::network::{Graph, Network, NormMode, Op, Stem, build};
use excon_train::optimizer::{Sgd, SgdConfig};
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    println!("{} instructions", excon_edge::kernel::active().name());
    println!("network            threads  infer ms  CPU ms  GFLOP/s  step ms  CPU ms  GFLOP/s");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (name, stem, side, batch) in [
        ("resnet8", Stem::Stride2, 64, 128),
        ("resnet20", Stem::Stride1, 32, 128),
        ("resnet18", Stem::Stride1, 32, 64),
        ("mobilenetv2", Stem::Stride1, 32, 64),
    ] {
        if !wanted.is_empty() && !wanted.iter().any(|w| w == name) {
            continue;
        }
        let network = Network::new(build(name, 6, stem, 128)?, &mut ChaCha8Rng::seed_from_u64(1))?;
        let flop = 2.0 * multiply_adds(network.graph(), side) as f64;
        let x = Tensor::rand(-1f32, 1f32, (batch, side, side, 3), &Device::Cpu)?;
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
            let infer = best(batch, || pool.install(|| infer(&network, &x)))?;
            let mut optimizer = Sgd::new(network.parameters(), SgdConfig::default())?;
            let step = best(batch, || pool.install(|| step(&network, &mut optimizer, &x)))?;
            let rate = |(wall, cpu): (f64, f64), flop: f64| flop / if cpu > 0.0 { cpu } else { wall } / 1e9;
            let rates = [rate(infer, flop), rate(step, 3.0 * flop)];
            let label = format!("{name} {side}×{side}");
            let [infer, step] = [infer, step].map(|(wall, cpu)| (wall * 1e3, cpu * 1e3));
            println!(
                "{label:18} {threads:7} {:9.3} {:7.3} {:8.1} {:8.3} {:7.3} {:8.1}",
                infer.0, infer.1, rates[0], step.0, step.1, rates[1]
            );
        }
    }
    Ok(())
}

fn infer(network: &Network, x: &Tensor) -> excon_train::Result<()> {
    network.infer(x, NormMode::Eval, &[network.graph().logits]).map(drop)
}

fn step(network: &Network, optimizer: &mut Sgd, x: &Tensor) -> excon_train::Result<()> {
    let outputs = network.forward(x, NormMode::Train, &[network.graph().projection])?;
    let loss: Result<Tensor> = outputs[0].sqr()?.mean_all();
    optimizer.step(&loss?.backward()?, 1e-3)
}

/// Wall seconds of the fastest run and mean CPU seconds, per image; at least four runs, then as many as fit two seconds.
fn best<E>(images: usize, mut f: impl FnMut() -> std::result::Result<(), E>) -> std::result::Result<(f64, f64), E> {
    f()?;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let mut least = Duration::MAX;
    let mut runs = 0;
    while runs < 4 || start.elapsed() < Duration::from_secs(2) {
        let begin = Instant::now();
        f()?;
        least = least.min(begin.elapsed());
        runs += 1;
    }
    let images = images as f64;
    Ok((least.as_secs_f64() / images, (cpu_seconds() - cpu) / f64::from(runs) / images))
}

/// CPU seconds of this process's threads so far; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 * 1e-9
}

/// Multiply-adds of the convolutions for one picture.
fn multiply_adds(graph: &Graph, side: usize) -> usize {
    let mut sides = vec![side; graph.nodes.len()];
    let mut total = 0;
    for (id, node) in graph.nodes.iter().enumerate() {
        let before = node.inputs.first().map_or(side, |&i| sides[i]);
        sides[id] = match node.op {
            Op::Conv { input, output, kernel, stride, padding, groups } => {
                let side = (before + 2 * padding - kernel) / stride + 1;
                total += side * side * input / groups * output * kernel * kernel;
                side
            }
            Op::MaxPool { kernel, stride, padding } => (before + 2 * padding - kernel) / stride + 1,
            _ => before,
        };
    }
    total
}
