//! Dot chart: a row for each thing compared, a dot for each run of it, the mean and the interval. Names
//! and means stand above the lines, where they are read on a phone too.

use super::empty;
use super::plot::{Scale, Unit, px};
use maud::{Markup, html};

/// One row.
#[derive(Debug, Clone)]
pub struct Dot {
    /// What it is; up to some forty characters fit.
    pub label: String,
    /// One value a run; those that are not finite are left out.
    pub values: Vec<f64>,
    /// Interval of the mean, drawn as a line.
    pub interval: Option<[f64; 2]>,
    /// The mean as it is to be read.
    pub text: String,
}

/// A dot chart. Rows keep their colour whether or not they have values, so that a page uses one colour for one thing.
#[derive(Debug, Clone)]
pub struct DotChart<'a> {
    /// What the chart shows, for readers who cannot see it.
    pub description: &'a str,
    /// Title above the chart, with unit.
    pub title: &'a str,
    /// How values are written.
    pub unit: Unit,
    /// The rows, from the top.
    pub rows: &'a [Dot],
}

const WIDTH: f64 = 460.0;
/// Height of a row: its words, and its line below them.
const ROW: f64 = 42.0;
/// Where the rows begin, below the title.
const TOP: f64 = 24.0;
/// Ends of the axis.
const SPAN: (f64, f64) = (12.0, WIDTH - 20.0);
/// Ticks of the axis, about.
const TICKS: usize = 3;

/// Draws the chart, 460 units wide and as high as its rows need. The axis need not begin at 0: dots show places, not
/// lengths.
pub fn dot_chart(chart: &DotChart) -> Markup {
    let finite = |dot: &Dot| dot.values.iter().copied().filter(|v| v.is_finite()).collect::<Vec<f64>>();
    let shown: Vec<(usize, &Dot, Vec<f64>)> =
        chart.rows.iter().enumerate().map(|(i, dot)| (i, dot, finite(dot))).filter(|row| !row.2.is_empty()).collect();
    if shown.is_empty() {
        return empty();
    }
    let bottom = TOP + shown.len() as f64 * ROW;
    let ends = |dot: &Dot| dot.interval.into_iter().flatten().collect::<Vec<f64>>();
    let all = shown.iter().flat_map(|(_, dot, values)| values.iter().copied().chain(ends(dot)));
    // Twice, because the first widening may change the step.
    let x = Scale::around(all, SPAN.0, SPAN.1).nice(TICKS).nice(TICKS);
    let (ticks, step) = x.ticks(TICKS);
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {}", px(bottom + 32.0))) role="img" aria-label=(chart.description) {
            @for &tick in &ticks {
                line.grid x1=(px(x.at(tick))) x2=(px(x.at(tick))) y1=(px(TOP)) y2=(px(bottom)) {}
                text x=(px(x.at(tick))) y=(px(bottom + 20.0)) text-anchor="middle" { (chart.unit.write(tick, step)) }
            }
            line.axis x1=(px(SPAN.0)) x2=(px(SPAN.1)) y1=(px(bottom)) y2=(px(bottom)) {}
            text x="0" y="13" { (chart.title) }
            @for (place, (i, dot, values)) in shown.iter().enumerate() {
                @let words = TOP + place as f64 * ROW + 17.0;
                @let y = words + 14.0;
                @let mean = values.iter().sum::<f64>() / values.len() as f64;
                @let (stroke, fill) = (format!("trace c{}", i % 6 + 1), format!("d{}", i % 6 + 1));
                text.label.halo x="0" y=(px(words)) { (dot.label) }
                @if let Some([low, high]) = dot.interval {
                    line class=(stroke) x1=(px(x.at(low))) x2=(px(x.at(high))) y1=(px(y)) y2=(px(y)) {}
                }
                @if values.len() > 1 {
                    @for &v in values { circle class=(format!("open {stroke}")) cx=(px(x.at(v))) cy=(px(y)) r="3.2" {} }
                    line class=(format!("{stroke} main")) x1=(px(x.at(mean))) x2=(px(x.at(mean)))
                        y1=(px(y - 8.0)) y2=(px(y + 8.0)) {}
                } @else {
                    circle class=(fill) cx=(px(x.at(mean))) cy=(px(y)) r="5" {}
                }
                text.label.halo x=(px(WIDTH)) y=(px(words)) text-anchor="end" { (dot.text) }
            }
        }
    }
}
