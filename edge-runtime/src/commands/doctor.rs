//! `doctor`: looks at the board and says what differs from its profile, why that matters, and what mends it.

use super::output::{BAD, GOOD, Output, WATCH, paint};
use super::place::RootArgs;
use super::{Failure, Verdict};
use excon_edge::board::{Facts, Finding, Grade, Profile, findings};
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(after_help = "Nothing is changed. Without --profile, ROOT/profile.toml is taken where it is there, else what
holds for every board is looked at. Exit code 1 when something will not work.

Examples:
  excon-edge doctor
  excon-edge doctor --profile jetson-orin-nano.toml     (written by: excon boards profile jetson-orin-nano)")]
pub struct Doctor {
    #[command(flatten)]
    root: RootArgs,
    /// The board's profile
    #[arg(long, value_name = "FILE.toml")]
    profile: Option<PathBuf>,
    /// Read the board's own files below this folder
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    sysroot: PathBuf,
}

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    profile: Option<&'a str>,
    facts: &'a Facts,
    findings: &'a [Finding],
}

pub fn run(settings: &Doctor, output: &mut Output) -> Result<Verdict, Failure> {
    let own = settings.root.root.join("profile.toml");
    let path = settings.profile.clone().or_else(|| own.exists().then_some(own));
    let profile = path.as_deref().map(Profile::read).transpose()?;
    let facts = Facts::probe(&settings.sysroot, &settings.root.root);
    let findings = findings(&facts, profile.as_ref());
    output.json(&Line {
        schema: "excon.doctor/1",
        profile: profile.as_ref().map(|p| p.name.as_str()),
        facts: &facts,
        findings: &findings,
    })?;
    print(output, &findings)
}

/// Findings as lines, and the verdict that follows from them.
pub fn print(output: &mut Output, findings: &[Finding]) -> Result<Verdict, Failure> {
    for finding in findings {
        let (style, word) = match finding.grade {
            Grade::Good => (GOOD, "good"),
            Grade::Notice => (WATCH, "notice"),
            Grade::Bad => (BAD, "bad"),
        };
        let word = paint(style, format_args!("{word:<6}"));
        output.text(format_args!("{word}  {:<12}  {}", finding.subject, finding.found))?;
        if finding.grade != Grade::Good {
            output.text(format_args!("{:22}{}", "", finding.why))?;
            output.text(format_args!("{:22}mend: {}", "", finding.mend))?;
        }
    }
    let bad = findings.iter().any(|f| f.grade == Grade::Bad);
    Ok(if bad { Verdict::No } else { Verdict::Done })
}
