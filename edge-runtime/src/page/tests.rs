//! Every drawing function on ordinary, empty, constant, single and hostile data: balanced, escaped, finite, local.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::image::Picture;
use crate::probability::Bin;
use crate::saliency::Map;

const VOID: [&str; 4] = ["meta", "img", "br", "!DOCTYPE"];
const HOSTILE: &str = "<b>\"&'";

/// Panics unless every element is closed in order, quotes are balanced and nothing points outside or is not finite.
fn check(html: &str) {
    let mut open: Vec<&str> = Vec::new();
    let without_style =
        html.split("<style>").next().unwrap().to_owned() + html.split_once("</style>").map_or("", |(_, rest)| rest);
    let mut rest = without_style.as_str();
    while let Some(at) = rest.find('<') {
        let end = at + rest[at..].find('>').expect("an open tag");
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in <{tag}>");
        let name = tag.trim_start_matches('/').split_whitespace().next().unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "closing </{name}>");
        } else if !VOID.contains(&name) {
            open.push(name);
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    for word in ["http", "<script", "url(", "@import", "NaN", "inf "] {
        assert!(!html.contains(word), "{word} in {html}");
    }
}

fn trials() -> Vec<Vec<f64>> {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    vec![
        vec![],
        vec![3.0],
        vec![0.0],
        vec![2.0; 7],
        vec![nan, 1.0, nan, 2.0],
        vec![nan],
        vec![-inf, inf, 1.0],
        vec![1e308, -1e308],
        (0..40).map(|i| f64::from(i).sin()).collect(),
    ]
}

#[test]
fn dot_charts_are_well_formed_and_keep_their_colours() {
    for values in trials() {
        let row = |values: &[f64], interval| Dot {
            label: HOSTILE.into(),
            values: values.into(),
            interval,
            text: HOSTILE.into(),
        };
        let ends = [f64::NAN, 1e308];
        let rows = [row(&values, None), row(&values, Some([0.0, 1.0])), row(&[], Some(ends)), row(&[2.5], Some(ends))];
        let chart = DotChart { description: HOSTILE, title: HOSTILE, unit: Unit::Percent, rows: &rows };
        let html = dot_chart(&chart).into_string();
        check(&html);
        // The third has no value; the fourth is still the fourth.
        assert!(html.contains("d4") && !html.contains("c3"), "{html}");
        let none = DotChart { rows: &rows[2..3], ..chart };
        assert!(dot_chart(&none).into_string().contains("No data"));
    }
}

#[test]
fn line_charts_are_well_formed_whatever_the_data() {
    for values in trials() {
        let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(i, &v)| (i as f64, v)).collect();
        let series = [Series { name: HOSTILE.into(), points: points.clone() }, Series { name: "b".into(), points }];
        for range in [None, Some((0.0, 1.0)), Some((1.0, 1.0))] {
            let chart =
                LineChart { description: HOSTILE, x: "epoch", y: HOSTILE, unit: Unit::Plain, range, series: &series };
            let html = line_chart(&chart).into_string();
            check(&html);
            assert!(!html.contains("<b>"), "escaped");
            let drawable = values.iter().any(|v| v.is_finite());
            assert_eq!(html.contains("<path"), drawable, "{values:?}");
        }
    }
}

#[test]
fn timelines_are_well_formed_whatever_the_data() {
    for values in trials() {
        let traces = [
            Trace { name: HOSTILE.into(), log10: values.clone(), merged: true },
            Trace { name: "input changed".into(), log10: values.clone(), merged: false },
        ];
        let phases =
            [Phase { name: HOSTILE.into(), first: 1, last: 3 }, Phase { name: "fog".into(), first: 4, last: 9 }];
        let alarms = [1, 2, 3, 400].map(|frame| Alarm { frame, label: HOSTILE.into() });
        for threshold in [6.0, f64::NAN, f64::INFINITY] {
            check(&timeline(&Timeline { phases: &phases, traces: &traces, threshold, alarms: &alarms }).into_string());
        }
    }
}

#[test]
fn reliability_shows_counts_and_skips_empty_bins() {
    let bin = |i: usize, count| Bin {
        lower: i as f64 / 10.0,
        upper: (i + 1) as f64 / 10.0,
        count,
        confidence: if count == 0 { f64::NAN } else { i as f64 / 10.0 + 0.05 },
        accuracy: if count == 0 { f64::NAN } else { 0.4 },
    };
    let html = reliability_diagram("before", HOSTILE, &[bin(3, 17), bin(4, 0), bin(9, 230)]).into_string();
    check(&html);
    assert!(html.contains(">17<") && html.contains(">230<"));
    assert_eq!(html.matches("class=\"fill\"").count(), 2);
    check(&reliability_diagram("none", "", &[bin(1, 0)]).into_string());
    check(&reliability_diagram("none", "", &[]).into_string());
}

