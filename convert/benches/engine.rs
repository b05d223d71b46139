//! Microseconds a picture of our engines on one thread, batch 1: each network with random weights, exported and quantized
//! as a conversion does it, run by the engine that a board would take for the file.
//!
//!     cargo bench --workspace --bench engine -- [NETWORK/SIDE …] [--profile]
//!
//! such as `mobilenetv2-0.5/224 --profile`. With `--write FOLDER` it writes the files, for other programs to run; with
//! `--turns` it answers lines `NETWORK/SIDE FORM SECONDS` on its input by `LEAST MEDIAN` in microseconds, for
//! `benches/peers/edge.py`. FORM is `int8`, `float`, or `tract` for the float file on stock tract. `EXCON_ISA` chooses the
//! instruction set.

use excon_convert::fold::Folded;
use excon_convert::quantize::{self, Codes};
use excon_convert::range::{Method, Observed};
use excon_convert::weights::Weights;
use excon_convert::{export, onnx};
use excon_edge::engine::{self, Engine, tract::TractEngine};
use excon_edge::kernel;
use excon_train::network::{Network, Stem, build};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const ALL: [&str; 4] = ["resnet20/32", "resnet18/32", "mobilenetv2/32", "mobilenetv2/224"];
/// Runs whose time is not counted.
const WARM_UP: usize = 3;

fn main() -> Outcome<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.iter().any(|a| a == "--turns") {
        return turns();
    }
    let mut take = |flag: &str, values: usize| {
        let at = arguments.iter().position(|a| a == flag)?;
        arguments.drain(at..(at + 1 + values).min(arguments.len())).next_back()
    };
    let (folder, profile) = (take("--write", 1), take("--profile", 0).is_some());
    let names = if arguments.is_empty() { ALL.map(String::from).to_vec() } else { arguments };
    println!("{} instructions", kernel::active().name());
    for name in names {
        let files = Files::new(&name)?;
        if let Some(folder) = &folder {
            files.write(Path::new(folder), &name)?;
            continue;
        }
        for form in ["int8", "float"] {
            let engine = files.engine(form)?;
            let [least, median] = time(engine.as_ref(), &files.image, 2.0)?;
            let steps = engine.profile(&files.image, 300).unwrap_or_default();
            let products = steps.iter().map(|s| s.products).sum::<u64>() as f64;
            let rate = |products: f64, micros: f64| products / micros * 1e-3;
            println!(
                "{name:18} {form:6} {:12} {least:9.1} µs, median {median:9.1}  {:6.1} G products/s",
                engine.name(),
                rate(products, least)
            );
            for step in steps.iter().filter(|_| profile) {
                let micros = step.seconds * 1e6;
                println!("  {:48} {micros:9.1} µs  {:6.1}", step.name, rate(step.products as f64, micros));
            }
        }
    }
    Ok(())
}

/// Answers one line after another, so that another program can let the contenders take turns.
fn turns() -> Outcome<()> {
    let mut held: Option<(String, Box<dyn Engine>, Vec<f32>)> = None;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        let (Some(name), Some(form), Some(seconds)) = (words.next(), words.next(), words.next()) else {
            return Err(format!("{line:?} is not NETWORK/SIDE FORM SECONDS").into());
        };
        let key = format!("{name} {form}");
        let (_, engine, image) = match held.take().filter(|(kept, ..)| *kept == key) {
            Some(same) => held.insert(same),
            None => {
                let files = Files::new(name)?;
                held.insert((key, files.engine(form)?, files.image))
            }
        };
        let [least, median] = time(engine.as_ref(), image, seconds.parse()?)?;
        println!("{least:.2} {median:.2}");
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// A network with random weights in both forms, and a picture.
struct Files {
    float: Vec<u8>,
    int8: Vec<u8>,
    image: Vec<f32>,
}

impl Files {
    fn new(name: &str) -> Outcome<Self> {
        let (network, side) = name.split_once('/').ok_or("name NETWORK/SIDE")?;
        let side = side.parse()?;
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let stem = if side > 64 { Stem::Imagenet } else { Stem::Stride1 };
        let network = Network::new(build(network, 10, stem, 8)?, &mut rng)?;
        let state = network.state()?;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights.safetensors");
        candle_core::safetensors::save(&state.into_iter().collect(), &path)?;
        let weights = Weights::from_bytes(Path::new("random"), &std::fs::read(&path)?)?;
        let folded = Folded::new(network.graph(), &weights, side)?;
        let image: Vec<f32> = (0..3 * side * side).map(|_| rng.random::<f32>() * 4.0 - 2.0).collect();
        let scales = Observed::new(&folded, &image)?.scales(&folded, Method::MinMax);
        let labels: Vec<String> = (0..10).map(|k| k.to_string()).collect();
        let int8 = onnx::encode(&quantize::int8(&folded, &scales, Codes::Full, &labels)?);
        Ok(Self { float: onnx::encode(&export::float(&folded, &labels)), int8, image })
    }

    fn engine(&self, form: &str) -> Outcome<Box<dyn Engine>> {
        Ok(match form {
            "int8" => engine::open(&self.int8, "int8.onnx")?,
            "float" => engine::open(&self.float, "float.onnx")?,
            "tract" => Box::new(TractEngine::from_onnx(&self.float, "float.onnx")?),
            other => return Err(format!("there is no form {other}").into()),
        })
    }

    fn write(&self, folder: &Path, name: &str) -> Outcome<()> {
        std::fs::create_dir_all(folder)?;
        for (form, bytes) in [("float", &self.float), ("int8", &self.int8)] {
            std::fs::write(folder.join(format!("{}.{form}.onnx", name.replace('/', "-"))), bytes)?;
        }
        Ok(())
    }
}

/// Least and median microseconds of a picture.
fn time(engine: &dyn Engine, image: &[f32], seconds: f64) -> Outcome<[f64; 2]> {
    for _ in 0..WARM_UP {
        engine.run(image)?;
    }
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || begun.elapsed() < Duration::from_secs_f64(seconds) {
        let start = Instant::now();
        engine.run(image)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok([times[0], times[times.len() / 2]])
}
