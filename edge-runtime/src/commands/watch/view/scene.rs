//! What the live view shows, as lines of text: picture and map in half-blocks on the left, figures on the right.

use super::super::super::output::{BAD, BOLD, GOOD, WATCH, percent, power};
use super::super::{Counts, named};
use anstyle::{Ansi256Color, Color, RgbColor, Style};
use excon_edge::accuracy::{Accuracy, Change};
use excon_edge::image::{Picture, Window, resample};
use excon_edge::shift::{Channel, ChannelReading, Likeness, Observation, State};
use std::fmt::Write as _;
use std::time::Duration;

/// Columns that the figures need beside the pictures.
const PANEL: usize = 44;
/// Rows below which there are no pictures.
const SHORT: usize = 10;
/// Largest side of a drawn picture, pixels: beyond it cells cost more than they show.
const LARGEST: usize = 96;
/// Cells of a bar.
const BAR: usize = 16;

/// Colours that the terminal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// 24 bits.
    True,
    /// 256 colours.
    Palette,
}

impl Depth {
    /// By the variables that terminals set; none of one with fewer.
    pub fn of(term: &str, colorterm: &str) -> Option<Self> {
        if matches!(colorterm, "truecolor" | "24bit") || term.ends_with("-direct") {
            return Some(Self::True);
        }
        term.contains("256color").then_some(Self::Palette)
    }

    fn colour(self, [r, g, b]: [u8; 3]) -> Color {
        match self {
            Self::True => RgbColor(r, g, b).into(),
            Self::Palette => Ansi256Color(palette(r, g, b)).into(),
        }
    }
}

/// The nearest of the 216 colours and 24 greys.
fn palette(r: u8, g: u8, b: u8) -> u8 {
    let level = |v: u8| if v < 48 { 0 } else { (usize::from(v.max(75)) - 35) / 40 };
    const LEVELS: [i32; 6] = [0, 95, 135, 175, 215, 255];
    let (cube, mean) = ([level(r), level(g), level(b)], (i32::from(r) + i32::from(g) + i32::from(b)) / 3);
    let grey = ((mean - 3) / 10).clamp(0, 23);
    let off =
        |of: [i32; 3]| -> i32 { [r, g, b].iter().zip(of).map(|(&v, w)| (i32::from(v) - w) * (i32::from(v) - w)).sum() };
    if off([8 + 10 * grey; 3]) < off(cube.map(|l| LEVELS[l])) {
        return 232 + grey as u8;
    }
    (16 + 36 * cube[0] + 6 * cube[1] + cube[2]) as u8
}

/// The latest frame and what is known with it.
pub struct Scene {
    pub name: String,
    /// At network size.
    pub picture: Picture,
    /// The map over the grey picture.
    pub map: Picture,
    pub label: String,
    pub confidence: f64,
    pub abstains: bool,
    pub observation: Observation,
    /// What the alarm that stands looks like.
    pub looks_like: Vec<Likeness>,
    pub guarantee: bool,
    pub accuracy: Accuracy,
    /// From the start of decoding to the prediction.
    pub took: Duration,
    /// From the frame's arrival to the end.
    pub behind: Duration,
    /// Frames a second.
    pub rate: Option<f64>,
    pub counts: Counts,
}

/// A line in parts, each in its style.
type Line = Vec<(Style, String)>;

const PLAIN: Style = Style::new();
const SOFT: Style = Style::new().dimmed();

