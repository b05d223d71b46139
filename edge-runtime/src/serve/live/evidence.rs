//! Evidence drawn: its history against the alarm's threshold, and each channel's against the same threshold.
//!
//! The drawing is stretched to the width there is, and all words stand outside it, so that they keep their size on a
//! phone.

use crate::serve::watcher::View;
use crate::shift::{ChannelReading, Family, Observation};
use maud::{Markup, html};
use std::fmt::Write as _;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 200.0;
/// Evidence below this is drawn here: 0.1 says as little as none.
const FLOOR: f64 = -1.0;

/// Log evidence as a power of ten.
fn log10(log: f64) -> f64 {
    log / std::f64::consts::LN_10
}

/// `10^3.2` with a raised exponent, `0` for none.
pub fn power(log: f64) -> Markup {
    html! { @if log == f64::NEG_INFINITY { "0" } @else { "10" sup { (trimmed(log10(log))) } } }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" { "0".into() } else { text.into() }
}

/// Merged evidence over the frames kept.
pub fn history(now: &Observation, view: &View) -> Markup {
    let points: Vec<f64> = view.evidence.iter().map(|&(_, log)| log10(log).max(FLOOR)).collect();
    let limit = log10(now.log_limit);
    let top = points.iter().copied().fold(limit + 0.8, f64::max);
    let y = |v: f64| HEIGHT * (1.0 - (v - FLOOR) / (top - FLOOR));
    let x = |i: usize| if points.len() > 1 { WIDTH * i as f64 / (points.len() - 1) as f64 } else { WIDTH };
    let mut line = String::new();
    for (i, &v) in points.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(line, "{}{:.1} {:.1}", if i == 0 { 'M' } else { 'L' }, x(i), y(v));
    }
    if points.len() == 1 {
        line = format!("M0 {:.1}L{WIDTH} {0:.1}", y(points[0]));
    }
    let share = |v: f64| format!("top:{:.1}%", 100.0 * y(v) / HEIGHT);
    let (first, last) = (view.evidence.front().map_or(0, |p| p.0), view.evidence.back().map_or(0, |p| p.0));
    html! {
        section {
            h2 { "Evidence of a shift" }
            p { "Averaged over the checks that may ring. Below the half-way line it says little; at the upper line the \
                 alarm rings and stays until someone answers." }
            @if points.is_empty() { p.empty { "No frame since the start." } } @else {
                figure {
                    div.plot {
                        svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                            aria-label=(format!("Evidence over {} frames, now 10 to the power of {:.1}", points.len(), log10(now.log_r).max(FLOOR))) {
                            path.area d=(format!("{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z")) {}
                            line.limit x1="0" x2=(WIDTH) y1=(format!("{:.1}", y(limit))) y2=(format!("{:.1}", y(limit))) {}
                            line.half x1="0" x2=(WIDTH) y1=(format!("{:.1}", y(limit / 2.0))) y2=(format!("{:.1}", y(limit / 2.0))) {}
                            path.evidence d=(line) {}
                        }
                        span style=(share(limit)) { "alarm at " (power(now.log_limit)) }
                        span style=(share(limit / 2.0)) { "watching from " (power(now.log_limit / 2.0)) }
                    }
                    div.ends { span { "frame " (super::grouped(first)) } span { "frame " (super::grouped(last)) } }
                }
            }
        }
    }
}

/// Every channel, by family, against the threshold.
pub fn channels(now: &Observation) -> Markup {
    let bar = |c: &ChannelReading| (100.0 * c.log_r / now.log_limit).clamp(0.0, 100.0);
    html! {
        section {
            h2 { "Each check" }
            p { "Evidence of one check alone, the full bar being the alarm's threshold. Checks of weight 0 are shown and \
                 ring nothing." }
            div.scroll {
                table.checks {
                    thead { tr { th scope="col" { "check" } th.number scope="col" { "evidence" } th {}
                        th.number scope="col" { "weight" } } }
                    tbody {
                        @for family in Family::ALL {
                            @let rows: Vec<_> = now.channels.iter().filter(|c| c.family == family).collect();
                            @if !rows.is_empty() {
                                tr.group { th colspan="4" scope="rowgroup" {
                                    (family.words())
                                    @if now.notices.contains(&family) { " · notice" }
                                } }
                            }
                            @for c in rows {
                                tr.idle[c.weight == 0.0] {
                                    td.name { (c.channel.name().replace('_', " ")) }
                                    td.number { (power(c.log_r)) }
                                    td.meter { span.none[bar(c) == 0.0] style=(format!("width:{:.1}%", bar(c))) {} }
                                    td.number {
                                        @if c.weight > 0.0 { (format!("{:.0} %", 100.0 * c.weight)) } @else { "0" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_written_as_a_power_of_ten() {
        let ten = std::f64::consts::LN_10;
        let texts = [f64::NEG_INFINITY, 0.0, 6.0 * ten, 3.25 * ten, -0.5 * ten, -0.01].map(|v| power(v).into_string());
        let raised = |e| format!("10<sup>{e}</sup>");
        assert_eq!(texts[0], "0");
        assert_eq!(texts[1..], ["0", "6", "3.2", "-0.5", "0"].map(raised));
    }
}
