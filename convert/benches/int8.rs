//! Microseconds a picture of the int8 engine on one thread, batch 1: each network with random weights, exported and
//! quantized as a conversion does it. The least of many runs, as other work on the machine can only add to it.
//!
//! `cargo bench -p excon-convert --bench int8 -- [NETWORK/SIDE …] [--profile]`, such as `mobilenetv2-0.5/224 --profile`.
//! `EXCON_ISA` chooses the instruction set.

use excon_convert::fold::Folded;
use excon_convert::range::{Method, Observed};
use excon_convert::weights::Weights;
use excon_convert::{onnx, quantize};
use excon_edge::engine::{Engine, int8::Int8Engine};
use excon_edge::kernel;
use excon_train::network::{Network, Stem, build};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

const ALL: [&str; 4] = ["resnet20/32", "resnet18/32", "mobilenetv2/32", "mobilenetv2/224"];

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let profile = arguments.iter().any(|a| a == "--profile");
    let mut names: Vec<&str> = arguments.iter().map(String::as_str).filter(|a| !a.starts_with('-')).collect();
    if names.is_empty() {
        names.extend(ALL);
    }
    println!("{} instructions", kernel::active().name());
    for name in names {
        let (network, side) = name.split_once('/').ok_or("name NETWORK/SIDE")?;
        let (engine, image) = engine(network, side.parse()?)?;
        let steps = engine.profile(&image, 1).unwrap_or_default();
        let products = steps.iter().map(|s| s.products).sum::<u64>() as f64;
        let seconds = least(|| engine.run(&image).map(drop))?;
        println!("{name:18} {:9.1} µs  {:6.1} G products/s", seconds * 1e6, products / seconds * 1e-9);
        for step in engine.profile(&image, 300).filter(|_| profile).into_iter().flatten() {
            let rate = step.products as f64 / step.seconds * 1e-9;
            println!("  {:48} {:9.1} µs  {rate:6.1}", step.name, step.seconds * 1e6);
        }
    }
    Ok(())
}

/// The int8 engine of a network with random weights, and a picture.
fn engine(name: &str, side: usize) -> Result<(Int8Engine, Vec<f32>), Box<dyn Error>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let stem = if side > 64 { Stem::Imagenet } else { Stem::Stride1 };
    let network = Network::new(build(name, 10, stem, 8)?, &mut rng)?;
    let state = network.state()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("weights.safetensors");
    candle_core::safetensors::save(&state.into_iter().collect(), &path)?;
    let weights = Weights::from_bytes(Path::new("random"), &std::fs::read(&path)?)?;
    let folded = Folded::new(network.graph(), &weights, side)?;
    let image: Vec<f32> = (0..3 * side * side).map(|_| rng.random::<f32>() * 4.0 - 2.0).collect();
    let scales = Observed::new(&folded, &image)?.scales(&folded, Method::MinMax);
    let labels: Vec<String> = (0..10).map(|k| k.to_string()).collect();
    let model = onnx::encode(&quantize::int8(&folded, &scales, &labels)?);
    Ok((Int8Engine::from_onnx(&model, name)?, image))
}

fn least<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let (begun, mut least) = (Instant::now(), Duration::MAX);
    while begun.elapsed() < Duration::from_secs(2) {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least.as_secs_f64())
}
