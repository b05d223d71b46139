//! The report as one self-contained page.

mod watching;

use super::board::Phase;
use super::report::{Report, Side};
use crate::terminal::{duration, grouped, percent};
use crate::training::{curves, network_name};
use excon_convert::compare::Verdict;
use excon_edge::Result;
use excon_edge::image::Picture;
use excon_edge::page::{
    self, Bar, Caption, Column, KeyFigure, Measure, Tile, figure, pair, reliability_diagram, section, sheet, table,
    text, verdict,
};
use excon_edge::predictor::Prediction;
use excon_edge::probability::Scaling;
use maud::{Markup, html};

/// A prediction to be shown with its map.
pub struct Example<'a> {
    /// The photograph as the board saw it.
    pub picture: &'a Picture,
    /// What the board said.
    pub prediction: &'a Prediction,
    /// Index of the true class.
    pub truth: usize,
}

/// The predictions of the saliency sheets.
pub struct Examples<'a> {
    /// Right ones.
    pub right: Vec<Example<'a>>,
    /// Wrong ones.
    pub wrong: Vec<Example<'a>>,
    /// One of each stretch that is not healthy, from where the alarm rang.
    pub shifted: Vec<Example<'a>>,
}

/// The page as HTML text. `next` are the commands to type.
pub fn render(r: &Report, examples: &Examples, next: &[String]) -> Result<String> {
    let body = html! {
        (training(r))
        (accuracy(r))
        (calibration(r))
        (explanations(r, examples)?)
        (watching::watching(r))
        (section("What to type next", "", &page::commands(next)))
    };
    let lede = format!(
        "A {} was trained from scratch on {} photographs of waste by the recipe {}, converted to 8-bit integers, sealed \
         into a bundle, and set to watch a stream that turned foggy, noisy and dark.{}",
        network_name(&r.training.network),
        grouped(r.data.train),
        r.training.recipe,
        if r.quick {
            " This was the quick demo: two epochs prove that the chain works, not what it can reach."
        } else {
            ""
        },
    );
    let footer = format!(
        "{}, seed {}, data digest {}. The same numbers as data: report.json.",
        r.tool,
        r.seed,
        r.data.digest.get(..16).unwrap_or(&r.data.digest)
    );
    Ok(page::document(
        "ExCon on the edge · demo",
        "From photographs to a watched board",
        &lede,
        &key_figures(r),
        &body,
        &footer,
    ))
}

fn key_figures(r: &Report) -> Vec<KeyFigure> {
    let figure = |name: &str, value: String, note: String, lead| KeyFigure { name: name.into(), value, note, lead };
    let healthy: Vec<&Phase> = r.board.phases.iter().filter(|p| p.name == "healthy").collect();
    let frames: usize = healthy.iter().map(|p| p.last + 1 - p.first).sum();
    let false_alarms = healthy.iter().filter(|p| p.alarm.is_some()).count();
    let shifts = r.board.phases.len() - healthy.len();
    let found = r.board.phases.iter().filter(|p| p.name != "healthy" && p.alarm.is_some()).count();
    let [low, high] = r.int8.accuracy_interval.map(|v| 100.0 * v);
    vec![
        figure(
            "accuracy, int8",
            percent(r.int8.metrics.accuracy),
            format!("{low:.1} to {high:.1} (95 %), {} test pictures", r.int8.metrics.count),
            true,
        ),
        figure(
            "accuracy, float",
            percent(r.float.metrics.accuracy),
            format!("{} test pictures", r.float.metrics.count),
            false,
        ),
        figure("calibration error", percent(r.int8.metrics.ece), "ECE of int8, 15 bins, after scaling".into(), false),
        figure("shifts found", format!("{found} of {shifts}"), "fog, noise, dark".into(), false),
        figure("false alarms", false_alarms.to_string(), format!("in {frames} healthy frames"), false),
        figure("time", duration(r.seconds), format!("training {}", duration(r.seconds_of.train)), false),
    ]
}

