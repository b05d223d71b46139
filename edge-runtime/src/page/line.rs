//! Line chart of a few series, each labelled at its end instead of in a legend.

use super::empty;
use super::plot::{Scale, Unit, axes, path, px, spread};
use maud::{Markup, html};

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// Label at the line's end.
    pub name: String,
    /// Points in order of x; those that are not finite interrupt the line.
    pub points: Vec<(f64, f64)>,
}

/// A line chart.
#[derive(Debug, Clone)]
pub struct LineChart<'a> {
    /// What the chart shows, for readers who cannot see it.
    pub description: &'a str,
    /// Title of the horizontal axis, which counts: epochs, frames.
    pub x: &'a str,
    /// Title of the vertical axis, with unit.
    pub y: &'a str,
    /// How vertical values are written.
    pub unit: Unit,
    /// Fixed vertical range; otherwise around the data.
    pub range: Option<(f64, f64)>,
    /// At most six lines; more share colours.
    pub series: &'a [Series],
}

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 300.0;

/// Draws the chart at 460 × 300 units, scaled to the width it is given.
pub fn line_chart(chart: &LineChart) -> Markup {
    let finite =
        |s: &Series| s.points.iter().filter(|p| p.0.is_finite() && p.1.is_finite()).copied().collect::<Vec<_>>();
    let shown: Vec<_> =
        chart.series.iter().enumerate().map(|(i, s)| (i, s, finite(s))).filter(|s| !s.2.is_empty()).collect();
    if shown.is_empty() {
        return empty();
    }
    let longest = shown.iter().map(|s| s.1.name.chars().count()).max().unwrap_or(0);
    let right = WIDTH - 18.0 - (longest as f64 * 7.4).min(150.0);
    let points = || shown.iter().flat_map(|s| s.2.iter());
    let x = Scale::around(points().map(|p| p.0), 52.0, right);
    let y = match chart.range {
        Some((low, high)) => Scale::around([low, high].into_iter(), HEIGHT - 50.0, 32.0),
        None => Scale::around(points().map(|p| p.1), HEIGHT - 50.0, 32.0).nice(4),
    };
    let ends: Vec<(f64, f64)> = shown.iter().map(|s| s.2[s.2.len() - 1]).map(|p| (x.at(p.0), y.at(p.1))).collect();
    let labels = spread(&ends.iter().map(|p| p.1).collect::<Vec<_>>(), 17.0, y.to, y.from - 4.0);
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(chart.description) {
            (axes(&x, &y, (chart.x, chart.y), (Unit::Count, chart.unit), (5, 4)))
            @for ((i, series, _), (end, label)) in shown.iter().zip(ends.iter().zip(&labels)) {
                path class=(format!("trace c{}", i % 6 + 1)) d=(path(&series.points, &x, &y)) {}
                circle class=(format!("d{}", i % 6 + 1)) cx=(px(end.0)) cy=(px(end.1)) r="3.5" {}
                // Tells whose label it is where ends lie close together.
                line class=(format!("lead c{}", i % 6 + 1)) x1=(px(end.0 + 3.0)) y1=(px(end.1))
                    x2=(px(right + 8.0)) y2=(px(*label)) {}
                text.label x=(px(right + 10.0)) y=(px(label + 4.5)) { (series.name) }
            }
        }
    }
}
