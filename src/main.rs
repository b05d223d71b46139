//! `excon`, the workstation command: photographs in, a watched board out.
//!
//! Data goes to stdout, progress and errors to stderr. Exit codes: 0 done · 1 a check said no · 64 usage · 65 bad input ·
//! 69 unreachable · 70 internal · 73 cannot write · 75 try again · 130 interrupted.

mod agreement;
mod commands;
mod comparison;
mod demo;
mod evaluation;
mod failure;
mod form;
mod model;
mod settings;
mod terminal;
mod training;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match commands::Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => {
            // A failed print of a message has no better place to be reported.
            let _ = said.print();
            return if said.use_stderr() { ExitCode::from(failure::USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            match failure.code {
                failure::INTERRUPTED => terminal::note(&failure.message),
                _ => terminal::error(&failure.message),
            }
            ExitCode::from(failure.code)
        }
    }
}
