//! The flags of `watch` that say where frames come from and how they are taken.

use super::super::monitor::milliseconds;
use excon_edge::source::{Form, Limits, Options, RawFormat};
use std::time::Duration;

/// What a stream of bytes holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Input {
    /// Paths of JPEG and PNG files, one a line.
    List,
    /// JPEG or PNG pictures one after the other, with anything in between.
    Mjpeg,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Go on with frames that come into the folder later
    #[arg(long)]
    pub follow: bool,
    /// What standard input, file or pipe hold [default: what their first bytes look like]
    #[arg(long, value_name = "FORM", value_enum, conflicts_with = "raw")]
    input: Option<Input>,
    /// They hold raw frames, 8 bits a sample: WIDTHxHEIGHT with :rgb (default), :bgr or :gray
    #[arg(long, value_name = "FORMAT")]
    raw: Option<RawFormat>,
    /// Size to ask of a video device [default: its own]
    #[arg(long, value_name = "WxH", value_parser = size)]
    size: Option<(u32, u32)>,
    /// Ask a network camera or video device anew that says nothing for so long
    #[arg(long, value_name = "MS", default_value_t = 10_000.0, value_parser = milliseconds)]
    stall_ms: f64,
    /// Leave out frames of a live source that waited longer than this for their turn
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    deadline_ms: Option<f64>,
    /// Frames of a live source that may wait; the oldest goes when there is no room
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
    queue: u16,
    /// Take every frame of a live source too; whoever sends them waits
    #[arg(long, conflicts_with = "deadline_ms")]
    every_frame: bool,
}

impl SourceArgs {
    /// How the source is to be read.
    pub fn options(&self) -> Options {
        let named = self.input.map(|input| match input {
            Input::List => Form::List,
            Input::Mjpeg => Form::Pictures,
        });
        Options {
            follow: self.follow,
            form: self.raw.map(Form::Raw).or(named),
            size: self.size,
            stall: Duration::from_secs_f64(self.stall_ms / 1e3),
        }
    }

    /// What may wait for how long.
    pub fn limits(&self) -> Limits {
        Limits {
            depth: usize::from(self.queue),
            every: self.every_frame,
            deadline: self.deadline_ms.map(|ms| Duration::from_secs_f64(ms / 1e3)),
        }
    }
}

fn size(text: &str) -> Result<(u32, u32), String> {
    let sides = text.split_once(['x', 'X']).and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.filter(|&(w, h)| w > 0 && h > 0).ok_or_else(|| "give WIDTHxHEIGHT, as in 640x480".into())
}
