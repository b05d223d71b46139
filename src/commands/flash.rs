//! `excon flash`: a bundle onto boards, in waves.

use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress};
use clap::Args;
use excon_boards::flash::{self, Order, Parcel, Step};
use excon_boards::fleet::{self, Fate};
use excon_boards::profiles;
use excon_boards::remote::Board;
use excon_edge::board::{Facts, Grade, findings};
use excon_edge::slot;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// How boards are reached; shared by all commands that do.
#[derive(Debug, Args)]
pub struct Reach {
    /// A board: user@host, or a name of your ssh configuration; may be given again
    #[arg(long = "to", value_name = "USER@HOST", required = true)]
    to: Vec<String>,
    /// `excon-edge` on the boards
    #[arg(long, value_name = "PATH", default_value = "excon-edge", env = "EXCON_REMOTE_EDGE", hide_env_values = true)]
    edge: String,
    /// Folder of the slots on the boards
    #[arg(long, value_name = "DIR", default_value = slot::ROOT, env = "EXCON_REMOTE_ROOT", hide_env_values = true)]
    root: String,
    /// Give up a connection that says nothing for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    stall: u64,
}

impl Reach {
    /// The boards.
    pub fn boards(&self) -> Result<Vec<Board>> {
        let batch = self.to.len() > 1;
        let board = |address: &String| -> Result<Board> {
            let stall = Duration::from_secs(self.stall);
            let (edge, root) = (self.edge.clone(), self.root.clone());
            Ok(Board { edge, root, batch, stall, ..Board::at(address)? })
        };
        self.to.iter().map(board).collect()
    }
}

/// Sends a bundle to boards over ssh, installs it there, and commits it or goes back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon flash trashnet.excon --to pi@camera-1 --dry-run
  excon flash trashnet.excon --to pi@camera-1 --board raspberry-pi-5
  excon flash trashnet.excon --to camera-1 --to camera-2 --to camera-3 --wave 2 --live --health 500

ssh's own configuration, agent and known hosts are used. What has arrived is kept: after a cut the same command sends the
rest. The board verifies, tests and switches by itself; the old bundle stays in the other slot (excon-edge rollback).
Several boards are flashed in waves, which stop at the first board that is not well.")]
pub struct Flash {
    /// The bundle
    #[arg(value_name = "FILE.excon")]
    file: PathBuf,
    #[command(flatten)]
    reach: Reach,
    /// Refuse boards that are not of this kind; `excon boards list` shows the kinds
    #[arg(long, value_name = "NAME")]
    board: Option<String>,
    /// Folder of profiles of your own
    #[arg(long, value_name = "DIR", env = "EXCON_PROFILES", hide_env_values = true)]
    profiles: Option<PathBuf>,
    /// Boards beside each other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    wave: u64,
    /// Checked predictions before it is committed
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    health: u64,
    /// Let only predictions of whoever uses it there count, not self-tests
    #[arg(long)]
    live: bool,
    /// With --live: watch so long, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    wait: u64,
    /// Accept a smaller version than a board has run
    #[arg(long)]
    older: bool,
    /// Accept a model of another name than a board runs
    #[arg(long)]
    other_model: bool,
    /// Only ask the boards and say what would be done
    #[arg(long)]
    dry_run: bool,
}

impl Flash {
    /// Flashes.
    pub fn run(&self, format: Format) -> Result<()> {
        let parcel = Parcel::open(&self.file)?;
        let profile = self.board.as_ref().map(|name| profiles::named(name, self.profiles.as_deref())).transpose()?;
        let order = Order {
            health: self.health,
            live: self.live,
            wait: Duration::from_secs(self.wait),
            older: self.older,
            other_model: self.other_model,
            dry_run: self.dry_run,
        };
        let boards = self.reach.boards()?;
        let one = |board: &Board| {
            if let Some((profile, _)) = &profile {
                of_kind(board, profile)?;
            }
            let progress = Progress::start("flash", parcel.chunks() as u64);
            let mut last = None;
            let outcome = flash::flash(board, &parcel, &order, &mut |step| {
                if let Step::Sending(there, _) = step {
                    progress.at(there as u64);
                }
                let kind = std::mem::discriminant(&step);
                progress.say(&format!("{}: {}", board.address, words(&step)), last.replace(kind) != Some(kind));
            })?;
            progress.finish(&format!("{}: {}", board.address, outcome.ending.words()));
            Ok(outcome)
        };
        let fates = fleet::waves(&boards, self.wave as usize, one);
        self.report(format, &parcel, &boards, &fates)
    }

