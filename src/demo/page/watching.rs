//! The section on the stream: evidence over time, what rang in each stretch, and which checks carried it.

use super::{Report, caption};
use crate::demo::board::Watched;
use crate::terminal::{duration, percent};
use excon_edge::page::{
    self, Alarm, Bar, Column, Measure, State, Timeline, Trace, badge, figure, section, table, text, timeline,
};
use excon_edge::shift::{Channel, Family, Likeness};
use maud::{Markup, html};

/// The whole section.
pub fn watching(r: &Report) -> Markup {
    let w = &r.board;
    let phases: Vec<page::Phase> =
        w.phases.iter().map(|p| page::Phase { name: p.name.clone(), first: p.first, last: p.last }).collect();
    let values = |v: &[Option<f64>]| v.iter().map(|v| v.unwrap_or(f64::NEG_INFINITY)).collect::<Vec<_>>();
    let mut traces = vec![Trace { name: "merged".into(), log10: values(&w.log10), merged: true }];
    traces.extend(w.families.iter().map(|f| Trace {
        name: short(f.family, f.weight),
        log10: values(&f.log10),
        merged: false,
    }));
    let alarms: Vec<Alarm> = w
        .phases
        .iter()
        .filter_map(|p| p.alarm.as_ref())
        .map(|a| Alarm { frame: a.frame, label: format!("after {}", a.after) })
        .collect();
    let chart = timeline(&Timeline { phases: &phases, traces: &traces, threshold: w.threshold, alarms: &alarms });
    let frames = w.log10.len();
    let words = "Evidence of each family of checks and of all of them merged, against the alarm's threshold. The alarm stays \
                 until it is acknowledged, here at the end of each stretch; meanwhile nothing is counted. A family of \
                 weight 0 is shown but cannot ring.";
    let samples =
        format!("{frames} frames, all test pictures, none twice; median {} a frame", duration(w.seconds_per_frame));
    let promise = format!("{}. Reference: {} validation pictures.", w.promise.sentence, w.promise.reference_frames);
    section(
        "The board watches",
        &promise,
        &html! {
            (figure("Evidence of a shift", &chart, &caption(r, words, &samples)))
            (figure("Stretches of the stream", &stretches(w), &caption(r, "Accuracy is known here because the pictures are \
                labelled; the alarm does not use it.", &samples)))
            (channels(r))
        },
    )
}

fn stretches(w: &Watched) -> Markup {
    let rows: Vec<Vec<Markup>> = w
        .phases
        .iter()
        .map(|p| {
            let said = match &p.alarm {
                Some(a) => html! {
                    "after " (a.after) " frames: " (a.family.words()) " (" (names(&a.rang)) ")"
                    @if let Some(looks) = Likeness::words(&a.looks_like) { br; "looks like " (looks) }
                },
                None => text("–"),
            };
            let state = if p.alarm.is_some() { State::Shift } else { State::Healthy };
            vec![
                text(&p.name),
                text(format!("{}–{}", p.first, p.last)),
                text(percent(p.accuracy)),
                text(percent(p.confidence)),
                badge(state),
                said,
            ]
        })
        .collect();
    table(
        &[
            Column::text("stretch"),
            Column::text("frames"),
            Column::number("accuracy"),
            Column::number("mean confidence"),
            Column::text("state"),
            Column::text("alarm"),
        ],
        &rows,
    )
}

/// Weight of every channel, and its share of the evidence at each alarm.
fn channels(r: &Report) -> Markup {
    let alarms: Vec<_> = r.board.phases.iter().filter_map(|p| p.alarm.as_ref().map(|a| (&p.name, a))).collect();
    let Some((_, first)) = alarms.first() else { return html! {} };
    let mut order: Vec<usize> = (0..first.channels.len()).collect();
    order.sort_by_key(|&i| first.channels[i].family);
    let rows: Vec<Bar> = order
        .into_iter()
        .map(|i| {
            let c = &first.channels[i];
            let mut values = vec![c.weight];
            values.extend(alarms.iter().map(|(_, a)| a.channels.get(i).map_or(0.0, |c| c.share)));
            let texts =
                values.iter().enumerate().map(|(k, v)| if k == 0 { format!("{v:.3}") } else { percent(*v) }).collect();
            Bar { label: c.channel.name().replace('_', " "), group: c.family.words().into(), values, texts }
        })
        .collect();
    let mut measures = vec![Measure { title: "weight".into(), drawn: false }];
    measures.extend(alarms.iter().map(|(name, _)| Measure { title: format!("share, {name}"), drawn: true }));
    let words = "Each channel's fixed weight, and its share of the evidence when the alarm rang. The saliency channels are \
                 watched with the others; they get weight only where measurement on this model earns it.";
    let samples = format!("{} alarms", alarms.len());
    figure("Channels", &page::bars("channel", &measures, &rows), &caption(r, words, &samples))
}

fn names(channels: &[Channel]) -> String {
    channels.iter().take(3).map(|c| c.name().replace('_', " ")).collect::<Vec<_>>().join(", ")
}

fn short(family: Family, weight: f64) -> String {
    let name = if family == Family::ExplanationInconsistent { "explanation" } else { family.words() };
    if weight > 0.0 { name.into() } else { format!("{name}, weight 0") }
}
