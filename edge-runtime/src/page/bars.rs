//! Lists of horizontal bars, as table rows: text stays text, on a phone and on paper too.

use super::empty;
use maud::{Markup, html};

/// One row.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// Group it belongs to; rows of one group stand together under its name. May be empty.
    pub group: String,
    /// A value for each measure, in the unit of its column; 0 is drawn as 0.
    pub values: Vec<f64>,
    /// The values as they are to be read.
    pub texts: Vec<String>,
}

/// One measure.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Heading.
    pub title: String,
    /// Whether it is drawn, or only written.
    pub drawn: bool,
}

/// Rows of a few measures; each is scaled to its largest value over all rows.
pub fn bars(heading: &str, measures: &[Measure], rows: &[Bar]) -> Markup {
    if rows.is_empty() {
        return empty();
    }
    let value = |row: &Bar, m: usize| row.values.get(m).copied().filter(|v| v.is_finite()).unwrap_or(0.0).max(0.0);
    let largest: Vec<f64> = (0..measures.len()).map(|m| rows.iter().map(|r| value(r, m)).fold(0.0, f64::max)).collect();
    let width = |row: &Bar, m: usize| if largest[m] > 0.0 { 100.0 * value(row, m) / largest[m] } else { 0.0 };
    let columns = 1 + measures.iter().map(|m| 1 + usize::from(m.drawn)).sum::<usize>();
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        th scope="col" { (heading) }
                        @for m in measures { th.number scope="col" { (m.title) } @if m.drawn { th {} } }
                    }
                }
                tbody {
                    @for (i, row) in rows.iter().enumerate() {
                        @if !row.group.is_empty() && (i == 0 || rows[i - 1].group != row.group) {
                            tr.group { th colspan=(columns) scope="rowgroup" { (row.group) } }
                        }
                        tr {
                            td.name { (row.label) }
                            @for (m, measure) in measures.iter().enumerate() {
                                td.number { (row.texts.get(m).map_or("", String::as_str)) }
                                @if measure.drawn {
                                    td.meter {
                                        @let w = width(row, m);
                                        span.none[w == 0.0] style=(format!("width:{w:.1}%")) {}
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
