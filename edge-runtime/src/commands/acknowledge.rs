//! `acknowledge`: someone has looked. The alarm and the notices end, the evidence starts from zero, the counters stay.

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
    let answered = session.monitor.acknowledge(settings.accept)?;
    if !answered.is_nothing() {
        session.save()?;
    }
    let notices = answered.notices.iter().map(|family| format!("notice of {}", family.words()));
    let drift = answered.slow_drift.then(|| "slow drift".to_string());
    let stood: Vec<String> = answered.alarm.as_ref().map(named).into_iter().chain(notices).chain(drift).collect();
    let what = (!stood.is_empty()).then(|| stood.join("; "));
    let sentence = session.promise(true).sentence;
    output.json(&Line {
        schema: "excon.acknowledge/1",
        acknowledged: what.clone(),
        accepted: settings.accept && answered.alarm.is_some(),
        promise: &sentence,
    })?;
    match what {
        Some(what) => output.text(format_args!("{} {what}", paint(GOOD, "acknowledged:")))?,
        None => output.text("no alarm and no notice stands; nothing was changed")?,
    }
    output.text(sentence)?;
    Ok(Verdict::Done)
}
