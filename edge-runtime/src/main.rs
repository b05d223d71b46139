//! `excon-edge`, the board's command: arguments in, exit code out. The work is in `commands` and in the library.

mod commands;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ExitCode::from(commands::run(std::env::args_os()))
}
