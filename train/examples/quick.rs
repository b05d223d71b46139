//! Trains on the shipped photographs from a configuration file (or the defaults) and prints one line per epoch:
//! `cargo run --release -p excon-train --example quick -- [FILE.toml] [KEY=VALUE …]`

use excon_train::config::TrainConfig;
use excon_train::dataset::{self, OpenOptions};
use excon_train::evaluate::{NetworkEngine, evaluate};
use excon_train::explain::network_head;
use excon_train::trainer::{EpochRecord, Observer, train};

struct Lines;

impl Observer for Lines {
    fn epoch(&mut self, r: &EpochRecord) {
        let percent = |v: Option<f64>| v.map_or("-".into(), |v| format!("{:.1}", 100.0 * v));
        println!(
            "{:3}/{} lr {:.4} loss {:.3} train {} passing {} val {:.1} nll {:.3} {:.2} s{}",
            r.epoch,
            r.epochs,
            r.learning_rate,
            r.loss,
            percent(r.train_accuracy),
            percent(r.passing),
            100.0 * r.validation_accuracy,
            r.validation_nll,
            r.seconds,
            if r.best { " *" } else { "" }
        );
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut file = None;
    let mut overrides = toml::Table::new();
    for argument in std::env::args().skip(1) {
        if argument.ends_with(".toml") {
            file = Some(std::fs::read_to_string(argument)?);
        } else {
            overrides.extend(argument.parse::<toml::Table>()?);
        }
    }
    let config = TrainConfig::resolve(file.as_deref(), &overrides)?;
    let options = OpenOptions {
        image_size: config.image_size,
        seed: config.seed,
        validation: config.validation,
        classes: config.classes,
    };
    let data = dataset::open(&config.data, &options)?;
    println!("{} on {}: {} train, {} test", config.title(), data.name, data.train.len(), data.test.len());
    let trained = train(&config, &data, None, &mut Lines)?;
    let m = &trained.manifest;
    println!(
        "kept epoch {}, refit l2 {:?}, validation {:.4} nll {:.4}, {:.1} s",
        m.epoch, m.refit_l2, m.validation_accuracy, m.validation_nll, m.seconds
    );
    let preprocess = m.preprocess.clone();
    let head = network_head(&trained.network)?;
    let engine = NetworkEngine::new(trained.network, data.test.size)?;
    for (name, split) in [("validation", &data.validation), ("test", &data.test)] {
        let e = evaluate(&engine, &head, split, &preprocess, &1.0.into())?;
        println!(
            "{name} accuracy {:.4} macro {:.4} ece {:.4} nll {:.4} drop {:.3} increase {:.3} residual {:.1e} {:.1} s",
            e.measured.metrics.accuracy,
            e.measured.metrics.macro_accuracy,
            e.measured.metrics.ece,
            e.measured.metrics.nll,
            e.faithfulness.as_ref().map_or(f64::NAN, |f| f.drop),
            e.faithfulness.as_ref().map_or(f64::NAN, |f| f.increase),
            e.completeness_residual,
            e.seconds
        );
    }
    Ok(())
}
