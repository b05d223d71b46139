//! The flags of the monitor, the same for `watch` and `serve`. What they set is kept with the monitor's state.

use excon_edge::session::Overrides;
use excon_edge::shift::Family;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Monitor")]
pub struct MonitorArgs {
    /// Keep the monitor in this folder and continue from it
    #[arg(long, value_name = "DIR", env = "EXCON_STATE")]
    pub state: Option<PathBuf>,
    /// Declare the frames independent of each other, as photographs are and frames of a video are not
    #[arg(long)]
    independent: bool,
    /// Also run one effective frame in K masked, for the consistency checks; 0 never [default: the bundle's]
    #[arg(long, value_name = "K")]
    masked_every: Option<usize>,
    /// Promise at least N effective frames between false alarms [default: the bundle's]
    #[arg(long, value_name = "N", value_parser = mean_time)]
    mean_time: Option<f64>,
    /// Call a frame that takes longer `slow` [default: no limit]
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    latency_budget_ms: Option<f64>,
    /// Let a family give a notice instead of an alarm: network-unsure, input-changed, explanation-inconsistent; may be
    /// given several times, `none` takes all back
    #[arg(long, value_name = "FAMILY", value_parser = family)]
    notice: Vec<Notice>,
    /// Let an alarm end by itself after so many frames, seen or left out; 0 never [default: only when acknowledged]
    #[arg(long, value_name = "FRAMES")]
    recover_after: Option<u64>,
}

/// A family to be turned to notice, or none.
#[derive(Debug, Clone, Copy)]
struct Notice(Option<Family>);

impl MonitorArgs {
    /// What was given.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            mean_time: self.mean_time,
            masked_every: self.masked_every,
            independent: self.independent,
            latency_budget_ms: self.latency_budget_ms,
            notices: (!self.notice.is_empty()).then(|| self.notice.iter().filter_map(|n| n.0).collect()),
            recovery: self.recover_after,
        }
    }
}

fn mean_time(text: &str) -> Result<f64, String> {
    let value: f64 = text.replace([',', '_'], "").parse().map_err(|_| "give a number of frames".to_string())?;
    if value.is_finite() && value > 1.0 { Ok(value) } else { Err("give a number above 1".into()) }
}

/// A time in milliseconds, up to ten minutes.
pub fn milliseconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number of milliseconds".to_string())?;
    if (0.0..=600_000.0).contains(&value) { Ok(value) } else { Err("give 0 to 600,000 milliseconds".into()) }
}

fn family(text: &str) -> Result<Notice, String> {
    let named = |family: &Family| family.words().replace(' ', "-");
    if text == "none" {
        return Ok(Notice(None));
    }
    let found = Family::ALL.into_iter().find(|f| named(f) == text);
    let names = || Family::ALL.iter().map(named).collect::<Vec<_>>().join(", ");
    found.map(|f| Notice(Some(f))).ok_or_else(|| format!("give one of {}, or none", names()))
}