    fn report(&self, format: Format, parcel: &Parcel, boards: &[Board], fates: &[Fate]) -> Result<()> {
        let each = || boards.iter().zip(fates);
        if format == Format::Json {
            let line = |(board, fate): (&Board, &Fate)| match fate {
                Fate::Tried(Ok(outcome)) => json!({ "board": board.address, "outcome": outcome }),
                Fate::Tried(Err(e)) => json!({ "board": board.address, "error": e.to_string() }),
                Fate::Spared => json!({ "board": board.address, "outcome": "spared" }),
            };
            terminal::json(&json!({ "schema": "excon.flash/1", "name": parcel.name, "version": parcel.version,
                "digest": parcel.digest, "bytes": parcel.bytes.len(), "boards": each().map(line).collect::<Vec<_>>() }))?;
        } else {
            terminal::heading(&format!("{} version {}", parcel.name, parcel.version))?;
            let line = |(board, fate): (&Board, &Fate)| match fate {
                Fate::Tried(Ok(o)) => {
                    let sent = if o.sent > 0 { format!("{} KiB sent; ", o.sent.div_ceil(1024)) } else { String::new() };
                    vec![board.address.clone(), o.ending.words().into(), format!("{sent}{}", o.last)]
                }
                Fate::Tried(Err(e)) => vec![board.address.clone(), "failed".into(), e.to_string()],
                Fate::Spared => vec![board.address.clone(), "spared".into(), "an earlier board is not well".into()],
            };
            terminal::table("lll", &each().map(line).collect::<Vec<_>>())?;
        }
        let failed: Vec<_> = each().filter(|(_, fate)| !fate.is_healthy()).collect();
        let Some((board, first)) = failed.first() else {
            let to: Vec<String> = boards.iter().map(|b| format!("--to {}", b.address)).collect();
            return match format {
                Format::Human => terminal::next(&[format!("excon boards status {}", to.join(" "))]),
                Format::Json => Ok(()),
            };
        };
        let many = format!("{} of {} boards do not run it", failed.len(), boards.len());
        Err(match first {
            Fate::Tried(Err(e)) => Failure { code: e.exit_code(), message: format!("{many}. {e}") },
            Fate::Tried(Ok(o)) => Failure::check(format!("{many}. {}: {}", board.address, o.last)),
            Fate::Spared => Failure::check(many),
        })
    }
}

fn words(step: &Step) -> String {
    match step {
        Step::Asking => "asking what runs".into(),
        Step::Sending(there, all) => format!("sending, {there} of {all} chunks are there"),
        Step::Installing => "installing".into(),
        Step::Watching(passed, needed) => format!("watching, {passed} of {needed} predictions passed"),
    }
}

/// Refuses a board that is of another kind.
fn of_kind(board: &Board, profile: &excon_edge::board::Profile) -> excon_boards::Result<()> {
    let facts = facts(board)?;
    let wrong = findings(&facts, Some(profile)).into_iter();
    let wrong = wrong.filter(|f| f.grade == Grade::Bad && (f.subject == "board" || f.subject == "architecture"));
    match wrong.map(|f| f.found).next() {
        Some(found) => Err(excon_boards::Error::Board { board: board.address.clone(), reason: found, code: 65 }),
        None => Ok(()),
    }
}

/// What a board finds on itself.
pub fn facts(board: &Board) -> excon_boards::Result<Facts> {
    let (_, answer) = board.ask(&["doctor"])?;
    serde_json::from_value(answer["facts"].clone()).map_err(|e| excon_boards::Error::Board {
        board: board.address.clone(),
        reason: format!("its facts are not understood ({e}). Give both sides the same version of excon"),
        code: 65,
    })
}