/// The lines of a window of so many columns and rows; never more, and none wider.
pub fn draw(title: &str, scene: Option<&Scene>, said: &[&str], depth: Depth, size: (u16, u16)) -> Vec<String> {
    let (columns, rows) = (usize::from(size.0), usize::from(size.1));
    let Some(scene) = scene else {
        let mut lines = vec![vec![(BOLD, title.to_string())], vec![(PLAIN, "waiting for the first frame".into())]];
        lines.extend(said.iter().map(|line| vec![(SOFT, line.to_string())]));
        lines.truncate(rows);
        return lines.iter().map(|line| fitted(line, columns)).collect();
    };
    // Two pictures one above the other, a row of cells holding two rows of pixels.
    let side = (2 * (rows / 2)).min(columns.saturating_sub(PANEL + 2)).min(LARGEST) & !1;
    let pictures = if rows >= SHORT && side >= 8 {
        [half_blocks(&scene.picture, side, depth), half_blocks(&scene.map, side, depth)].concat()
    } else {
        Vec::new()
    };
    let width = if pictures.is_empty() { columns } else { columns - side - 2 };
    let figures = figures(title, scene, said, rows);
    let count = figures.len().max(pictures.len()).min(rows);
    let row = |index: usize| {
        let text = figures.get(index).map_or(String::new(), |line| fitted(line, width));
        match (pictures.get(index), pictures.is_empty()) {
            (_, true) => text,
            (Some(cells), _) => format!("{cells}  {text}"),
            (None, _) => format!("{:1$}{text}", "", side + 2),
        }
    };
    (0..count).map(row).collect()
}

/// A picture of `side` × `side` pixels, two of them in each cell.
fn half_blocks(picture: &Picture, side: usize, depth: Depth) -> Vec<String> {
    let small = resample(picture, Window::whole(side, side));
    let rows: Vec<&[u8]> = small.rgb.chunks_exact(3 * side).collect();
    rows.chunks_exact(2)
        .map(|pair| {
            let mut text = String::new();
            for (upper, lower) in pair[0].chunks_exact(3).zip(pair[1].chunks_exact(3)) {
                let colour = |p: &[u8]| Some(depth.colour([p[0], p[1], p[2]]));
                let style = Style::new().fg_color(colour(upper)).bg_color(colour(lower));
                // Writing to a string cannot fail.
                let _ = write!(text, "{style}▀");
            }
            text + "\x1b[0m"
        })
        .collect()
}

fn figures(title: &str, scene: &Scene, said: &[&str], rows: usize) -> Vec<Line> {
    let Scene { observation: now, counts, .. } = scene;
    let plain = |text: String| vec![(PLAIN, text)];
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
    let rate = scene.rate.map_or(String::new(), |rate| format!(" · {rate:.1} a second"));
    let promise = if scene.guarantee { String::new() } else { " · no guarantee".into() };
    let mut lines = vec![
        vec![(BOLD, title.into())],
        state(now),
        vec![
            (PLAIN, format!("{:<12}{} ", "confidence", bar(scene.confidence))),
            (BOLD, scene.label.clone()),
            (PLAIN, format!(" {}{}", percent(scene.confidence), if scene.abstains { " · does not know" } else { "" })),
        ],
        accuracy(&scene.accuracy),
        plain(format!(
            "{:<12}{} {} of {}{promise}",
            "evidence",
            bar(now.log_r / now.log_limit),
            power(now.log_r),
            power(now.log_limit)
        )),
        plain(format!("{:<12}{} · {} effective{rate}", "frames", now.raw_frames, now.effective_frames)),
        plain(format!("{:<12}{} · {} after it came", "latency", milliseconds(scene.took), milliseconds(scene.behind))),
        plain(format!("{:<12}{} dropped · {} late", "left out", counts.dropped, counts.late)),
        vec![(SOFT, format!("{:<12}{}", "frame", scene.name))],
    ];
    if let Some(looks) = Likeness::words(&scene.looks_like) {
        lines.insert(2, plain(format!("{:<12}{looks}", "looks like")));
    }
    // What is left is shared by the checks and what was said, the newest last.
    let left = rows.saturating_sub(lines.len() + 1);
    let said = &said[said.len().saturating_sub((left / 3).min(said.len()))..];
    let mut readings: Vec<&ChannelReading> = now.channels.iter().collect();
    readings.sort_by(|a, b| b.log_r.total_cmp(&a.log_r));
    readings.truncate(left.saturating_sub(said.len() + 1));
    if !readings.is_empty() {
        lines.push(Vec::new());
        lines.extend(readings.into_iter().map(|reading| check(reading, now.log_limit)));
    }
    if !said.is_empty() {
        lines.push(Vec::new());
        lines.extend(said.iter().map(|line| vec![(SOFT, line.to_string())]));
    }
    lines.truncate(rows);
    lines
}

