//! `acknowledge`: someone has looked. The alarm or the notice of slow drift ends, the evidence starts from zero, the counters stay.

use super::output::{GOOD, Output, paint};
use super::place::BundleArgs;
use super::watch::named;
use super::{Failure, Verdict};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "With --accept the frames seen since the alarm become the new reference: do that when the change
is here to stay, and mind that shift which is in them will not be seen again.

Example:
  excon-edge acknowledge trashnet.excon --state /var/lib/excon"
)]
pub struct Acknowledge {
    #[command(flatten)]
    bundle: BundleArgs,
    /// Folder in which `watch` keeps its monitor
    #[arg(long, value_name = "DIR", env = "EXCON_STATE")]
    state: PathBuf,
    /// Take what was seen since the alarm as the new reference
    #[arg(long)]
    accept: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    acknowledged: Option<String>,
    accepted: bool,
    promise: &'a str,
}

pub fn run(settings: &Acknowledge, output: &mut Output) -> Result<Verdict, Failure> {
    let (_, mut session, _turn) = settings.bundle.saved(&settings.state)?;
    let drift = session.monitor.drift_since().map(|_| "slow drift".to_string());
    let alarm = session.monitor.alarm().map(named).or(drift);
    if alarm.is_some() {
        session.monitor.acknowledge(settings.accept)?;
        session.save()?;
    }
    let sentence = session.promise(true).sentence;
    output.json(&Line {
        schema: "excon.acknowledge/1",
        acknowledged: alarm.clone(),
        accepted: settings.accept && alarm.is_some(),
        promise: &sentence,
    })?;
    match alarm {
        Some(alarm) => output.text(format_args!("{} {alarm}", paint(GOOD, "acknowledged:")))?,
        None => output.text("no alarm and no notice stands; nothing was changed")?,
    }
    output.text(sentence)?;
    Ok(Verdict::Done)
}
