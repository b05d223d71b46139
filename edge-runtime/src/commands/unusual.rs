//! `unusual`: what `watch --keep-unusual` has kept, listed; with `--send`, whole frames for `excon boards collect`.

use super::output::Output;
use super::place::RootArgs;
use super::{Failure, Verdict};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use excon_edge::unusual::{self, Kept};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  excon-edge unusual
  excon-edge unusual frames/unusual --format json | jq -r 'select(.score > 3).picture'")]
pub struct Unusual {
    /// The folder that `watch --keep-unusual` was given [default: unusual/ below the root]
    #[arg(value_name = "FOLDER")]
    folder: Option<PathBuf>,
    #[command(flatten)]
    root: RootArgs,
    /// Give these frames as they are, by number
    #[arg(long, value_name = "N", num_args = 1.., hide = true)]
    send: Option<Vec<u64>>,
}

/// A line of output: an entry, and the bytes of its frame where they were asked for.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    kept: &'a Kept,
    #[serde(skip_serializing_if = "Option::is_none")]
    png: Option<String>,
}

pub fn run(settings: &Unusual, output: &mut Output) -> Result<Verdict, Failure> {
    let folder = settings.folder.clone().unwrap_or_else(|| settings.root.root.join("unusual"));
    let wanted = |kept: &Kept| settings.send.as_ref().is_none_or(|numbers| numbers.contains(&kept.number));
    let mut kept: Vec<Kept> = unusual::list(&folder)?.into_iter().filter(wanted).collect();
    kept.sort_by(|a, b| b.entry.score.total_cmp(&a.entry.score));
    for kept in &kept {
        let png = match settings.send {
            Some(_) => Some(STANDARD.encode(kept.read()?)),
            None => None,
        };
        output.json(&Line { kept, png })?;
        let (entry, picture) = (&kept.entry, kept.picture.display());
        output.text(format_args!(
            "{:6.1}  {:<16} {:5.1} %  {}  {picture}",
            entry.score,
            entry.predicted,
            100.0 * entry.confidence,
            entry.time
        ))?;
    }
    if kept.is_empty() {
        output.text(format_args!("no frames are kept in {}", folder.display()))?;
        output.text("next: excon-edge watch active SOURCE --keep-unusual")?;
    }
    Ok(Verdict::Done)
}
