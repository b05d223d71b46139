//! The commands by name, one file each.

mod boards;
mod compare;
mod completions;
pub mod convert;
mod data;
mod demo;
mod doctor;
mod embed;
pub mod evaluate;
mod figures;
mod flash;
mod inspect;
mod keys;
mod multi_label;
mod report;
mod robustness;
mod sign;
pub mod train;

use crate::failure::Result;
use crate::terminal::Format;
use clap::{Parser, Subcommand};

/// Trains explanation-driven contrastive classifiers and turns them into a watched board.
#[derive(Debug, Parser)]
#[command(
    name = "excon",
    version,
    max_term_width = 110,
    after_help = "\
Begin with:
  excon demo                                    the whole chain on the photographs that ship with it, under 5 minutes
  excon train --data PHOTOS --out runs/mine     your own photographs: one folder a class

Exit codes: 0 done · 1 a check said no · 64 usage · 65 bad input · 69 unreachable · 70 internal · 73 cannot write · 75 try again · 130 interrupted"
)]
pub struct Cli {
    /// Form of the result on stdout
    #[arg(long, global = true, value_enum, default_value = "human", env = "EXCON_FORMAT", hide_env_values = true)]
    pub format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Data(data::Data),
    Train(Box<train::Train>),
    Evaluate(evaluate::Evaluate),
    Compare(compare::Compare),
    Report(report::Report),
    Embed(embed::Embed),
    Convert(convert::Convert),
    Inspect(inspect::Inspect),
    Keys(keys::Keys),
    Sign(sign::Sign),
    Flash(flash::Flash),
    Boards(boards::Boards),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

/// Runs a command.
pub fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Demo(command) => command.run(cli.format),
        Command::Data(command) => command.run(cli.format),
        Command::Train(command) => command.run(cli.format),
        Command::Evaluate(command) => command.run(cli.format),
        Command::Compare(command) => command.run(cli.format),
        Command::Report(command) => command.run(cli.format),
        Command::Embed(command) => command.run(cli.format),
        Command::Convert(command) => command.run(cli.format),
        Command::Inspect(command) => command.run(cli.format),
        Command::Keys(command) => command.run(cli.format),
        Command::Sign(command) => command.run(cli.format),
        Command::Flash(command) => command.run(cli.format),
        Command::Boards(command) => command.run(cli.format),
        Command::Doctor(command) => command.run(cli.format),
        Command::Completions(command) => command.run(),
    }
}
