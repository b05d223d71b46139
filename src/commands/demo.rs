//! `excon demo`: the whole chain on the photographs that ship with the project.

use crate::demo::{self, DEFAULT_OUT, Options};
use crate::failure::Result;
use crate::terminal::Format;
use clap::Args;
use std::path::PathBuf;

/// Trains, converts and watches, on photographs that ship with it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  excon demo
  excon demo --quick --out /tmp/demo

Writes run/ (the training run), trashnet.excon (the bundle), report.html and report.json. Needs no network, no GPU and no
Python; about five minutes on two cores.")]
pub struct Demo {
    /// Two epochs: proves that the chain works, not what it can reach
    #[arg(long)]
    quick: bool,
    /// Seed of everything random; the same seed repeats the run exactly on one machine and thread count
    #[arg(long, value_name = "S", default_value_t = 1, env = "EXCON_SEED", hide_env_values = true)]
    seed: u32,
    /// Folder to write
    #[arg(long, value_name = "FOLDER", default_value = DEFAULT_OUT)]
    out: PathBuf,
}

impl Demo {
    /// Plays it.
    pub fn run(&self, format: Format) -> Result<()> {
        demo::run(&Options { quick: self.quick, seed: self.seed, out: self.out.clone() }, format)
    }
}
