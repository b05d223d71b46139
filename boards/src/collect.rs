//! Unusual frames brought home as a class folder to sort and to train on: `OUT/PREDICTED/BOARD-DIGEST.png`, and a line
//! about each in `OUT/collected.jsonl`.
//!
//! What is there already is not sent again, so a collection that was cut goes on where it was. A frame's bytes are held
//! to the digest that the board listed before they are written.

use crate::remote::Board;
use crate::{Error, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use excon_edge::file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Frames asked for in one go: what a cut may cost.
const AT_ONCE: usize = 8;
/// About each frame that was brought here.
pub const NOTES: &str = "collected.jsonl";

/// What a board says of a frame that it kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Its number on the board.
    pub number: u64,
    /// SHA-256 of its PNG file, lower-case hex.
    pub sha256: String,
    /// How unusual it was there.
    pub score: f64,
    /// The class that was predicted.
    pub predicted: String,
    /// The calibrated probability of that class.
    pub confidence: f64,
    /// When it came, RFC 3339.
    pub time: String,
    /// Its PNG file in base64, where it was asked for.
    #[serde(default, skip_serializing)]
    png: Option<String>,
}

/// A line of [`NOTES`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    file: PathBuf,
    board: String,
    #[serde(flatten)]
    frame: Frame,
}

/// What came of a collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Frames that were brought.
    pub new: usize,
    /// Frames that were here already.
    pub known: usize,
    /// Frames that the board dropped for more unusual ones meanwhile.
    pub gone: usize,
}

/// Brings what `board` keeps in `folder` (its slots' `unusual/` when there is none) to `out`. `progress` hears how many of
/// how many are here.
///
/// # Errors
/// [`Error::Unreachable`] and [`Error::Board`] as from [`Board::run`], also where what came is not what was listed;
/// [`Error::Edge`] when it cannot be written here. What has arrived is kept.
pub fn collect(
    board: &Board,
    folder: Option<&str>,
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Collected> {
    let listed = ask(board, folder, &[])?;
    let mut missing: Vec<&Frame> = Vec::new();
    for frame in &listed {
        if !out.join(place(board, frame)?).is_file() {
            missing.push(frame);
        }
    }
    let mut collected = Collected { known: listed.len() - missing.len(), ..Collected::default() };
    for part in missing.chunks(AT_ONCE) {
        let numbers: Vec<u64> = part.iter().map(|frame| frame.number).collect();
        let mut came = ask(board, folder, &numbers)?;
        came.retain(|frame| part.iter().any(|wanted| wanted.sha256 == frame.sha256));
        keep(board, &came, out)?;
        collected.new += came.len();
        collected.gone += part.len() - came.len();
        progress(collected.known + collected.new, listed.len());
    }
    Ok(collected)
}

/// The frames that a board keeps; with `numbers` those alone, with their bytes.
fn ask(board: &Board, folder: Option<&str>, numbers: &[u64]) -> Result<Vec<Frame>> {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    let mut arguments = vec!["unusual", "--format", "json"];
    arguments.extend(folder);
    if !numbers.is_empty() {
        arguments.push("--send");
        arguments.extend(numbers.iter().map(String::as_str));
    }
    let said = board.run(&arguments)?;
    let failed = |reason: &str, code| Error::Board { board: board.address.clone(), reason: reason.into(), code };
    if said.code != 0 {
        let reason = said.stderr.lines().last().unwrap_or("`excon-edge unusual` failed there").to_string();
        return Err(failed(reason.trim_start_matches("error: "), said.code));
    }
    let read = |line: &str| {
        serde_json::from_str(line).map_err(|e| failed(&format!("its list of frames is not understood: {e}"), 65))
    };
    said.stdout.lines().map(read).collect()
}

/// Writes frames, each whole, and then what is known of them.
fn keep(board: &Board, frames: &[Frame], out: &Path) -> Result<()> {
    let failed = |reason: &str| Error::Board { board: board.address.clone(), reason: reason.into(), code: 65 };
    let unwritable = |path: &Path, source| excon_edge::Error::Write { path: path.into(), source };
    let notes = out.join(NOTES);
    let mut lines: BTreeMap<PathBuf, String> = BTreeMap::new();
    for line in std::fs::read_to_string(&notes).unwrap_or_default().lines() {
        if let Ok(note) = serde_json::from_str::<Note>(line) {
            lines.insert(note.file, line.into());
        }
    }
    let mut one = |frame: &Frame| -> Result<()> {
        let bytes = frame.png.as_ref().and_then(|png| STANDARD.decode(png).ok());
        let bytes = bytes.filter(|bytes| file::digest(bytes) == frame.sha256);
        let bytes = bytes.ok_or_else(|| failed("a frame came that is not the one it listed; collect again"))?;
        let place = place(board, frame)?;
        let path = out.join(&place);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|e| unwritable(folder, e))?;
        }
        file::replace(&path, &bytes)?;
        let note = Note { file: place.clone(), board: board.address.clone(), frame: frame.clone() };
        let line = serde_json::to_string(&note).map_err(|e| unwritable(&notes, std::io::Error::other(e)))?;
        lines.insert(place, line);
        Ok(())
    };
    // What came before one that is refused is kept, and noted.
    let kept = frames.iter().try_for_each(&mut one);
    if !lines.is_empty() {
        let text: String = lines.into_values().map(|line| line + "\n").collect();
        file::replace(&notes, text.as_bytes())?;
    }
    kept
}