/// The state in a word, its colour, and why.
fn state(now: &Observation) -> Line {
    let style = match now.state {
        State::Healthy => GOOD,
        State::Watching | State::Slow => WATCH,
        State::Shift | State::SensorFault | State::EngineFault => BAD,
    };
    let why = match (now.fault, &now.alarm) {
        (Some(fault), _) => fault.words().to_string(),
        (None, Some(alarm)) => format!("since frame {}: {}", alarm.raw_frame, named(alarm)),
        (None, None) => String::new(),
    };
    vec![(style, format!("{:<12}", now.state.words())), (PLAIN, why)]
}

/// Accuracy now: a bar with the interval in it, and words.
fn accuracy(accuracy: &Accuracy) -> Line {
    let words = accuracy.words();
    let text = match accuracy.estimate() {
        Some(estimate) => format!("{:<12}{} {words}", "accuracy", bar(estimate.value)),
        None => format!("{:<12}{words}", "accuracy"),
    };
    let fell = accuracy.estimate().is_some_and(|e| e.change == Some(Change::Lower));
    vec![(if fell { WATCH } else { PLAIN }, text)]
}

fn check(reading: &ChannelReading, limit: f64) -> Line {
    let ChannelReading { channel, weight, log_r, .. } = reading;
    let style = if *weight == 0.0 { SOFT } else { PLAIN };
    let name = Channel::name(*channel);
    vec![(style, format!("{} {:>7}  {name}", bar(log_r / limit), power(*log_r)))]
}

/// A share in 0..1 as a bar; what is not a number is none.
fn bar(share: f64) -> String {
    let filled = (share.clamp(0.0, 1.0) * BAR as f64).round() as usize;
    (0..BAR).map(|cell| if cell < filled { '█' } else { '░' }).collect()
}

