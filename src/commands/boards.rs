//! `excon boards`: the kinds of boards that are known, and how a fleet is.

use super::flash::Reach;
use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress};
use clap::{Args, Subcommand};
use excon_boards::{collect, fleet, profiles};
use excon_edge::board::Profile;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Lists the kinds of boards, and asks a fleet what runs where
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon boards list
  excon boards profile jetson-orin-nano > orin.toml       a start for one of your own, and what doctor compares with
  excon boards status --to camera-1 --to camera-2
  excon boards collect --to camera-1 --out unusual        the frames that camera-1 found most unusual, to sort and train on")]
pub struct Boards {
    #[command(subcommand)]
    command: Command,
    /// Folder of profiles of your own, .toml files; one of a known name replaces it
    #[arg(long, global = true, value_name = "DIR", env = "EXCON_PROFILES", hide_env_values = true)]
    profiles: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the kinds of boards
    List,
    /// Writes a profile to stdout
    Profile {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Asks boards what they run and how they are; exit code 1 when one is not well
    Status {
        #[command(flatten)]
        reach: Reach,
        /// Folder in which `watch` keeps its monitor there [default: ROOT/state]
        #[arg(long, value_name = "DIR")]
        state: Option<String>,
    },
    /// Brings the unusual frames that boards kept (`watch --keep-unusual`) home, a folder a predicted class; what is here
    /// already is not sent again
    Collect {
        #[command(flatten)]
        reach: Reach,
        /// Folder of the kept frames there [default: ROOT/unusual]
        #[arg(long, value_name = "DIR")]
        folder: Option<String>,
        /// Where they go
        #[arg(long, value_name = "DIR", default_value = "unusual")]
        out: PathBuf,
    },
}

impl Boards {
    /// Runs the subcommand.
    pub fn run(&self, format: Format) -> Result<()> {
        let own = self.profiles.as_deref();
        match &self.command {
            Command::List => {
                let all: Vec<Profile> = profiles::all(own)?.into_iter().map(|(p, _)| p).collect();
                list(&all, format)
            }
            Command::Profile { name } => {
                let (profile, text) = profiles::named(name, own)?;
                match format {
                    Format::Json => terminal::json(&profile),
                    Format::Human => terminal::out(&text),
                }
            }
            Command::Status { reach, state } => status(reach, state.as_deref(), format),
            Command::Collect { reach, folder, out } => bring(reach, folder.as_deref(), out, format),
        }
    }
}

fn list(all: &[Profile], format: Format) -> Result<()> {
    if format == Format::Json {
        return terminal::json(&json!({ "schema": "excon.boards/1", "profiles": all }));
    }
    let mut lines = vec![["", "chip", "memory GB", "GPU", "precisions", "DLA", "systems"].map(String::from).to_vec()];
    for p in all {
        let mark = |field: &str, text: String| if p.is_verified(field) { text } else { format!("{text}?") };
        let mut memory: Vec<u32> = p.modules.iter().map(|m| m.memory_gb).collect();
        memory.sort_unstable();
        memory.dedup();
        let memory: Vec<String> = memory.iter().map(u32::to_string).collect();
        let memory = if memory.is_empty() { String::new() } else { mark("module", memory.join(", ")) };
        let [cc, precisions, dla] = p.gpu.as_ref().map_or([const { String::new() }; 3], |g| {
            let dla = mark("gpu.dla", g.dla.to_string());
            [format!("sm {}", g.compute_capability), mark("gpu.precisions", g.precisions.join(" ")), dla]
        });
        let systems = match (p.releases.first(), p.releases.last()) {
            (Some(first), Some(last)) => format!("{} … {}", first.name, last.name.trim_start_matches("JetPack ")),
            _ => String::new(),
        };
        let chip = if p.soc.is_empty() { p.architecture.clone() } else { mark("soc", p.soc.clone()) };
        lines.push(vec![p.name.clone(), chip, memory, cc, precisions, dla, systems]);
    }
    terminal::table("lllllll", &lines)?;
    terminal::out(
        "\n? was not checked on such a board or in a source; `excon doctor --to BOARD` reads the board itself.\n",
    )?;
    terminal::next(&["excon boards profile NAME".into(), "excon flash FILE.excon --to user@host --board NAME".into()])
}

fn status(reach: &Reach, state: Option<&str>, format: Format) -> Result<()> {
    let boards = reach.boards()?;
    let answers = fleet::beside(&boards, |board| {
        let state = state.map_or_else(|| format!("{}/state", board.root), String::from);
        board.ask(&["status", "active", "--state", &state]).map(|(_, value)| value)
    });
    let well = |answer: &excon_boards::Result<Value>| answer.as_ref().is_ok_and(|v| trouble(v).is_none());
    let unwell = answers.iter().filter(|a| !well(a)).count();
    if format == Format::Json {
        let line = |(board, answer): (&excon_boards::remote::Board, &excon_boards::Result<Value>)| match answer {
            Ok(status) => json!({ "board": board.address, "well": well(answer), "status": status }),
            Err(e) => json!({ "board": board.address, "well": false, "error": e.to_string() }),
        };
        let lines: Vec<Value> = boards.iter().zip(&answers).map(line).collect();
        terminal::json(&json!({ "schema": "excon.fleet/1", "boards": lines }))?;
    } else {
        let head = ["", "model", "digest", "slot", "engine", "temperature", "frames", "accuracy", "state"];
        let mut lines = vec![head.map(String::from).to_vec()];
        for (board, answer) in boards.iter().zip(&answers) {
            let mut line = vec![board.address.clone()];
            match answer {
                Ok(value) => line.extend(cells(value)),
                Err(e) => {
                    line.extend([const { String::new() }; 7]);
                    line.push(e.to_string());
                }
            }
            lines.push(line);
        }
        terminal::table("llllllrll", &lines)?;
    }
    if unwell > 0 {
        return Err(match answers.into_iter().find_map(std::result::Result::err) {
            Some(e) => {
                Failure { code: e.exit_code(), message: format!("{unwell} of {} boards are not well", boards.len()) }
            }
            None => Failure::check(format!("{unwell} of {} boards are not well", boards.len())),
        });
    }
    Ok(())
}

/// One board after another: they write into the same folder.
fn bring(reach: &Reach, folder: Option<&str>, out: &Path, format: Format) -> Result<()> {
    let (mut lines, mut table, mut failed) = (Vec::new(), Vec::new(), None);
    for board in reach.boards()? {
        let progress = Progress::start("collect", 0);
        let collected = collect::collect(&board, folder, out, &mut |here, all| {
            progress.say(&format!("{}: {here} of {all} frames are here", board.address), false);
        });
        match collected {
            Ok(c) => {
                progress.finish(&format!("{}: {} new frames, {} were here", board.address, c.new, c.known));
                table.push(vec![board.address.clone(), c.new.to_string(), c.known.to_string(), String::new()]);
                lines.push(json!({ "board": board.address, "collected": c }));
            }
            Err(e) => {
                table.push(vec![board.address.clone(), String::new(), String::new(), e.to_string()]);
                lines.push(json!({ "board": board.address, "error": e.to_string() }));
                failed = Some(e);
            }
        }
    }
    if format == Format::Json {
        terminal::json(&json!({ "schema": "excon.collected/1", "out": out, "boards": lines }))?;
    } else {
        table.insert(0, ["", "new", "here before", ""].map(String::from).to_vec());
        terminal::table("lrrl", &table)?;
    }
    match failed {
        Some(e) => Err(Failure { code: e.exit_code(), message: e.to_string() }),
        None if format == Format::Json => Ok(()),
        None => terminal::next(&[
            format!("sort {}: its folders are what was predicted, not what is true", out.display()),
            "excon train --data PHOTOS --out RUN, with these among the photographs".into(),
        ]),
    }
}

/// What is wrong with a board that answered.
fn trouble(status: &Value) -> Option<String> {
    if status["installed"]["active"].is_null() {
        return Some(format!("nothing runs: {}", status["installed"]["last"].as_str().unwrap_or("nothing installed")));
    }
    let alarm = &status["monitor"]["alarm"];
    (!alarm.is_null()).then(|| format!("shift since frame {}", alarm["raw_frame"]))
}

/// Model, digest, slot, engine, temperature, frames, estimated accuracy and state.
fn cells(status: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let (manifest, installed) = (&status["manifest"], &status["installed"]);
    let trial = &installed["trial"];
    let state = match trouble(status) {
        Some(trouble) => trouble,
        None if !trial.is_null() => format!("on trial, {} of {}", trial["passed"], trial["needed"]),
        None if status["monitor"].is_null() => "committed, not watched".into(),
        None => "healthy".into(),
    };
    let model =
        if manifest.is_null() { String::new() } else { format!("{} {}", text(&manifest["name"]), manifest["version"]) };
    let temperature = manifest["calibration"]["temperature"].as_f64().map_or(String::new(), |t| format!("{t:.3}"));
    let frames = status["monitor"]["raw_frames"].as_u64().map_or(String::new(), |n| terminal::grouped(n as usize));
    let digest = text(&status["digest"]).chars().take(12).collect();
    let accuracy = &status["monitor"]["accuracy"];
    let share = |bound: &str| accuracy[bound].as_f64().map(|v| format!("{:.0}", 100.0 * v));
    let accuracy = match (share("value"), share("low"), share("high")) {
        (Some(value), Some(low), Some(high)) => format!("{value} % ({low} to {high})"),
        _ if accuracy["status"] == "abstain" => "abstains".into(),
        // An older program on the board, or nothing watched.
        _ => String::new(),
    };
    vec![model, digest, text(&installed["active"]), text(&status["engine"]), temperature, frames, accuracy, state]
}
