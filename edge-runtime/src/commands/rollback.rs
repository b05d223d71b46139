//! `rollback`: back to the bundle in the other slot.

use super::output::{GOOD, Output, paint};
use super::place::RootArgs;
use super::{Failure, Verdict};
use excon_edge::slot::{Record, Slot};
use serde::Serialize;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "The other slot's bundle is verified first. One that is left during its trial has failed it; one
that was committed can be gone back to in its turn. The version counter stays: an install still refuses older versions.

Example:
  excon-edge rollback"
)]
pub struct Rollback {
    #[command(flatten)]
    root: RootArgs,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    slot: Option<Slot>,
    active: Option<&'a Record>,
    last: &'a str,
}

pub fn run(settings: &Rollback, output: &mut Output) -> Result<Verdict, Failure> {
    let slots = settings.root.slots();
    let _lock = slots.lock()?;
    let state = slots.rollback(&slots.trust()?)?;
    let (slot, active) = state.running().unzip();
    output.json(&Line { schema: "excon.rollback/1", slot, active, last: &state.last })?;
    output.text(format_args!("{} {}", paint(GOOD, "done:"), state.last))?;
    Ok(Verdict::Done)
}
