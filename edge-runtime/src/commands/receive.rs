//! `receive`: the board's half of `excon flash`, chunks from stdin into `ROOT/incoming`; see `excon_edge::transfer`.

use super::place::RootArgs;
use super::{Failure, Verdict};
use excon_edge::transfer;
use std::io;

#[derive(Debug, clap::Args)]
pub struct Receive {
    #[command(flatten)]
    root: RootArgs,
    /// Only say which chunks are missing
    #[arg(long)]
    ask_only: bool,
}

pub fn run(settings: &Receive) -> Result<Verdict, Failure> {
    let folder = settings.root.root.join("incoming");
    transfer::receive(io::stdin().lock(), io::stdout().lock(), &folder, settings.ask_only)?;
    Ok(Verdict::Done)
}
