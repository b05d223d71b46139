//! Pictures a second of whole training steps on a graphics card, as one line of JSON per case:
//! `cargo bench -p excon-train --features cuda --bench cuda -- [NETWORK RECIPE BATCH PRECISION] …`
//!
//! Everything of a step is in the time: drawing and rendering the views, both passes, the optimizer. A picture counts
//! once, whatever the number of its views. Noise takes the pictures' place, 32 × 32 in 100 classes. The first epoch, in
//! which convolutions are planned and memory is allocated, is not counted.

use excon_train::Result;
use excon_train::config::TrainConfig;
use excon_train::dataset::{Dataset, Split};
use excon_train::trainer::{Observer, StepRecord, train};
use std::time::Instant;

/// Steps that are timed.
const STEPS: usize = 60;
/// Steps of the timed epoch before and after them.
const MARGIN: usize = 10;
const CASES: [[&str; 4]; 10] = [
    ["resnet18", "supcon", "256", "bf16"],
    ["resnet18", "excon", "256", "bf16"],
    ["resnet18", "excon-b", "256", "bf16"],
    ["resnet18", "cross-entropy", "256", "bf16"],
    ["resnet18", "supcon", "256", "tf32"],
    ["resnet18", "supcon", "1024", "bf16"],
    ["resnet18", "excon", "1024", "bf16"],
    ["resnet50", "supcon", "256", "bf16"],
    ["resnet50", "excon", "256", "bf16"],
    ["resnet50", "supcon", "1024", "bf16"],
];

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Remembers when the timed steps began and ended.
#[derive(Default)]
struct Clock {
    began: Option<Instant>,
    seconds: f64,
}

impl Observer for Clock {
    fn step(&mut self, record: &StepRecord) {
        match (record.epoch, record.step) {
            (2, MARGIN) => self.began = Some(Instant::now()),
            (2, step) if step == MARGIN + STEPS => {
                self.seconds = self.began.map_or(0.0, |began| began.elapsed().as_secs_f64());
            }
            _ => {}
        }
    }
}

fn noise(pictures: usize) -> Split {
    const SIZE: usize = 32;
    let mut state = 1u64;
    let mut byte = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    Split {
        size: SIZE,
        rgb: (0..pictures * SIZE * SIZE * 3).map(|_| byte()).collect(),
        labels: (0..pictures).map(|i| i % 100).collect(),
        names: (0..pictures).map(|i| i.to_string()).collect(),
        sets: vec![],
    }
}

fn run([network, recipe, batch, precision]: [&str; 4]) -> Result<()> {
    let text = format!(
        "device = 'cuda'\nnetwork = '{network}'\nrecipe = '{recipe}'\nbatch = {batch}\nprecision = '{precision}'\n\
         stem = 'stride1'\nepochs = 2\nrefit_head = false\nlearning_rate = 0.01"
    );
    let config = TrainConfig::resolve(Some(&text), &toml::Table::new())?;
    let data = Dataset {
        name: "noise".into(),
        labels: (0..100).map(|i| i.to_string()).collect(),
        digest: "none".into(),
        mean: [0.5; 3],
        std: [0.25; 3],
        train: noise(config.batch * (STEPS + 2 * MARGIN)),
        validation: noise(200),
        test: noise(1),
        pairs: None,
    };
    let mut clock = Clock::default();
    let trained = train(&config, &data, None, &mut clock)?;
    let per_second = (config.batch * STEPS) as f64 / clock.seconds;
    println!(
        "{{\"schema\": \"excon.bench.cuda/1\", \"who\": \"excon\", \"network\": \"{network}\", \"recipe\": \"{recipe}\", \
         \"joint\": {}, \"batch\": {batch}, \"precision\": \"{precision}\", \"steps\": {STEPS}, \
         \"pictures_per_second\": {per_second:.1}, \"milliseconds_per_step\": {:.3}, \"passing\": {:?}, \"loss\": {:.4}}}",
        config.joint,
        clock.seconds * 1e3 / STEPS as f64,
        trained.epochs[1].passing.unwrap_or(-1.0),
        trained.epochs[1].loss,
    );
    Ok(())
}

fn main() -> Result<()> {
    // cargo adds `--bench`.
    let given: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let given: Vec<[&str; 4]> = given.chunks_exact(4).map(|c| [&*c[0], &*c[1], &*c[2], &*c[3]]).collect();
    let cases = if given.is_empty() { &CASES[..] } else { &given };
    cases.iter().try_for_each(|case| run(*case))
}
