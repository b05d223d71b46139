//! What a watch says in lines: for programs every frame, for people the changes, and at the end a summary.

use super::super::output::{self, BAD, BOLD, Output, paint, percent, power};
use super::{Counts, Taken};
use excon_edge::accuracy::{Accuracy, BLOCK, Bounded, Change, Observed};
use excon_edge::keeper::{Keeper, Seen};
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
    accuracy: &'a Accuracy,
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
    accuracy: &'a Accuracy,
    labels: Option<&'a Observed>,
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
        accuracy: &taken.seen.accuracy,
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
    lines.extend(taken.news.iter().map(|news| format!("frame {:>6}  {name}  {news}", now.raw_frames)));
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

/// What a watch has said of accuracy: it speaks when a block of frames is full and what it says is another.
#[derive(Debug, Default)]
pub struct Told(Option<(Option<Change>, bool)>);

impl Told {
    /// What there is to say with a frame.
    pub fn news(&mut self, seen: &Seen) -> Option<String> {
        let (accuracy, alarm) = (&seen.accuracy, &seen.observation.alarm);
        let frames = accuracy.frames();
        if frames == 0 || !frames.is_multiple_of(BLOCK) {
            return None;
        }
        let says = (accuracy.estimate().and_then(|e| e.change), alarm.is_some());
        let known = self.0.replace(says) == Some(says);
        (!known).then(|| match alarm {
            Some(alarm) => accuracy.under(alarm),
            None => format!("accuracy {}", accuracy.words()),
        })
    }
}

/// What labelled frames show, in lines.
pub fn observed(labels: &Observed, promised: Option<f64>) -> Vec<String> {
    let share = |b: &Bounded| format!("{} ({} to {})", percent(b.value), percent(b.low), percent(b.high));
    let mut lines = vec![
        format!(
            "{} of {} frames labelled, {} answered rightly",
            labels.labelled,
            labels.remembered,
            share(&labels.accuracy)
        ),
        format!("confidence less accuracy {}", share(&labels.gap)),
    ];
    if let Some(coverage) = &labels.coverage {
        let promised = promised.map_or(String::new(), |p| format!(", {} promised", percent(p)));
        lines.push(format!("prediction sets hold the label {}{promised}", share(coverage)));
    }
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
        accuracy: &standing.accuracy,
        labels: standing.labels.as_ref(),
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
    output.text(format_args!("accuracy {}", standing.accuracy.words()))?;
    for line in standing.labels.iter().flat_map(|labels| observed(labels, keeper.promised_coverage())) {
        output.text(line)?;
    }
    if interrupted {
        output.text("interrupted before the last frame")?;
    }
    if let Some(alarm) = &now.alarm {
        let since = format!("alarm since frame {}:", alarm.raw_frame);
        output.text(format_args!("{} {}", paint(BAD, since), named(alarm)))?;
        if let Some(looks) = Likeness::words(&standing.looks_like) {
            output.text(format_args!("it looks like: {looks}"))?;
        }
        output.text(standing.accuracy.under(alarm))?;
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
