//! `excon-edge`, the board's command: arguments in, exit code out. The work is in `commands` and in the library.

mod commands;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // A network of a few hundred kilobytes would be given pages of two megabytes. Where the kernel knows of none there
    // is nothing to turn off.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    ExitCode::from(commands::run(std::env::args_os()))
}
