//! A running `excon-edge watch` for tests: what it is given on standard input, and its lines as they come.
#![allow(dead_code)]

use crate::tiny;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far more than anything takes; a test that needs it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn in_folder(test: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    tiny::writer(true, 150).seal(folder.path().join("tiny.excon")).unwrap();
    test(folder.path());
}

/// A picture as a PNG.
pub fn png(seed: u64, brightness: f32) -> Vec<u8> {
    tiny::png(&tiny::picture(seed, brightness))
}

/// A picture as a JPEG.
pub fn jpeg(seed: u64, brightness: f32) -> Vec<u8> {
    let picture = tiny::picture(seed, brightness);
    let (width, height) = (picture.width as u32, picture.height as u32);
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 95);
    encoder.encode(&picture.rgb, width, height, image::ExtendedColorType::Rgb8).unwrap();
    bytes
}

pub fn excon(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_excon-edge"));
    command.args(arguments).current_dir(folder);
    for name in ["EXCON_FORMAT", "EXCON_STATE", "EXCON_TOKEN", "EXCON_ADDR", "EXCON_ROOT", "NO_COLOR"] {
        command.env_remove(name);
    }
    command
}

/// A command that ends by itself: exit code, JSON lines, stderr.
pub fn done(folder: &Path, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let said = excon(folder, arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let lines = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    (said.status.code().unwrap_or(-1), lines, String::from_utf8(said.stderr).unwrap())
}

/// What a watch left.
pub struct Left {
    pub code: Option<i32>,
    /// A line a frame.
    pub frames: Vec<Value>,
    pub summary: Value,
    pub stderr: String,
}

/// A watch under way, killed when dropped.
pub struct Watch {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    seen: Vec<Value>,
    stderr: Receiver<String>,
    said: String,
}

impl Watch {
    /// `watch tiny.excon SOURCE …` with JSON lines.
    pub fn start(folder: &Path, source: &str, more: &[&str]) -> Self {
        let fixed = ["--format", "json", "watch", "tiny.excon", source];
        let mut child = excon(folder, &[&fixed[..], more].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (to_lines, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = to_lines.send(serde_json::from_str(&line).unwrap());
            }
        });
        let (to_stderr, stderr) = channel();
        let said = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            said.lines().map_while(Result::ok).for_each(|line| drop(to_stderr.send(line + "\n")))
        });
        Self { stdin: child.stdin.take(), child, lines, seen: Vec::new(), stderr, said: String::new() }
    }

    /// Onto its standard input, as far as it takes it.
    pub fn give(&mut self, bytes: &[u8]) {
        let _ = self.stdin.as_mut().unwrap().write_all(bytes);
    }

    /// Waits for frames; none more than those.
    pub fn frames(&mut self, count: usize) -> &[Value] {
        while self.seen.len() < count {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no frame {count}: {}", self.stderr()));
            self.seen.push(line);
        }
        &self.seen
    }

    /// Waits for a line on stderr that holds these words.
    pub fn says(&mut self, words: &str) -> String {
        loop {
            let line =
                self.stderr.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never says {words}: {}", self.said));
            self.said += &line;
            if line.contains(words) {
                return line;
            }
        }
    }

    fn stderr(&mut self) -> &str {
        while let Ok(line) = self.stderr.try_recv() {
            self.said += &line;
        }
        &self.said
    }

    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// Its end, with standard input closed.
    pub fn end(mut self) -> Left {
        drop(self.stdin.take());
        let code = self.child.wait().unwrap().code();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line);
        }
        while let Ok(line) = self.stderr.recv_timeout(PATIENCE) {
            self.said += &line;
        }
        let mut frames = std::mem::take(&mut self.seen);
        let summary = frames.pop_if(|l| l["schema"] == "excon.watch-summary/1").unwrap_or_default();
        assert!(frames.iter().all(|l| l["schema"] == "excon.watch/1"));
        Left { code, frames, summary, stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything a stream says up to its blank line.
pub fn head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}
