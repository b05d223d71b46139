//! The one style sheet, SVG charts and saliency overlays of every report and of the live page.
//!
//! A page is one self-contained HTML file: no scripts, no external assets, light and dark by preference, readable on a
//! phone and on paper. Everything given as text is escaped. Charts promise finite coordinates whatever the data: values
//! that are not finite are left out, and a chart without data says so.

mod badge;
mod bars;
mod dots;
mod line;
mod overlay;
mod plot;
mod reliability;
#[cfg(test)]
mod tests;
mod timeline;

pub use badge::{State, badge, swatch, verdict};
pub use bars::{Bar, Measure, bars};
pub use dots::{Dot, DotChart, dot_chart};
pub use line::{LineChart, Series, line_chart};
pub use overlay::{OVERLAY_STRENGTH, Tile, enlarged, overlay, png, png_data_uri, sheet, viridis};
pub use plot::Unit;
pub use reliability::reliability_diagram;
pub use timeline::{Alarm, Phase, Timeline, Trace, timeline};

use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet of every page.
pub const STYLE: &str = include_str!("style.css");

/// A figure big enough to be read first.
#[derive(Debug, Clone)]
pub struct KeyFigure {
    /// What is measured.
    pub name: String,
    /// The value with its unit.
    pub value: String,
    /// Samples behind it, or what it is compared with.
    pub note: String,
    /// Whether it carries the accent colour; at most one or two of a page do.
    pub lead: bool,
}

/// What stands below a figure: what to see, on how many samples, and the command that made it.
#[derive(Debug, Clone)]
pub struct Caption<'a> {
    /// One or two sentences on what to see.
    pub text: &'a str,
    /// Samples behind it, such as `431 test pictures`.
    pub samples: &'a str,
    /// The command that made it.
    pub command: &'a str,
}

/// A column of a [`table`].
#[derive(Debug, Clone, Copy)]
pub struct Column<'a> {
    /// Heading.
    pub title: &'a str,
    /// Numbers stand right-aligned.
    pub numeric: bool,
}

impl<'a> Column<'a> {
    /// A column of words.
    pub const fn text(title: &'a str) -> Self {
        Self { title, numeric: false }
    }

    /// A column of numbers.
    pub const fn number(title: &'a str) -> Self {
        Self { title, numeric: true }
    }
}

/// A whole page as HTML text. `eyebrow` is the short line above the title.
pub fn document(eyebrow: &str, title: &str, lede: &str, figures: &[KeyFigure], body: &Markup, footer: &str) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.eyebrow { (eyebrow) }
                    h1 { (title) }
                    p.lede { (lede) }
                    (key_figures(figures))
                }
                main { (body) }
                footer { p { (footer) } }
            }
        }
    }
    .into_string()
}

/// The row of key figures at the head of a page.
pub fn key_figures(figures: &[KeyFigure]) -> Markup {
    html! {
        @if !figures.is_empty() {
            dl.figures {
                @for f in figures {
                    div.lead[f.lead] {
                        dt { (f.name) }
                        dd.value { (f.value) }
                        @if !f.note.is_empty() { dd.note { (f.note) } }
                    }
                }
            }
        }
    }
}

/// A section: heading, a sentence on why it matters, content.
pub fn section(title: &str, sentence: &str, content: &Markup) -> Markup {
    html! {
        section {
            h2 { (title) }
            @if !sentence.is_empty() { p { (sentence) } }
            (content)
        }
    }
}

/// A framed figure with its caption.
pub fn figure(title: &str, content: &Markup, caption: &Caption) -> Markup {
    html! {
        figure {
            @if !title.is_empty() { h3 { (title) } }
            (content)
            figcaption {
                @if !caption.text.is_empty() { span { (caption.text) } }
                span { b { (caption.samples) } " · made by " code { (caption.command) } }
            }
        }
    }
}

/// Two blocks side by side, below each other on a phone.
pub fn pair(left: &Markup, right: &Markup) -> Markup {
    html! { div.pair { div { (left) } div { (right) } } }
}

/// A table. Rows shorter than the header are filled with empty cells, longer ones are cut.
pub fn table(columns: &[Column], rows: &[Vec<Markup>]) -> Markup {
    html! {
        @if rows.is_empty() { (empty()) } @else {
            div.scroll {
                table {
                    thead { tr { @for c in columns { th.number[c.numeric] scope="col" { (c.title) } } } }
                    tbody {
                        @for row in rows {
                            tr {
                                @for (i, c) in columns.iter().enumerate() {
                                    td.number[c.numeric] { @if let Some(cell) = row.get(i) { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Commands to type, one a line.
pub fn commands(lines: &[String]) -> Markup {
    html! { pre { @for (i, line) in lines.iter().enumerate() { @if i > 0 { "\n" } (line) } } }
}

/// Text as a table cell or other content, escaped.
pub fn text(value: impl AsRef<str>) -> Markup {
    html! { (value.as_ref()) }
}

/// What stands where a chart or table has nothing to show.
fn empty() -> Markup {
    html! { p.empty { "No data." } }
}