/// Where a frame goes, below the folder: never elsewhere, whatever the board says.
fn place(board: &Board, frame: &Frame) -> Result<PathBuf> {
    let plain = |c: char| c.is_alphanumeric() || " -_".contains(c);
    let digest = frame.sha256.len() == 64 && frame.sha256.bytes().all(|b| b.is_ascii_hexdigit());
    let named = !frame.predicted.is_empty() && frame.predicted.chars().all(|c| plain(c) || c == '.');
    if !digest || !named || frame.predicted.starts_with('.') {
        let reason = format!("its frame {} has a class or a digest that is no name for a file here", frame.number);
        return Err(Error::Board { board: board.address.clone(), reason, code: 65 });
    }
    let host = board.address.rsplit('@').next().unwrap_or_default();
    let host: String = host.chars().map(|c| if plain(c) { c } else { '-' }).collect();
    Ok(Path::new(&frame.predicted).join(format!("{host}-{}.png", &frame.sha256[..16])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(predicted: &str) -> Frame {
        Frame {
            number: 3,
            sha256: file::digest(b"png"),
            score: 2.0,
            predicted: predicted.into(),
            confidence: 0.5,
            time: String::new(),
            png: Some(STANDARD.encode(b"png")),
        }
    }

    #[test]
    fn a_board_decides_no_path_outside_the_folder() {
        let board = Board::at("pi@camera-1.local").unwrap();
        for name in ["../up", "/etc", "a/b", "", ".hidden", "..", "a\0b"] {
            assert!(place(&board, &frame(name)).is_err(), "{name:?}");
        }
        let good = place(&board, &frame("traffic light")).unwrap();
        assert_eq!(good.parent().unwrap(), Path::new("traffic light"));
        assert!(good.file_name().unwrap().to_str().unwrap().starts_with("camera-1-local-"));
    }

    #[test]
    fn a_frame_is_kept_once_and_only_as_it_was_listed() {
        let (board, folder) = (Board::at("camera-1").unwrap(), tempfile::tempdir().unwrap());
        for _ in 0..2 {
            keep(&board, &[frame("cup")], folder.path()).unwrap();
        }
        let notes = std::fs::read_to_string(folder.path().join(NOTES)).unwrap();
        assert_eq!(notes.lines().count(), 1);
        assert!(!notes.contains("png\":"), "the bytes are in the picture alone: {notes}");
        let other = Frame { png: Some(STANDARD.encode(b"other")), ..frame("jar") };
        assert_eq!(keep(&board, &[other], folder.path()).unwrap_err().exit_code(), 65);
        assert!(!folder.path().join("jar").exists());
    }
}