fn training(r: &Report) -> Markup {
    let t = &r.training;
    let refit = if t.refit_l2.is_some() {
        "the linear head was then refitted to convergence on frozen features"
    } else {
        "the trained linear head was kept"
    };
    let words = format!(
        "Epoch {} was the best on one half of the validation pictures and is kept; {refit}. A mask passes when the \
         network still recognises what its own explanation left visible; only then does the masked picture become a view.",
        t.kept_epoch
    );
    let samples = format!("{} training and {} validation pictures", grouped(r.data.train), grouped(r.data.validation));
    let intro = if t.joint {
        "ExCon pulls two views of a picture together, one of them masked by the network's own explanation. Here the \
         training is joint: the classifier's cross entropy reaches the encoder as well."
    } else {
        "ExCon pulls two views of a picture together, one of them masked by the network's own explanation."
    };
    section("Training", intro, &figure("", &curves(&r.training.epochs), &caption(r, &words, &samples)))
}

fn accuracy(r: &Report) -> Markup {
    let row =
        |name: &str, value: &dyn Fn(&Side) -> String| vec![text(name), text(value(&r.float)), text(value(&r.int8))];
    let share = |name: &str, value: &dyn Fn(&Side) -> f64| row(name, &|s| percent(value(s)));
    let plain = |name: &str, value: &dyn Fn(&Side) -> f64| row(name, &|s| format!("{:.3}", value(s)));
    let rows = [
        share("accuracy", &|s| s.metrics.accuracy),
        share("macro accuracy", &|s| s.metrics.macro_accuracy),
        share("ECE, 15 bins", &|s| s.metrics.ece),
        plain("NLL, nats", &|s| s.metrics.nll),
        plain("Brier score", &|s| s.metrics.brier),
        share("explanation drop ↓", &|s| s.explanation.drop),
        share("explanation increase ↑", &|s| s.explanation.increase),
        row("map against logit, largest gap", &|s| format!("{:.0e}", s.completeness_residual)),
        row("calibrated by", &|s| s.scaling.words()),
    ];
    let measures = table(&[Column::text("measure"), Column::number("float"), Column::number("int8")], &rows);
    let percent_of = |v: &Option<f64>| text(v.map_or("–".into(), percent));
    let classes: Vec<Vec<Markup>> = r
        .data
        .labels
        .iter()
        .enumerate()
        .map(|(i, name)| vec![text(name), percent_of(&r.float.accuracy_of[i]), percent_of(&r.int8.accuracy_of[i])])
        .collect();
    let classes =
        table(&[Column::text("accuracy by class"), Column::number("float"), Column::number("int8")], &classes);
    let samples = format!("{} test pictures", r.int8.metrics.count);
    let words = format!(
        "Float is the trained network, int8 the sealed engine that the board runs. Both give the same class to {} of the \
         pictures. Probabilities are \
         calibrated. Explanation drop (lower is better) and increase (higher is better) keep the top 15 % of the map.",
        percent(r.agreement)
    );
    let sentence = "What the conversion costs, on the test pictures. Nothing was chosen on them.";
    section(
        "Float and 8-bit integers",
        sentence,
        &html! {
            (figure("", &pair(&measures, &classes), &caption(r, &words, &samples)))
            (budget(r))
            (layers(r))
        },
    )
}

/// What the conversion was held to.
fn budget(r: &Report) -> Markup {
    let c = &r.conversion;
    let rows: Vec<Vec<Markup>> = c
        .budget
        .iter()
        .map(|b| {
            let [low, high] = b.interval.map(|v| 100.0 * v);
            let state = match b.verdict {
                Verdict::Met => verdict(true, b.verdict.words()),
                Verdict::NotMet => verdict(false, b.verdict.words()),
                Verdict::TooFewPictures => text(b.verdict.words()),
            };
            let measured = format!("{:.1} ({low:.1} to {high:.1})", 100.0 * b.item.measured).replace('-', "−");
            vec![text(&b.item.name), text(format!("{:.1}", 100.0 * b.item.allowed)), text(measured), state]
        })
        .collect();
    let columns = [
        Column::text("budget, points"),
        Column::number("allowed"),
        Column::number("measured (95 % interval)"),
        Column::text("verdict"),
    ];
    let kib = |bytes: u64| format!("{} KiB", bytes.div_ceil(1024));
    let (way, tried) = c.range.as_ref().map_or(("none".into(), 0), |r| (r.best.words(), r.trials.len()));
    let words = format!(
        "Measured before test was touched, on validation pictures that no temperature has seen. Activation ranges: {way}, \
         the best of {tried} ways on training pictures. The network takes {} in float and {} in int8; the sealed \
         bundle, with shift reference and golden inputs, {}.",
        kib(c.float_bytes),
        kib(c.model_bytes),
        kib(c.bytes)
    );
    let pictures = c.comparison.as_ref().map_or(0, |c| c.int8.count);
    figure("Budget", &table(&columns, &rows), &caption(r, &words, &format!("{pictures} validation pictures")))
}

