//! `--view`: the watch in a terminal, drawn anew with each frame, and the terminal given back as it was.
//!
//! It needs a terminal with 256 colours or more; elsewhere the watch writes lines. The size is asked for each time, so a
//! resized window is right with the next frame. A thread of its own writes: a terminal that is slow, as one far away is,
//! sees fewer frames and never holds the watch up.

mod scene;

use super::super::output;
use super::{Counts, Taken};
use excon_edge::page;
use scene::{Depth, Scene};
use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use terminal_size::{Height, Width, terminal_size};

/// Time between two drawings, at least.
const DRAW_EVERY: Duration = Duration::from_millis(80);
/// Frames whose times give the rate.
const RATE_OVER: usize = 32;
/// What was said last, kept for tall windows.
const SAID: usize = 16;
/// Side of the map's drawing before it is reduced to cells, pixels.
const MAP_SIDE: usize = 96;

/// Around one drawing, for terminals that then show it at once.
const AT_ONCE: (&str, &str) = ("\x1b[?2026h", "\x1b[?2026l");
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// See the module's first paragraph.
pub struct View {
    title: String,
    depth: Depth,
    scene: Option<Scene>,
    said: VecDeque<String>,
    came: VecDeque<Instant>,
    drawn: Option<Instant>,
    /// Something is to be shown that is not drawn yet.
    stale: bool,
    size: (u16, u16),
    drawings: Option<SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
}

impl View {
    /// Takes the terminal; none where there is none that could show it, which is said.
    pub fn open(title: String) -> Option<Self> {
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        let colours =
            if variable("NO_COLOR").is_empty() { Depth::of(&variable("TERM"), &variable("COLORTERM")) } else { None };
        let Some(depth) = colours.filter(|_| io::stdout().is_terminal()) else {
            output::note("--view needs a terminal with 256 colours; lines instead");
            return None;
        };
        let _ = write(ENTER);
        let (drawings, waiting) = sync_channel::<String>(1);
        let work = move || waiting.into_iter().map_while(|text| write(&text).ok()).for_each(drop);
        let writer = std::thread::Builder::new().name("view".into()).spawn(work).ok();
        Some(Self {
            drawings: Some(drawings),
            writer,
            title,
            depth,
            scene: None,
            said: VecDeque::new(),
            came: VecDeque::new(),
            drawn: None,
            stale: true,
            size: (0, 0),
        })
    }

    /// A frame.
    pub fn frame(&mut self, taken: &Taken, counts: &Counts) -> io::Result<()> {
        if self.came.len() == RATE_OVER {
            self.came.pop_front();
        }
        self.came.push_back(Instant::now());
        self.scene = Some(self.scene_of(taken, counts));
        self.stale = true;
        self.tick()
    }

    /// The time between frames.
    pub fn tick(&mut self) -> io::Result<()> {
        let resized = size() != self.size;
        let rested = self.drawn.is_none_or(|drawn| drawn.elapsed() >= DRAW_EVERY);
        if rested && (self.stale || resized) { self.draw() } else { Ok(()) }
    }

    /// A line that stays for a while.
    pub fn say(&mut self, line: String) {
        if self.said.len() == SAID {
            self.said.pop_front();
        }
        self.said.push_back(anstream::adapter::strip_str(&line).to_string());
        self.stale = true;
    }

    fn scene_of(&self, taken: &Taken, counts: &Counts) -> Scene {
        let (_, map) = page::overlay(&page::enlarged(&taken.picture, MAP_SIDE), &taken.prediction.cam);
        let rate = self.came.front().zip(self.came.back()).map(|(first, last)| *last - *first);
        let rate = rate.filter(|time| !time.is_zero()).map(|time| (self.came.len() - 1) as f64 / time.as_secs_f64());
        Scene {
            name: taken.name.clone(),
            picture: taken.picture.clone(),
            map,
            label: taken.prediction.label.clone(),
            confidence: taken.prediction.confidence,
            abstains: taken.prediction.abstains,
            observation: taken.seen.observation.clone(),
            looks_like: taken.seen.looks_like.clone(),
            guarantee: taken.seen.guarantee,
            accuracy: taken.seen.accuracy.clone(),
            took: taken.took,
            behind: taken.behind,
            rate,
            counts: *counts,
        }
    }

    /// Hands a drawing to the writer, unless one waits there already; then the next tick does.
    fn draw(&mut self) -> io::Result<()> {
        let now = size();
        // What stood outside the smaller window would stay.
        let begin = if now == self.size { "\x1b[H" } else { "\x1b[2J\x1b[H" };
        let said: Vec<&str> = self.said.iter().map(String::as_str).collect();
        let lines = scene::draw(&self.title, self.scene.as_ref(), &said, self.depth, now);
        let lines = lines.join("\x1b[0m\x1b[K\r\n");
        let text = format!("{}{begin}{lines}\x1b[0m\x1b[K\x1b[J{}", AT_ONCE.0, AT_ONCE.1);
        match self.drawings.as_ref().map(|writer| writer.try_send(text)) {
            Some(Ok(())) => (self.drawn, self.stale, self.size) = (Some(Instant::now()), false, now),
            Some(Err(TrySendError::Full(_))) => self.drawn = Some(Instant::now()),
            Some(Err(TrySendError::Disconnected(_))) | None => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.drawings = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        let _ = write(LEAVE);
    }
}

/// Columns and rows.
fn size() -> (u16, u16) {
    terminal_size().map_or((80, 24), |(Width(columns), Height(rows))| (columns, rows))
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
