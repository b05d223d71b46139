//! The subcommands: validated settings in, a verdict out. Only this module and those below it print.
//!
//! Data goes to stdout, everything about progress and trouble to stderr. Exit codes: 0 done, 1 a check said no,
//! 64 usage, 65 bad input or bundle, 69 address, camera or engine not available, 70 internal, 73 cannot write, 75 try again,
//! 130 interrupted.

#[cfg(feature = "serve")]
mod access;
mod acknowledge;
mod bench;
mod doctor;
mod install;
mod label;
mod monitor;
mod output;
mod place;
mod predict;
mod receive;
mod rollback;
#[cfg(feature = "serve")]
mod serve;
mod shadow;
mod status;
mod tensorrt;
mod unusual;
mod watch;

use clap::{CommandFactory, Parser, Subcommand};
use output::{Format, Output};
use std::ffi::OsString;
use std::io;

const USAGE: u8 = 64;
const CANNOT_WRITE: u8 = 73;

/// Predict, explain and watch with one sealed bundle.
#[derive(Debug, Parser)]
#[command(name = "excon-edge", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Examples:
  excon-edge predict trashnet.excon photo.jpg --explain maps
  excon-edge watch trashnet.excon camera/ --state /var/lib/excon
  gst-launch-1.0 -q v4l2src ! jpegenc ! fdsink | excon-edge watch active - --view
  excon-edge serve active --state /var/lib/excon
  excon-edge install trashnet.excon && excon-edge predict active photo.jpg
  excon-edge status

Exit codes: 0 done, 1 a check said no (an alarm stands, an install was rolled back), 64 usage, 65 bad input or bundle,
69 address, camera or engine not available, 70 internal, 73 cannot write, 75 try again, 130 interrupted")]
struct Cli {
    /// How results are written to stdout: for people, or one JSON object a line.
    #[arg(long, global = true, value_enum, default_value_t = Format::Human, env = "EXCON_FORMAT")]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Label pictures, with calibrated probabilities and the reason as a saliency map
    Predict(predict::Predict),
    /// Watch a folder, a stream or a camera for a shift, and ring when there is one
    Watch(watch::Watch),
    /// Answer over HTTP: inference for programs, metrics for Prometheus, a live page for people
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    /// Measure latency, throughput and memory of a bundle on this machine
    Bench(bench::Bench),
    /// Verify a bundle, put it into the inactive slot, try it, and commit it or go back
    Install(install::Install),
    /// Go back to the bundle in the other slot
    Rollback(rollback::Rollback),
    /// Take a bundle in chunks from stdin, for `excon flash`
    #[command(hide = true)]
    Receive(receive::Receive),
    /// Show what is installed, what a bundle holds, the monitor's state, and what is promised under which conditions
    Status(status::Status),
    /// List the most unusual frames that `watch --keep-unusual` has kept
    Unusual(unusual::Unusual),
    /// Look at this board: what is not as it should be, why it matters, what mends it
    Doctor(doctor::Doctor),
    /// Compile the shim for this board's TensorRT, look at it, build engines with it
    Tensorrt(tensorrt::Tensorrt),
    /// Answer the alarm that stands: the evidence starts from zero again
    Acknowledge(acknowledge::Acknowledge),
    /// Give the true classes of some frames, late: they sharpen the accuracy estimate
    Label(label::Label),
    /// Write a completion script for a shell to stdout
    #[command(after_help = "Example:\n  excon-edge completions bash > /etc/bash_completion.d/excon-edge")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// How a command ended that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Done, and nothing stands against it.
    Done,
    /// A check said no.
    No,
    /// Done, but for input that could not be used; told on stderr.
    BadInput,
    /// A signal came before the end; what was done is saved.
    Interrupted,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
enum Failure {
    /// The library refused.
    Library(excon_edge::Error),
    /// Stdout could not be written.
    Output(io::Error),
}

impl From<excon_edge::Error> for Failure {
    fn from(error: excon_edge::Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the command line and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, on stdout. A closed pipe is no one's trouble.
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    let mut output = Output::new(cli.format);
    let result = match cli.command {
        Command::Predict(settings) => predict::run(&settings, &mut output),
        Command::Watch(settings) => watch::run(&settings, &mut output),
        #[cfg(feature = "serve")]
        Command::Serve(settings) => serve::run(&settings, &mut output),
        Command::Bench(settings) => bench::run(&settings, &mut output),
        Command::Install(settings) => install::run(&settings, &mut output),
        Command::Rollback(settings) => rollback::run(&settings, &mut output),
        Command::Receive(settings) => receive::run(&settings),
        Command::Status(settings) => status::run(&settings, &mut output),
        Command::Unusual(settings) => unusual::run(&settings, &mut output),
        Command::Doctor(settings) => doctor::run(&settings, &mut output),
        Command::Tensorrt(settings) => tensorrt::run(&settings, &mut output),
        Command::Acknowledge(settings) => acknowledge::run(&settings, &mut output),
        Command::Label(settings) => label::run(&settings, &mut output),
        Command::Completions { shell } => completions(shell),
    };
    match result {
        Ok(Verdict::Done) => 0,
        Ok(Verdict::No) => 1,
        Ok(Verdict::BadInput) => 65,
        Ok(Verdict::Interrupted) => 130,
        Err(Failure::Library(error)) => {
            output::trouble(&error);
            error.exit_code()
        }
        // The reader has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(error)) => {
            output::trouble(&format_args!("cannot write to stdout: {error}"));
            CANNOT_WRITE
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<Verdict, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "excon-edge", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(Verdict::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