/// The line cut to a width, without control characters that names may bring in.
fn fitted(line: &Line, width: usize) -> String {
    let mut left = width;
    let mut text = String::new();
    for (style, part) in line {
        let part: String = part.chars().take(left).map(|c| if c.is_control() { '?' } else { c }).collect();
        left -= part.chars().count();
        // Writing to a string cannot fail.
        let _ = write!(text, "{style}{part}{style:#}");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use excon_edge::accuracy::AccuracyEstimate;
    use excon_edge::shift::{Alarm, Family, Look};

    fn scene() -> Scene {
        let reading = |channel: Channel, weight, log10: f64| ChannelReading {
            channel,
            family: channel.family(),
            weight,
            p: None,
            log_r: log10 * std::f64::consts::LN_10,
            share: 0.0,
        };
        let log = |log10: f64| log10 * std::f64::consts::LN_10;
        // Red above blue, four pixels each.
        let picture =
            Picture { width: 2, height: 2, rgb: [[255, 0, 0], [255, 0, 0], [0, 0, 255], [0, 0, 255]].concat() };
        Scene {
            name: "stdin#41\x1b[2J".into(),
            map: picture.clone(),
            picture,
            label: "cup".into(),
            confidence: 0.75,
            abstains: false,
            looks_like: vec![Likeness { look: Look::Dark, share: 0.93 }],
            observation: Observation {
                state: State::Shift,
                log_r: log(6.5),
                log_limit: log(6.0),
                effective_frames: 21,
                raw_frames: 41,
                kept: true,
                fault: None,
                channels: vec![
                    reading(Channel::Cosine, 0.1, 0.5),
                    reading(Channel::LumaMean, 0.1, 3.0),
                    reading(Channel::CamEntropy, 0.0, f64::NEG_INFINITY),
                ],
                alarm: Some(Alarm {
                    family: Family::InputChanged,
                    channels: vec![Channel::LumaMean],
                    frame: 20,
                    raw_frame: 40,
                }),
                notices: vec![],
                slow_drift: false,
                self_test_failed: None,
            },
            guarantee: false,
            accuracy: Accuracy::Estimate(AccuracyEstimate {
                value: 0.5,
                low: 0.441,
                high: 0.559,
                frames: 1_000,
                labelled: 0,
                healthy: Some(0.85),
                change: Some(Change::Lower),
                estimators: None,
                note: None,
            }),
            took: Duration::from_micros(1_250),
            behind: Duration::from_millis(20),
            rate: Some(29.94),
            counts: Counts { frames: 41, abstained: 0, dropped: 3, late: 1 },
        }
    }

    fn plain(lines: &[String]) -> Vec<String> {
        lines.iter().map(|l| anstream::adapter::strip_str(l).to_string().trim_end().to_string()).collect()
    }

    #[test]
    fn a_narrow_window_shows_the_figures() {
        let lines = draw("tiny version 3 on int8 · stdin", Some(&scene()), &["one", "two"], Depth::True, (50, 18));
        let expected = [
            "tiny version 3 on int8 · stdin",
            "shift       since frame 40: input changed: luma_me",
            "looks like  too dark (93 %)",
            "confidence  ████████████░░░░ cup 75.0 %",
            "accuracy    ████████░░░░░░░░ 50.0 % (44.1 to 55.9",
            "evidence    ████████████████ 10^6.5 of 10^6.0 · no",
            "frames      41 · 21 effective · 29.9 a second",
            "latency     1.2 ms · 20.0 ms after it came",
            "left out    3 dropped · 1 late",
            "frame       stdin#41?[2J",
            "",
            "████████░░░░░░░░  10^3.0  luma_mean",
            "█░░░░░░░░░░░░░░░  10^0.5  cosine",
            "░░░░░░░░░░░░░░░░       0  cam_entropy",
            "",
            "one",
            "two",
        ];
        assert_eq!(plain(&lines), expected);
    }

    #[test]
    fn a_wide_one_has_the_pictures_beside_them() {
        let lines = draw("tiny", Some(&scene()), &[], Depth::True, (80, 24));
        assert_eq!(lines.len(), 24, "12 rows of the picture, 12 of its map");
        let red_over_red = "\x1b[38;2;255;0;0m\x1b[48;2;255;0;0m▀";
        assert!(lines[0].starts_with(red_over_red), "{:?}", lines[0]);
        assert_eq!(lines[0].matches('▀').count(), 24);
        assert!(lines[11].contains("\x1b[38;2;0;0;255m\x1b[48;2;0;0;255m▀") && lines[12].starts_with(red_over_red));
        assert!(
            plain(&lines)[1].ends_with("  shift       since frame 40: input changed: luma_mean"),
            "{:?}",
            plain(&lines)[1]
        );
        let palette = draw("tiny", Some(&scene()), &[], Depth::Palette, (80, 24));
        assert!(palette[0].starts_with("\x1b[38;5;196m\x1b[48;5;196m▀"));
    }

    #[test]
    fn nothing_is_larger_than_the_window() {
        let said = ["something that was said and is rather long", "more"];
        for (columns, rows) in [(1, 1), (10, 3), (44, 9), (54, 10), (60, 11), (80, 24), (300, 90)] {
            for scene in [None, Some(&scene())] {
                let lines = draw("a title that is long", scene, &said, Depth::Palette, (columns, rows));
                assert!(lines.len() <= usize::from(rows));
                for line in plain(&lines) {
                    assert!(line.chars().count() <= usize::from(columns), "{columns}×{rows}: {line}");
                }
            }
        }
    }

    #[test]
    fn colours_are_the_terminals() {
        assert_eq!(Depth::of("xterm-256color", "truecolor"), Some(Depth::True));
        assert_eq!(Depth::of("screen-256color", ""), Some(Depth::Palette));
        assert_eq!((Depth::of("dumb", ""), Depth::of("linux", ""), Depth::of("", "")), (None, None, None));
        assert_eq!((palette(255, 255, 255), palette(0, 0, 0), palette(128, 128, 128)), (231, 16, 244));
        assert_eq!((palette(255, 0, 0), palette(0, 135, 255)), (196, 33));
    }
}
