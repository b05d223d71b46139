//! `excon data`: public data sets, fetched when asked and never otherwise.

use crate::failure::{Failure, Result};
use crate::terminal::{self, Format, Progress};
use clap::{Args, Subcommand};
use excon_train::fetch::{Checked, SETS, Set, Step};
use serde_json::json;
use std::path::PathBuf;

/// Lists, fetches and checks public data sets
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon data list
  excon data fetch cifar-10
  excon data fetch cifar-100 --from /media/stick/cifar-100-binary.tar.gz
  excon data check

Fetching goes on where it was interrupted, compares every file with the checksum its authors published, and lets only
a whole data set appear. Where none is published, that of the first download is recorded and held to from then on.
The data sets have their own terms of use.")]
pub struct Data {
    #[command(subcommand)]
    command: Command,
    /// Folder of the data sets
    #[arg(
        long,
        global = true,
        value_name = "FOLDER",
        default_value = "data",
        env = "EXCON_DATA_FOLDER",
        hide_env_values = true
    )]
    folder: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows the data sets and which are here
    List,
    /// Fetches a data set
    Fetch {
        /// Its name, as `excon data list` shows it
        #[arg(value_name = "NAME")]
        name: String,
        /// Another address of the archive, or an archive that is at hand
        #[arg(long, value_name = "URL|FILE")]
        from: Option<String>,
    },
    /// Compares data sets that are here with their checksums
    Check {
        /// Names; all that are here when none is given
        #[arg(value_name = "NAME")]
        names: Vec<String>,
    },
}

impl Data {
    /// Runs the subcommand.
    pub fn run(&self, format: Format) -> Result<()> {
        match &self.command {
            Command::List => self.list(format),
            Command::Fetch { name, from } => self.fetch(name, from.as_deref(), format),
            Command::Check { names } => self.check(names, format),
        }
    }

    fn list(&self, format: Format) -> Result<()> {
        let here = |set: &Set| Some(set.place(&self.folder)).filter(|place| place.is_dir());
        if format == Format::Json {
            let sets = SETS.map(|set| {
                json!({ "name": set.name, "about": set.about, "address": set.address, "download_bytes": set.download,
                    "folder": here(&set) })
            });
            return terminal::json(&json!({ "schema": "excon.data/1", "sets": sets }));
        }
        let line = |set: &Set| {
            let state = here(set).map_or(String::new(), |place| place.display().to_string());
            vec![set.name.to_string(), megabytes(set.download), set.about.to_string(), state]
        };
        let mut lines = vec![["", "download", "", "here"].map(String::from).to_vec()];
        lines.extend(SETS.iter().map(line));
        terminal::table("lrll", &lines)?;
        terminal::next(&["excon data fetch NAME".into()])
    }

    fn fetch(&self, name: &str, from: Option<&str>, format: Format) -> Result<()> {
        let set = Set::named(name)?;
        let progress = Progress::start("fetch", 0);
        progress.say(from.unwrap_or(set.address), true);
        let mut unpacking = false;
        let checked = set.fetch(&self.folder, from, &mut |step| match step {
            Step::Downloading(have, of) => {
                progress.units(of.unwrap_or(set.download));
                progress.at(have);
                progress.say(&format!("{} of {}", megabytes(have), megabytes(of.unwrap_or(set.download))), false);
            }
            Step::Unpacking(done, of) => {
                progress.units(of as u64);
                progress.at(done as u64);
                progress.say("unpacking and comparing", !std::mem::replace(&mut unpacking, true));
            }
        })?;
        progress.finish(&said(&checked));
        if format == Format::Json {
            return terminal::json(&json!({ "schema": "excon.data/1", "sets": [checked] }));
        }
        terminal::rows(&rows(set, &checked))?;
        let folder = checked.folder.display();
        terminal::next(&[match set.corrupted {
            true => format!("excon evaluate RUN --data {} --corrupted {folder}", clean(set, &self.folder)),
            false => format!("excon train --data {folder} --out runs/{name}"),
        }])
    }

    fn check(&self, names: &[String], format: Format) -> Result<()> {
        let wanted: Vec<&Set> = match names {
            [] => SETS.iter().filter(|set| set.place(&self.folder).is_dir()).collect(),
            names => names.iter().map(|name| Set::named(name)).collect::<std::result::Result<_, _>>()?,
        };
        let mut all = Vec::new();
        for set in wanted {
            let place = set.place(&self.folder);
            if !place.is_dir() {
                return Err(Failure::input(format!(
                    "{} is not there. Run: excon data fetch {}",
                    place.display(),
                    set.name
                )));
            }
            let progress = Progress::start("check", 1);
            progress.say(set.name, true);
            let checked = set.check(&place)?;
            progress.finish(&said(&checked));
            all.push((set, checked));
        }
        if format == Format::Json {
            let sets: Vec<&Checked> = all.iter().map(|(_, checked)| checked).collect();
            terminal::json(&json!({ "schema": "excon.data/1", "sets": sets }))?;
        } else if all.is_empty() {
            terminal::out(&format!("No data set is in {}.\n", self.folder.display()))?;
            terminal::next(&["excon data list".into()])?;
        } else {
            for (set, checked) in &all {
                terminal::heading(set.name)?;
                terminal::rows(&rows(set, checked))?;
            }
        }
        match all.iter().find(|(_, checked)| !checked.is_sound()) {
            Some((_, c)) => Err(Failure::check(format!("{}: {}", c.folder.display(), c.faults.join("; ")))),
            None => Ok(()),
        }
    }
}

/// Where the clean test pictures of a corrupted set lie, or would.
fn clean(set: &Set, below: &std::path::Path) -> String {
    let clean = SETS.iter().find(|s| Some(s.name) == set.name.strip_suffix("-c"));
    clean.map_or("PATH".into(), |s| s.place(below).display().to_string())
}

fn said(c: &Checked) -> String {
    if c.is_sound() {
        format!("{}, {} files as they should be", c.name, c.files)
    } else {
        format!("{}: NOT sound", c.name)
    }
}

/// What is known, and how well.
fn rows(set: &Set, c: &Checked) -> Vec<(&'static str, String)> {
    let listed = set.files.iter().filter(|f| f.md5.is_some()).count();
    let published = match listed {
        0 => "none; nobody has published any that we know".to_string(),
        n => format!("{} of {n} files match", c.published),
    };
    let recorded = match c.as_recorded {
        Some(true) => "all files match",
        Some(false) => "files differ from the first download",
        None => "no record: it was not fetched by this tool",
    };
    let mut rows = vec![
        ("folder", c.folder.display().to_string()),
        ("holds", format!("{} files, {}", c.files, megabytes(c.bytes))),
        ("published checksums", published),
        ("recorded at first download", recorded.to_string()),
    ];
    rows.extend(c.faults.iter().map(|fault| ("fault", fault.clone())));
    rows
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", (bytes as f64 / 1e6).round())
}
