//! Lists of horizontal bars, as table rows: text stays text, on a phone and on paper too.

use super::empty;
use maud::{Markup, html};

/// One row.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What it is.
    pub label: String,
    /// Group it belongs to; may be empty.
    pub group: String,
    /// A value for each measure, in the unit of its column; 0 is drawn as 0.
    pub values: Vec<f64>,
    /// The values as they are to be read.
    pub texts: Vec<String>,
}

/// Rows of one or two measures; each measure is scaled to its largest value over all rows.
pub fn bars(heading: &str, measures: &[&str], rows: &[Bar]) -> Markup {
    if rows.is_empty() {
        return empty();
    }
    let groups = rows.iter().any(|r| !r.group.is_empty());
    let largest: Vec<f64> = (0..measures.len())
        .map(|m| rows.iter().filter_map(|r| r.values.get(m)).filter(|v| v.is_finite()).fold(0.0, |a: f64, &v| a.max(v)))
        .collect();
    let width = |row: &Bar, m: usize| {
        let value = row.values.get(m).copied().filter(|v| v.is_finite()).unwrap_or(0.0).max(0.0);
        if largest[m] > 0.0 { 100.0 * value / largest[m] } else { 0.0 }
    };
    html! {
        div.scroll {
            table {
                thead {
                    tr {
                        @if groups { th scope="col" { "family" } }
                        th scope="col" { (heading) }
                        @for m in measures { th.number scope="col" { (m) } th {} }
                    }
                }
                tbody {
                    @for (i, row) in rows.iter().enumerate() {
                        tr {
                            @if groups {
                                td { @if i == 0 || rows[i - 1].group != row.group { (row.group) } }
                            }
                            td { (row.label) }
                            @for m in 0..measures.len() {
                                td.number { (row.texts.get(m).map_or("", String::as_str)) }
                                td.meter.second[m == 1] {
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
