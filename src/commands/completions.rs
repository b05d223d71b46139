//! `excon completions`: made from the same definitions as the help.

use super::Cli;
use crate::failure::Result;
use crate::terminal;
use clap::{Args, CommandFactory};

/// Prints completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  excon completions bash > ~/.local/share/bash-completion/completions/excon")]
pub struct Completions {
    /// The shell
    shell: clap_complete::Shell,
}

impl Completions {
    /// Prints them.
    pub fn run(&self) -> Result<()> {
        let mut text = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "excon", &mut text);
        terminal::out(&String::from_utf8_lossy(&text))
    }
}
