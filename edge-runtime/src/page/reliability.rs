//! Reliability diagram: accuracy against confidence, with the number of pictures of each bin.

use super::empty;
use super::plot::{Scale, Unit, axes, px};
use crate::probability::Bin;
use maud::{Markup, html};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 440.0;

/// One diagram: a bar a bin up to accuracy or confidence, whichever is less, and the gap to the other, in one colour
/// where the network is too sure and in another where it is not sure enough; the diagonal where both agree; the counts
/// below. `summary` stands in the plot, such as `ECE 4.2 %`.
pub fn reliability_diagram(title: &str, summary: &str, bins: &[Bin]) -> Markup {
    let usable = |b: &&Bin| b.count > 0 && [b.lower, b.upper, b.confidence, b.accuracy].iter().all(|v| v.is_finite());
    let shown: Vec<&Bin> = bins.iter().filter(usable).collect();
    if shown.is_empty() {
        return empty();
    }
    let unit = |from, to| Scale { low: 0.0, high: 1.0, from, to };
    let (x, y) = (unit(58.0, WIDTH - 10.0), unit(HEIGHT - 122.0, 32.0));
    let most = shown.iter().map(|b| b.count).max().unwrap_or(1) as f64;
    let base = HEIGHT - 8.0;
    let total: usize = shown.iter().map(|b| b.count).sum();
    let description = format!("{title}: accuracy against confidence over {total} pictures. {summary}");
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(description) {
            (axes(&x, &y, ("confidence", "accuracy"), (Unit::Percent, Unit::Percent), (5, 5)))
            @for b in &shown {
                @let (left, right) = (x.at(b.lower) + 1.0, x.at(b.upper) - 1.0);
                @let wide = px((right - left).max(1.0));
                @let (high, low) = (b.accuracy.max(b.confidence), b.accuracy.min(b.confidence));
                @let gap = if b.confidence > b.accuracy { "over" } else { "under" };
                rect.fill x=(px(left)) width=(wide) y=(px(y.at(low))) height=(px(y.from - y.at(low))) {}
                rect class=(gap) x=(px(left)) width=(wide) y=(px(y.at(high))) height=(px(y.at(low) - y.at(high))) {}
                @let tall = 34.0 * b.count as f64 / most;
                rect.count x=(px(left)) width=(wide) y=(px(base - tall)) height=(px(tall)) {}
                text.small x=(px((left + right) / 2.0)) y=(px(base - tall - 4.0)) text-anchor="middle" { (b.count) }
            }
            line.dash x1=(px(x.from)) y1=(px(y.from)) x2=(px(x.to)) y2=(px(y.to)) {}
            text x="0" y=(px(base - 2.0)) { "pictures" }
            text.strong.halo x=(px(x.from + 10.0)) y=(px(y.to + 18.0)) { (title) }
            text.label.halo x=(px(x.from + 10.0)) y=(px(y.to + 38.0)) { (summary) }
        }
    }
}
