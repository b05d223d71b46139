//! `excon doctor`: boards looked at from here, compared with their profiles.

use super::flash::{Reach, facts};
use crate::failure::{Failure, Result};
use crate::terminal::{self, Format};
use clap::Args;
use excon_boards::{fleet, profiles};
use excon_edge::board::{Grade, findings};
use serde_json::json;
use std::path::PathBuf;

/// Looks at boards over ssh: what differs from their profile, why it matters, what mends it
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  excon doctor --to pi@camera-1

Without --board the profile is chosen by the board's device tree. Nothing is changed there.")]
pub struct Doctor {
    #[command(flatten)]
    reach: Reach,
    /// Profile to compare with [default: the one that the device tree names]
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Folder of profiles of your own
    #[arg(long, value_name = "DIR", env = "EXCON_PROFILES", hide_env_values = true)]
    profiles: Option<PathBuf>,
}

impl Doctor {
    /// Looks.
    pub fn run(&self, format: Format) -> Result<()> {
        let all = profiles::all(self.profiles.as_deref())?;
        let named = self.board.as_ref().map(|name| profiles::named(name, self.profiles.as_deref())).transpose()?;
        let boards = self.reach.boards()?;
        let (mut lines, mut bad, mut error) = (Vec::new(), 0, None);
        for (board, facts) in boards.iter().zip(fleet::beside(&boards, facts)) {
            let facts = match facts {
                Ok(facts) => facts,
                Err(e) => {
                    lines.push(json!({ "board": board.address, "error": e.to_string() }));
                    terminal::error(&e.to_string());
                    error = Some(e.exit_code());
                    continue;
                }
            };
            let profile = named.as_ref().map(|(p, _)| p.clone()).or_else(|| profiles::matching(&facts, &all));
            let findings = findings(&facts, profile.as_ref());
            bad += findings.iter().filter(|f| f.grade == Grade::Bad).count();
            if format == Format::Human {
                let title = profile.as_ref().map_or("no profile", |p| p.title.as_str());
                terminal::heading(&format!("{}: {title}", board.address))?;
                let mut rows = Vec::new();
                for f in &findings {
                    rows.push((f.subject.as_str(), format!("{:<6}  {}", word(f.grade), f.found)));
                    if f.grade != Grade::Good {
                        rows.push(("", format!("{:<6}  {}", "", f.why)));
                        rows.push(("", format!("{:<6}  mend: {}", "", f.mend)));
                    }
                }
                terminal::rows(&rows)?;
            }
            let profile = profile.map(|p| p.name);
            lines.push(json!({ "board": board.address, "profile": profile, "facts": facts, "findings": findings }));
        }
        if format == Format::Json {
            terminal::json(&json!({ "schema": "excon.doctor/1", "boards": lines }))?;
        }
        match (error, bad) {
            (Some(code), _) => Err(Failure { code, message: "not every board could be looked at".into() }),
            (None, 0) => Ok(()),
            (None, bad) => Err(Failure::check(format!("{bad} things will not work as they are"))),
        }
    }
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Notice => "notice",
        Grade::Bad => "bad",
    }
}