#[test]
fn bars_draw_zero_as_zero_and_scale_to_the_largest() {
    let measures = ["weight", HOSTILE].map(|title| Measure { title: title.into(), drawn: true });
    let row = |label: &str, weight: f64, share: f64| Bar {
        label: label.into(),
        group: "g".into(),
        values: vec![weight, share],
        texts: vec!["so much".into(), "that much".into()],
    };
    let html = bars("channel", &measures, &[row(HOSTILE, 0.5, 0.2), row("b", 0.0, 0.4)]).into_string();
    check(&html);
    assert!(html.contains("width:100.0%") && html.contains("width:50.0%") && html.contains("width:0.0%"));
    let written = [Measure { title: "weight".into(), drawn: false }];
    assert!(!bars("channel", &written, &[row("a", 0.5, 0.2)]).into_string().contains("width"), "only written");
    check(&bars("channel", &measures, &[]).into_string());
    check(&bars("channel", &measures, &[row("x", f64::NAN, f64::INFINITY)]).into_string());
}

#[test]
fn viridis_runs_from_violet_to_yellow_and_clamps() {
    assert_eq!(viridis(0.0), [68, 1, 84]);
    assert_eq!(viridis(0.5), [33, 145, 140]);
    assert_eq!(viridis(1.0), [253, 231, 37]);
    assert_eq!(viridis(f32::NAN), viridis(-3.0));
    assert_eq!(viridis(7.0), viridis(1.0));
}

#[test]
fn overlays_mix_colour_and_greyscale_and_survive_png() {
    let picture = Picture { width: 2, height: 2, rgb: [200, 100, 50].repeat(4) };
    let map = Map { width: 2, height: 2, values: vec![0.0, 0.0, 0.0, 1.0] };
    let (colours, mixed) = overlay(&picture, &map);
    assert_eq!(colours.rgb[..3], [68, 1, 84]);
    assert_eq!(colours.rgb[9..], [253, 231, 37]);
    // Grey of (200, 100, 50) is 124.2; 0.55 · 253 + 0.45 · 124.2 = 195.04.
    assert_eq!(mixed.rgb[9], 195);
    let uri = png_data_uri(&mixed).unwrap();
    let bytes = {
        use base64::Engine as _;
        let body = uri.strip_prefix("data:image/png;base64,").unwrap();
        base64::engine::general_purpose::STANDARD.decode(body).unwrap()
    };
    assert_eq!(crate::image::decode("overlay", &bytes).unwrap(), mixed);
    assert!(png_data_uri(&Picture { width: 3, height: 3, rgb: vec![0; 5] }).is_err());
}

#[test]
fn a_sheet_says_right_and_wrong_in_words() {
    let picture = Picture { width: 4, height: 4, rgb: vec![90; 48] };
    let map = Map { width: 2, height: 2, values: vec![1.0; 4] };
    let tile = |truth| Tile { picture: &picture, map: &map, predicted: "glass", truth, confidence: 0.934 };
    let html = sheet(&[tile(Some("glass")), tile(Some(HOSTILE)), tile(None)]).unwrap().into_string();
    check(&html);
    assert!(html.contains("glass 93 %") && html.contains("is &lt;b&gt;"));
    assert_eq!(html.matches("<img").count(), 9);
}

#[test]
fn a_document_is_whole_escaped_and_local() {
    let figures = [KeyFigure { name: HOSTILE.into(), value: "74 %".into(), note: HOSTILE.into(), lead: true }];
    let caption = Caption { text: HOSTILE, samples: "431 pictures", command: HOSTILE };
    let rows = vec![vec![text(HOSTILE)], vec![text("a"), text("b"), text("c")]];
    let cells = table(&[Column::text("name"), Column::number("value")], &rows);
    let body = section(HOSTILE, HOSTILE, &pair(&figure(HOSTILE, &cells, &caption), &commands(&[HOSTILE.into()])));
    let html = document(HOSTILE, HOSTILE, HOSTILE, &figures, &body, HOSTILE);
    check(&html);
    assert!(!html.contains("<b>\""), "escaped");
    assert!(html.starts_with("<!DOCTYPE html>") && html.trim_end().ends_with("</html>"));
    assert_eq!(STYLE.matches('{').count(), STYLE.matches('}').count());
    check(&table(&[Column::text("name")], &[]).into_string());
    for state in [
        State::Healthy,
        State::Watching,
        State::Shift,
        State::SensorFault,
        State::EngineFault,
        State::Slow,
        State::NoGuarantee,
    ] {
        let html = badge(state).into_string();
        check(&html);
        assert!(html.contains(state.word()) && html.contains("<path"));
    }
}

#[test]
fn tick_labels_are_short() {
    assert_eq!(Unit::Percent.write(0.2, 0.2), "20 %");
    assert_eq!(Unit::Plain.write(0.30000000000000004, 0.1), "0.3");
    assert_eq!(Unit::Plain.write(-1e-18, 0.5), "0.0");
    assert_eq!(Unit::Power.write(6.0, 1.0), "10⁶");
    assert_eq!(Unit::Power.write(-12.0, 1.0), "10⁻¹²");
    assert_eq!(Unit::Power.write(0.0, 2.0), "1");
}
