//! What a watch says in lines: for programs every frame, for people the changes, and at the end a summary.

use super::super::output::{self, BAD, BOLD, Output, paint, power};
use super::{Counts, Taken};
use excon_edge::keeper::Keeper;
use excon_edge::shift::{Alarm, Channel, ChannelReading, Family, Likeness, Observation, Promise, State};
use serde::Serialize;
use std::io;

#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    picture: &'a str,
    label: &'a str,
    confidence: f64,
    abstains: bool,
    /// Frames left out before this one, because newer ones found no room.
    dropped: u64,
    /// Frames left out before this one, because they were older than the deadline.
    late: u64,
    /// What the alarm that stands looks like, the likeliest first.
    looks_like: &'a [Likeness],
    #[serde(flatten)]
    observation: &'a Observation,
}

#[derive(Serialize)]
struct Summary<'a> {
    schema: &'static str,
    frames: u64,
    abstained: u64,
    dropped: u64,
    late: u64,
    interrupted: bool,
    unreadable: u64,
    sensor_faults: u64,
    effective_frames: u64,
    log_r: f64,
    log_limit: f64,
    alarm: Option<&'a Alarm>,
    looks_like: &'a [Likeness],
    slow_drift: bool,
    self_test_failures: u64,
    channels: &'a [ChannelReading],
    promise: &'a Promise,
    state_file: Option<String>,
}

/// One frame.
pub fn frame(output: &mut Output, taken: &Taken, counts: &Counts, before: Option<&Observation>) -> io::Result<()> {
    let now = &taken.seen.observation;
    output.json(&Line {
        schema: "excon.watch/1",
        picture: &taken.name,
        label: &taken.prediction.label,
        confidence: taken.prediction.confidence,
        abstains: taken.prediction.abstains,
        dropped: counts.dropped,
        late: counts.late,
        looks_like: &taken.seen.looks_like,
        observation: now,
    })?;
    for line in changes(taken, before) {
        output.text(line)?;
    }
    Ok(())
}

/// What changed with a frame, in lines.
pub fn changes(taken: &Taken, before: Option<&Observation>) -> Vec<String> {
    let (now, name) = (&taken.seen.observation, &taken.name);
    let mut lines = Vec::new();
    if let Some(residual) = now.self_test_failed {
        let failed = paint(BAD, "self-test failed");
        lines.push(format!("frame {:>6}  {name}  {failed} {residual:.1e}", now.raw_frames));
    }
    if before.is_some_and(|b| b.state == now.state && b.fault == now.fault) {
        return lines;
    }
    let why = match (&now.alarm, now.fault, now.state) {
        (_, Some(fault), _) => fault.words().to_string(),
        (Some(alarm), _, _) => named(alarm),
        (_, _, State::Healthy) => String::new(),
        _ => format!("evidence {} of {}", power(now.log_r), power(now.log_limit)),
    };
    lines.push(format!("frame {:>6}  {name}  {} {why}", now.raw_frames, output::state(now.state)));
    lines
}

/// `input changed: luma_mean, saturation`.
pub fn named(alarm: &Alarm) -> String {
    let channels: Vec<&str> = alarm.channels.iter().map(|c| c.name()).collect();
    format!("{}: {}", alarm.family.words(), channels.join(", "))
}

/// The end. `next` is the command that answers an alarm, where the monitor is kept.
pub fn summary(
    output: &mut Output,
    keeper: &Keeper,
    counts: &Counts,
    interrupted: bool,
    last: Option<&Observation>,
    next: Option<&str>,
) -> io::Result<()> {
    let standing = keeper.standing();
    let now = &standing.observation;
    output.json(&Summary {
        schema: "excon.watch-summary/1",
        frames: counts.frames,
        abstained: counts.abstained,
        dropped: counts.dropped,
        late: counts.late,
        interrupted,
        unreadable: standing.unreadable,
        sensor_faults: standing.faults,
        effective_frames: now.effective_frames,
        log_r: now.log_r,
        log_limit: now.log_limit,
        alarm: now.alarm.as_ref(),
        looks_like: &standing.looks_like,
        slow_drift: last.is_some_and(|o| o.slow_drift),
        self_test_failures: keeper.with(|s| s.monitor.self_test_failures()),
        channels: last.map_or(&[], |o| &o.channels),
        promise: &standing.promise,
        state_file: keeper.with(|s| s.path().map(|p| p.display().to_string())),
    })?;
    if !output.human() {
        return Ok(());
    }
    output.text("")?;
    if let Some(last) = last {
        output.text(format_args!(
            "{} frames, {} effective so far; {} unreadable, {} with a sensor fault",
            counts.frames, last.effective_frames, standing.unreadable, standing.faults
        ))?;
        if counts.abstained > 0 {
            output.text(format_args!("{} without an answer: confidence too low", counts.abstained))?;
        }
        if counts.dropped + counts.late > 0 {
            let Counts { dropped, late, .. } = counts;
            output.text(format_args!("{dropped} dropped for newer ones, {late} too late"))?;
        }
        output.text(format_args!("{}  weight  evidence  share", paint(BOLD, format_args!("{:<30}", "check"))))?;
        for family in Family::ALL {
            output.text(family.words())?;
            for reading in last.channels.iter().filter(|c| c.family == family) {
                output.text(row(reading))?;
            }
        }
        if last.slow_drift {
            output.text("notice: the input drifts very slowly (outside the promise)")?;
        }
    } else {
        output.text("no new frames")?;
    }
    output.text(format_args!("evidence {} of {}", power(now.log_r), power(now.log_limit)))?;
    output.text(&standing.promise.sentence)?;
    if interrupted {
        output.text("interrupted before the last frame")?;
    }
    if let Some(alarm) = &now.alarm {
        let since = format!("alarm since frame {}:", alarm.raw_frame);
        output.text(format_args!("{} {}", paint(BAD, since), named(alarm)))?;
        if let Some(looks) = Likeness::words(&standing.looks_like) {
            output.text(format_args!("it looks like: {looks}"))?;
        }
        if let Some(next) = next {
            output.text(format_args!("next: {next}"))?;
        }
    }
    Ok(())
}

fn row(reading: &ChannelReading) -> String {
    let ChannelReading { channel, weight, log_r, share, .. } = reading;
    let shown = if *weight == 0.0 { "  shown only" } else { "" };
    format!("  {:<28}   {weight:.3}  {:>8}  {:>5.2}{shown}", Channel::name(*channel), power(*log_r), share)
}
