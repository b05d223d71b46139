//! Scales, ticks and axes shared by the charts. Coordinates are finite for every input.

use maud::{Markup, html};

/// How values of an axis are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// As they are.
    Plain,
    /// Whole numbers: no tick lies between two.
    Count,
    /// Fractions, written as per cent.
    Percent,
    /// Exponents of ten, written as powers.
    Power,
}

impl Unit {
    pub(super) fn write(self, value: f64, step: f64) -> String {
        let value = if value.abs() < step * 1e-9 { 0.0 } else { value };
        match self {
            Self::Plain => format!("{value:.*}", decimals(step)),
            Self::Count => format!("{value:.0}"),
            Self::Percent => format!("{:.*} %", decimals(step * 100.0), value * 100.0),
            Self::Power => power(value.round() as i64),
        }
    }
}

/// Ten to an exponent, in typographic form; the first two are written out.
pub(super) fn power(exponent: i64) -> String {
    if (0..=1).contains(&exponent) {
        return if exponent == 0 { "1".into() } else { "10".into() };
    }
    let written = exponent.to_string();
    let digits = written.chars().map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        d => char::from_u32('⁰' as u32 + d as u32 - '0' as u32).unwrap_or(d),
    });
    std::iter::once('1').chain(std::iter::once('0')).chain(digits).collect()
}

fn decimals(step: f64) -> usize {
    (-(step.abs().max(1e-12).log10() + 1e-9).floor()).clamp(0.0, 6.0) as usize
}

/// A linear map from values to pixels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub low: f64,
    pub high: f64,
    pub from: f64,
    pub to: f64,
}

impl Scale {
    /// Around the finite values; a constant gets room on both sides, no value at all gives 0..1.
    pub fn around(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for v in values.filter(|v| v.is_finite()) {
            // Beyond this the width of the range would overflow.
            let v = v.clamp(-1e100, 1e100);
            (low, high) = (low.min(v), high.max(v));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        } else if high - low <= 1e-9 * high.abs().max(low.abs()).max(1e-3) {
            let room = if low == 0.0 { 0.5 } else { 0.5 * low.abs() };
            (low, high) = (low - room, high + room);
        }
        Self { low, high, from, to }
    }

    /// Widens to multiples of the tick step.
    pub fn nice(mut self, ticks: usize) -> Self {
        let step = self.step(ticks);
        self.low = (self.low / step + 1e-9).floor() * step;
        self.high = (self.high / step - 1e-9).ceil() * step;
        self
    }

    pub fn step(&self, ticks: usize) -> f64 {
        let raw = (self.high - self.low) / ticks.max(1) as f64;
        let magnitude = 10f64.powf(raw.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * magnitude >= raw * 0.999).unwrap_or(10.0);
        nice * magnitude
    }

    pub fn ticks(&self, ticks: usize) -> (Vec<f64>, f64) {
        let step = self.step(ticks);
        let first = (self.low / step - 1e-6).ceil();
        let last = (self.high / step + 1e-6).floor();
        let count = ((last - first) as usize).min(50);
        ((0..=count).map(|i| (first + i as f64) * step).collect(), step)
    }

    /// Pixel of a value, clamped to the plot.
    pub fn at(&self, value: f64) -> f64 {
        let value = if value.is_nan() { self.low } else { value.clamp(self.low, self.high) };
        self.from + (value - self.low) / (self.high - self.low) * (self.to - self.from)
    }
}

/// A coordinate as text.
pub(super) fn px(value: f64) -> String {
    format!("{:.1}", if value.is_finite() { value } else { 0.0 })
}

/// A path through points, broken where a value is not finite. A lone point becomes a short stroke, so that it is seen.
pub(super) fn path(points: &[(f64, f64)], x: &Scale, y: &Scale) -> String {
    let mut d = String::new();
    let finite = |i: usize| points.get(i).is_some_and(|p| p.0.is_finite() && p.1.is_finite());
    for (i, p) in points.iter().enumerate().filter(|&(i, _)| finite(i)) {
        let starts = i == 0 || !finite(i - 1);
        d += &format!("{}{} {}", if starts { 'M' } else { 'L' }, px(x.at(p.0)), px(y.at(p.1)));
        if starts && !finite(i + 1) {
            d += "h0.1";
        }
    }
    d
}

/// Moves labels apart, so that neighbours are at least `gap` pixels from each other, within `low..high`.
pub(super) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|&a, &b| wanted[a].total_cmp(&wanted[b]));
    let mut out = wanted.to_vec();
    let mut floor = low;
    for &i in &order {
        out[i] = out[i].max(floor);
        floor = out[i] + gap;
    }
    let mut ceiling = high;
    for &i in order.iter().rev() {
        out[i] = out[i].min(ceiling);
        ceiling = out[i] - gap;
    }
    out
}

/// Grid, ticks and axis titles. The y title stands above the axis, horizontally, where it is read without turning.
pub(super) fn axes(x: &Scale, y: &Scale, titles: (&str, &str), units: (Unit, Unit), counts: (usize, usize)) -> Markup {
    let (xs, x_step) = ticks(x, units.0, counts.0);
    let (ys, y_step) = ticks(y, units.1, counts.1);
    html! {
        @for &v in &ys {
            line.grid x1=(px(x.from)) x2=(px(x.to)) y1=(px(y.at(v))) y2=(px(y.at(v))) {}
            text x=(px(x.from - 8.0)) y=(px(y.at(v) + 4.5)) text-anchor="end" { (units.1.write(v, y_step)) }
        }
        line.axis x1=(px(x.from)) x2=(px(x.to)) y1=(px(y.from)) y2=(px(y.from)) {}
        @for &v in &xs {
            line.axis x1=(px(x.at(v))) x2=(px(x.at(v))) y1=(px(y.from)) y2=(px(y.from + 4.0)) {}
            text x=(px(x.at(v))) y=(px(y.from + 20.0)) text-anchor="middle" { (units.0.write(v, x_step)) }
        }
        text x=(px(0.0)) y=(px(y.to - 14.0)) { (titles.1) }
        text x=(px(x.to)) y=(px(y.from + 40.0)) text-anchor="end" { (titles.0) }
    }
}

/// Ticks of an axis; where only whole numbers make sense, only those.
fn ticks(scale: &Scale, unit: Unit, wanted: usize) -> (Vec<f64>, f64) {
    let (mut ticks, step) = scale.ticks(wanted);
    if matches!(unit, Unit::Count | Unit::Power) {
        ticks.retain(|v| (v - v.round()).abs() < 1e-6);
    }
    (ticks, step)
}
