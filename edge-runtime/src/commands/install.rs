//! `install`: a bundle into the inactive slot, tried, and committed or left again.

use super::output::{self, BAD, BOLD, GOOD, Output, WATCH, paint};
use super::place::{EngineArgs, RootArgs};
use super::{Failure, Verdict, shadow};
use excon_edge::Error;
use excon_edge::bundle::{Bundle, Members};
use excon_edge::shadow::Verdict as Shadow;
use excon_edge::slot::{Slot, Terms};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "The bundle is verified (its signature first, when keys are pinned in ROOT/keys), run on its
golden inputs, unpacked into the slot that is not active, read back, and made active by one rename. A health window
follows: --health self-tests, or with --live as many checked predictions of `predict`, `watch` or `serve`. A failed one,
or three starts that come to nothing, bring the old bundle back. Exit code 1 when that happened. Where TensorRT is set
up, a bundle made for it is built first, and its constants are fitted on the built engine; give --engine cpu to go without.

Examples:
  excon-edge install /media/stick/trashnet.excon
  excon-edge install trashnet.excon --health 500 --live
  excon-edge install trashnet.excon --shadow labelled/      (one folder a class; refused unless it is not worse)

With --shadow the new model and the running one label the same pictures. It is installed only when a test that holds
however often it looks says that it is not worse by --margin; a model that is gets through with a probability of at most
1 %. Models that are as good as each other and differ on six pictures in a hundred need about 2,000 pictures. Each run is
a look of its own.")]
pub struct Install {
    /// The bundle
    #[arg(value_name = "FILE.excon")]
    file: PathBuf,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Checked predictions before it is committed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    health: u64,
    /// Let the predictions of whoever uses it count, and not self-tests at once
    #[arg(long)]
    live: bool,
    /// Accept a smaller version than this board has run
    #[arg(long)]
    older: bool,
    /// Accept a model of another name than the one that runs
    #[arg(long)]
    other_model: bool,
    /// Compare it with the running model on labelled pictures first, one folder a class
    #[arg(long, value_name = "FOLDER")]
    shadow: Option<PathBuf>,
    /// With --shadow: accuracy that may be lost, as a share
    #[arg(long, value_name = "SHARE", default_value_t = 0.02, requires = "shadow")]
    margin: f64,
    /// Only check whether it would be accepted
    #[arg(long)]
    dry_run: bool,
    /// Remove FILE.excon when it has been unpacked
    #[arg(long, hide = true)]
    remove: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    name: &'a str,
    version: u64,
    digest: &'a str,
    signed_by: Option<&'a str>,
    slot: Option<Slot>,
    outcome: &'static str,
    last: &'a str,
}

pub fn run(settings: &Install, output: &mut Output) -> Result<Verdict, Failure> {
    let slots = settings.root.slots();
    let trust = slots.trust()?;
    let members = Members::open(&settings.file, &trust)?;
    // It proves itself before anything is given up for it.
    let mut bundle = Bundle::from_members(&settings.file, members.clone())?;
    // What is here already is opened as anyone would; only the new bundle may be built.
    let opener = settings.engine.opener(&settings.root);
    let opened = settings.engine.opener(&settings.root).installing(&bundle).open_unsaved(&mut bundle)?;
    let predictor = &opened.predictor;
    output::note(format_args!(
        "{} version {} is verified and passed its golden inputs on {}",
        bundle.manifest.name,
        bundle.manifest.version,
        predictor.engine().name()
    ));
    if !trust.is_pinned() {
        let keys = settings.root.root.join("keys");
        output::note(format_args!("no key is pinned in {}: whoever made it was not asked", keys.display()));
    }
    let terms = Terms { older: settings.older, other_model: settings.other_model, ..Terms::strict() };
    let mut say = |slot, outcome, last: &str| {
        output.json(&Line {
            schema: "excon.install/1",
            name: &bundle.manifest.name,
            version: bundle.manifest.version,
            digest: &bundle.digest,
            signed_by: bundle.signed.by.as_deref(),
            slot,
            outcome,
            last,
        })?;
        let style = match outcome {
            "rolled back" | "worse" => BAD,
            "on trial" | "undecided" => WATCH,
            _ => GOOD,
        };
        output.text(format_args!("{} {last}", paint(style, format_args!("{outcome}:"))))
    };
    if let Some(folder) = &settings.shadow {
        let mut running = slots.open_active(&trust)?;
        let other = opener.open(&mut running)?;
        let found = shadow::compare((&bundle, predictor), (&running, &other), folder, settings.margin)?;
        let lost = format!("{:+.1} points on {} pictures", 100.0 * found.gain(), found.pictures);
        let refused = match found.verdict() {
            Shadow::NotWorse => None,
            Shadow::Worse => Some(("worse", format!("it is worse than the running model: {lost}"))),
            Shadow::Open => Some(("undecided", format!("too few pictures to show that it is not worse: {lost}"))),
        };
        if let Some((outcome, last)) = refused {
            say(None, outcome, &last)?;
            return Ok(Verdict::No);
        }
    }
    if settings.dry_run {
        let state = slots.state()?;
        slots.admit(&settings.file, &members, terms)?;
        say(Some(state.inactive()), "acceptable", &format!("it would go into slot {}", state.inactive()))?;
        return Ok(Verdict::Done);
    }
    let _lock = slots.lock()?;
    let mut state = slots.state()?;
    // What an interrupted install left is brought to its end first.
    if state.trial.is_some_and(|trial| !trial.live) {
        state = slots.prove(&trust, &opener)?;
        output::note(&state.last);
    }
    if let Some((slot, running)) = state.running().filter(|(_, r)| r.digest == bundle.digest) {
        let outcome = if state.trial.is_some() { "on trial" } else { "active already" };
        say(Some(slot), outcome, &format!("{} version {} is in slot {slot}", running.name, running.version))?;
        return Ok(Verdict::Done);
    }
    let slot = slots.stage(&settings.file, &members, terms)?;
    opener.keep(&opened, &slots.fitted(slot));
    slots.switch(slot, &members, settings.health, settings.live)?;
    if settings.remove {
        std::fs::remove_file(&settings.file).map_err(|source| Error::Write { path: settings.file.clone(), source })?;
    }
    let state = slots.prove(&trust, &opener)?;
    let runs = state.running().is_some_and(|(_, record)| record.digest == bundle.digest);
    if runs && state.trial.is_some() {
        // This start has passed its self-test; only those of its users are numbered.
        slots.passed(&bundle.digest, 0)?;
    }
    let (outcome, verdict) = match (runs, state.trial) {
        (true, None) => ("committed", Verdict::Done),
        (true, Some(_)) => ("on trial", Verdict::Done),
        (false, _) => ("rolled back", Verdict::No),
    };
    say(Some(slot), outcome, &state.last)?;
    if runs {
        let next = "excon-edge predict active IMAGE";
        output.text(format_args!("next: {}   back: excon-edge rollback", paint(BOLD, next)))?;
    }
    Ok(verdict)
}