/// How much noise int8 adds to each map.
fn layers(r: &Report) -> Markup {
    let rows: Vec<Bar> = r
        .conversion
        .layers
        .iter()
        .map(|l| Bar {
            label: l.layer.clone(),
            group: String::new(),
            values: vec![l.signal_to_noise_db.unwrap_or(0.0)],
            texts: vec![l.signal_to_noise_db.map_or("exact".into(), |db| format!("{db:.1} dB"))],
        })
        .collect();
    let words =
        "Signal to quantization noise after each layer, in the order of the network. 6 dB less is twice the noise.";
    figure(
        "Where int8 loses",
        &page::bars("layer", &[Measure { title: "signal to noise".into(), drawn: true }], &rows),
        &caption(r, words, "16 training pictures"),
    )
}

fn calibration(r: &Report) -> Markup {
    let s = &r.int8;
    let says = |ece: f64, how: String| format!("ECE {}, {how}", percent(ece));
    let charts = pair(
        &reliability_diagram("before scaling", &says(s.unscaled.ece, Scaling::default().words()), &s.reliability[0]),
        &reliability_diagram("after scaling", &says(s.metrics.ece, s.scaling.words()), &s.reliability[1]),
    );
    let words = "Of the predictions in a bin, how many were right. The light tip is the gap to their mean confidence: orange \
                 where the board is too sure, blue where it is not sure enough. On the dashed line both agree. Below, the \
                 number of pictures in each bin.";
    section(
        "Calibration",
        &format!(
            "Is the board right in 80 of 100 cases where it says 80 %? What changes its logits: {}, fitted on validation \
             pictures with the int8 engine itself; of the ways that were tried, the simplest one that pictures it was \
             not fitted on do not contradict. On the test pictures NLL went from {:.3} to {:.3}; a binned error of {} \
             pictures moves by a point or two by chance alone.",
            s.scaling.words(),
            s.unscaled.nll,
            s.metrics.nll,
            s.metrics.count
        ),
        &figure("", &charts, &caption(r, words, &format!("{} test pictures, int8", s.metrics.count))),
    )
}

fn explanations(r: &Report, examples: &Examples) -> Result<Markup> {
    let tiles = |of: &[Example]| -> Result<Markup> {
        let tiles: Vec<Tile> = of
            .iter()
            .map(|e| Tile {
                picture: e.picture,
                map: &e.prediction.cam,
                predicted: &e.prediction.label,
                truth: r.data.labels.get(e.truth).map(String::as_str),
                confidence: e.prediction.confidence,
            })
            .collect();
        sheet(&tiles)
    };
    let (right, wrong) = (examples.right.len(), examples.wrong.len());
    let words = "Photograph, class-activation map of the predicted class, and both together. The map comes with the \
                 prediction in one pass, and its mean plus the bias is the logit, checked on every picture.";
    let shown = |n: usize, kind: &str| {
        format!("{n} of {} test pictures, the first {kind} ones in seeded order", r.int8.metrics.count)
    };
    let at_alarm = "The frame at which each alarm rang, as the board saw it.";
    Ok(section(
        "Explanations",
        "Where the board looked, when it was right and when it was wrong.",
        &html! {
            (figure("Right", &tiles(&examples.right)?, &caption(r, words, &shown(right, "right"))))
            (figure("Wrong", &tiles(&examples.wrong)?, &caption(r, "", &shown(wrong, "wrong"))))
            @if !examples.shifted.is_empty() {
                (figure("Under shift", &tiles(&examples.shifted)?, &caption(r, at_alarm, &format!("{} frames", examples.shifted.len()))))
            }
        },
    ))
}

fn caption<'a>(r: &'a Report, text: &'a str, samples: &'a str) -> Caption<'a> {
    Caption { text, samples, command: &r.command }
}
