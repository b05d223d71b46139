//! Shift timeline: evidence of each family and of the merged detector against the alarm's threshold, over phases.

use super::empty;
use super::plot::{Scale, Unit, axes, path, power, px, spread};
use maud::{Markup, html};

/// A stretch of the stream, labelled above the plot.
#[derive(Debug, Clone)]
pub struct Phase {
    /// Name such as `fog`.
    pub name: String,
    /// First frame, from 1.
    pub first: usize,
    /// Last frame, inclusive.
    pub last: usize,
}

/// Evidence over time.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Label at its end.
    pub name: String,
    /// `log10` of the evidence after each frame; not finite where there is none.
    pub log10: Vec<f64>,
    /// The merged trace, drawn stronger.
    pub merged: bool,
}

/// An alarm.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// Frame at which it rang, from 1.
    pub frame: usize,
    /// What it named.
    pub label: String,
}

/// A timeline.
#[derive(Debug, Clone)]
pub struct Timeline<'a> {
    /// Stretches of the stream.
    pub phases: &'a [Phase],
    /// Merged evidence and one trace a family.
    pub traces: &'a [Trace],
    /// `log10` of the alarm's threshold.
    pub threshold: f64,
    /// Alarms that rang.
    pub alarms: &'a [Alarm],
}

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 390.0;
/// Top of the phase bands: their names stand above it, the alarms' labels below.
const TOP: f64 = 26.0;
/// Evidence below this is drawn here: 0.1 says as little as none.
const FLOOR: f64 = -1.0;

/// Draws the timeline at 940 × 390 units; on a phone it scrolls sideways.
pub fn timeline(chart: &Timeline) -> Markup {
    let frames = chart.traces.iter().map(|t| t.log10.len()).max().unwrap_or(0);
    if frames == 0 {
        return empty();
    }
    let clip = |v: f64| if v.is_nan() { v } else { v.clamp(FLOOR, 300.0) };
    let evidence = chart.traces.iter().flat_map(|t| t.log10.iter().map(|&v| clip(v)));
    let threshold = if chart.threshold.is_finite() { chart.threshold } else { 0.0 };
    let x = Scale { low: 1.0, high: frames.max(2) as f64, from: 46.0, to: WIDTH - 168.0 };
    let y = Scale::around(evidence.chain([FLOOR, threshold + 1.0]), HEIGHT - 50.0, 92.0).nice(6);
    let scaled = |t: &Trace| -> Vec<(f64, f64)> {
        t.log10.iter().enumerate().map(|(i, &v)| ((i + 1) as f64, clip(v))).collect()
    };
    let last = |t: &Trace| t.log10.iter().rev().copied().find(|v| !v.is_nan()).map_or(FLOOR, clip);
    let labels = spread(&chart.traces.iter().map(|t| y.at(last(t))).collect::<Vec<_>>(), 17.0, y.to, y.from - 4.0);
    let rows = alarm_rows(chart.alarms, &x);
    html! {
        div.scroll {
            svg.chart.wide viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                aria-label=(format!("Evidence of a shift over {frames} frames; {} alarms", chart.alarms.len())) {
                @for (i, phase) in chart.phases.iter().enumerate() {
                    @let (left, right) = (x.at(phase.first as f64 - 0.5), x.at(phase.last as f64 + 0.5));
                    @if i % 2 == 1 {
                        rect.band x=(px(left)) width=(px(right - left)) y=(px(TOP)) height=(px(y.from - TOP)) {}
                    }
                    text.strong x=(px(left + 2.0)) y=(px(TOP - 8.0)) { (phase.name) }
                }
                (axes(&x, &y, ("frame", ""), (Unit::Count, Unit::Power), (8, 6)))
                text x="0" y=(px(y.to - 14.0)) { "evidence, log scale" }
                line.limit x1=(px(x.from)) x2=(px(x.to)) y1=(px(y.at(threshold))) y2=(px(y.at(threshold))) {}
                text.label.halo x=(px(x.from + 6.0)) y=(px(y.at(threshold) - 6.0)) {
                    "alarm at " (power(threshold.round() as i64))
                }
                @for (i, trace) in chart.traces.iter().enumerate().rev() {
                    path class=(format!("trace c{}{}", i % 6 + 1, if trace.merged { " main" } else { "" }))
                        d=(path(&scaled(trace), &x, &y)) {}
                }
                @for (alarm, row) in chart.alarms.iter().zip(&rows) {
                    @let at = x.at(alarm.frame as f64);
                    @let level = TOP + 18.0 + 16.0 * *row as f64;
                    line.alarm x1=(px(at)) x2=(px(at)) y1=(px(level - 12.0)) y2=(px(y.from)) {}
                    path.mark d=(format!("M{} {}l6 10h-12Z", px(at), px(y.at(threshold) - 6.0))) {}
                    text.label.halo x=(px(at + 5.0)) y=(px(level)) { (alarm.label) }
                }
                @for ((i, trace), label) in chart.traces.iter().enumerate().zip(&labels) {
                    circle class=(format!("d{}", i % 6 + 1)) cx=(px(x.to + 12.0)) cy=(px(*label)) r="4" {}
                    text.label.strong[trace.merged] x=(px(x.to + 21.0)) y=(px(label + 4.5)) { (trace.name) }
                }
            }
        }
    }
}

/// Rows for the alarms' labels, so that two close ones do not overlap: one of two rows each.
fn alarm_rows(alarms: &[Alarm], x: &Scale) -> Vec<usize> {
    let mut free = [f64::NEG_INFINITY; 2];
    let mut rows = Vec::with_capacity(alarms.len());
    for alarm in alarms {
        let at = x.at(alarm.frame as f64);
        let row = usize::from(at < free[0] && free[1] < free[0]);
        free[row] = at + 14.0 + 7.2 * alarm.label.chars().count() as f64;
        rows.push(row);
    }
    rows
}
