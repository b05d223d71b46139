//! `excon compare`: two forms of one network, picture by picture and layer by layer.

use super::evaluate::Which;
use crate::agreement::{Agreement, Side};
use crate::failure::{Failure, Result};
use crate::form::{self, Form};
use crate::terminal::{self, Format, Progress, percent};
use clap::Args;
use excon_convert::compare::Difference;
use excon_edge::file::replace;
use excon_edge::page::{Bar, Column, KeyFigure, Measure, bars, document, section, table, text};
use excon_train::evaluate::spread;
use maud::html;
use std::path::PathBuf;

/// Compares two forms of one network: run, bundle or ONNX file
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  excon compare runs/mine mine.excon --data PHOTOS
  excon compare mine.excon tract:mine.excon --data PHOTOS
  excon compare mine.excon onnxruntime:mine.excon --data PHOTOS
  excon compare runs/mine mine-float.onnx --data PHOTOS --limit 200 --out compare.html

`tract:` before a bundle or an ONNX file runs it on stock tract instead of this toolkit's own kernels; `onnxruntime:` and
`openvino:` in those, on one thread of the Python that EXCON_PYTHON names (python3), which needs the package of that name and
numpy. An ONNX file alone takes classes and preprocessing from the other side; it may be another program's. Noise by layer
needs the same layers on both sides, and a run, another program's network or another runtime on one.
Losses are positive where B is worse; their intervals are 95 %, over pairs of answers.")]
pub struct Compare {
    /// The first: RUN, FILE.excon or FILE.onnx; a file also with tract:, onnxruntime: or openvino: before it
    a: String,
    /// The second
    b: String,
    /// Data set, as for `excon train`
    #[arg(long, value_name = "PATH")]
    data: String,
    /// Which pictures
    #[arg(long, value_enum, default_value = "test")]
    split: Which,
    /// Compare on so many pictures, spread evenly over the split
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Write one self-contained page
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,
}

impl Compare {
    /// Compares.
    pub fn run(&self, format: Format) -> Result<()> {
        let forms = form::open(&self.a, &self.b)?;
        let data = forms[0].model.data(&self.data)?;
        if data.is_multi_label() {
            return Err(Failure::usage("a comparison needs one class per picture; these have sets of labels"));
        }
        let split = self.split.of(&data);
        let split = match self.limit {
            Some(limit) => split.subset(&spread(split.len(), limit as usize)),
            None => split.clone(),
        };
        if split.is_empty() {
            return Err(Failure::input(format!("{} has no {} pictures", self.data, self.split.word())));
        }
        let progress = Progress::start("compare", split.len() as u64);
        progress.say(&format!("{} pictures", split.len()), true);
        let word = self.split.word();
        let found = Agreement::measure(&forms, &data, (&word, &split), &mut |done| progress.at(done as u64))?;
        progress.finish(&format!("{} pictures, {} the same class", found.pictures, percent(found.same_class)));
        if let Some(out) = &self.out {
            replace(out, self.page(&found).as_bytes())?;
        }
        if format == Format::Json {
            return terminal::json(&found);
        }
        self.print(&found, &forms)
    }

    fn print(&self, c: &Agreement, forms: &[Form; 2]) -> Result<()> {
        terminal::rows(&[("pictures", format!("{} ({} of {})", c.pictures, c.split, c.data))])?;
        let mut lines = vec![vec![String::new(), "A".into(), "B".into()]];
        lines.extend(sides(c).into_iter().map(|(name, [a, b])| vec![name.into(), a, b]));
        terminal::table("lrr", &lines)?;
        terminal::heading("Together")?;
        terminal::rows(&together(c))?;
        if let Some(layers) = &c.layers {
            terminal::heading("Signal to noise after each layer, dB")?;
            let mut lines = vec![];
            lines.extend(layers.iter().map(|l| vec![l.layer.clone(), decibels(l.signal_to_noise_db)]));
            terminal::table("lr", &lines)?;
        }
        for form in forms {
            if let Some(note) = form.model.engine.note() {
                terminal::out(&format!("Note: {} runs on {}: {note}\n", form.given, form.model.engine.name()))?;
            }
        }
        match &self.out {
            Some(out) => terminal::out(&format!("\nReport: {}\n", out.display())),
            None => terminal::next(&[format!("{} --out compare.html", self.command())]),
        }
    }

    fn command(&self) -> String {
        format!("excon compare {} {} --data {}", self.a, self.b, self.data)
    }

    fn page(&self, c: &Agreement) -> String {
        let key = |name: &str, value: String, note: String, lead| KeyFigure { name: name.into(), value, note, lead };
        let figures = [
            key("same class", percent(c.same_class), format!("of {} pictures", c.pictures), true),
            key("accuracy lost", points(c.accuracy_loss), limits(c.accuracy_loss), false),
            key("ECE lost", points(c.ece_loss), limits(c.ece_loss), false),
            key("logits", decibels(c.logits_db), "signal to noise, dB".into(), false),
        ];
        let head = [Column::text(""), Column::number("A"), Column::number("B")];
        let rows: Vec<_> = sides(c).into_iter().map(|(name, [a, b])| vec![text(name), text(a), text(b)]).collect();
        let pairs: Vec<_> = together(c).into_iter().map(|(name, value)| vec![text(name), text(value)]).collect();
        let pairs = table(&[Column::text(""), Column::text("")], &pairs);
        let bar = |l: &excon_convert::compare::LayerError| Bar {
            label: l.layer.clone(),
            group: String::new(),
            values: vec![l.signal_to_noise_db.unwrap_or(f64::NAN)],
            texts: vec![decibels(l.signal_to_noise_db)],
        };
        let measures = [Measure { title: "dB".into(), drawn: true }];
        let body = html! {
            (section("Side by side", "Each with its own calibration.", &table(&head, &rows)))
            (section("Together", "Losses are positive where B is worse; intervals are 95 %.", &pairs))
            @if let Some(layers) = &c.layers {
                (section(
                    "Layer by layer",
                    "Signal to noise after each layer, errors of earlier ones included: the shortest bars cost most.",
                    &bars("layer", &measures, &layers.iter().map(bar).collect::<Vec<_>>()),
                ))
            }
        };
        let lede = format!("{} and {} on {} {} pictures of {}.", c.a.model, c.b.model, c.pictures, c.split, c.data);
        let footer =
            format!("excon {}. The same figures as data: {} --format json.", env!("CARGO_PKG_VERSION"), self.command());
        document("ExCon on the edge · compare", "Two forms of one network", &lede, &figures, &body, &footer)
    }
}

/// Figures that each side has.
fn sides(c: &Agreement) -> Vec<(&'static str, [String; 2])> {
    let both = |of: &dyn Fn(&Side) -> String| [of(&c.a), of(&c.b)];
    vec![
        ("model", both(&|s| s.model.clone())),
        ("engine", both(&|s| s.engine.clone())),
        ("accuracy", both(&|s| percent(s.metrics.accuracy))),
        ("ECE", both(&|s| percent(s.metrics.ece))),
        ("NLL, nats", both(&|s| format!("{:.3}", s.metrics.nll))),
        ("calibrated", both(&|s| s.scaling.words())),
        ("ms a picture", both(&|s| format!("{:.3}", s.milliseconds))),
    ]
}

/// Figures of the pair.
fn together(c: &Agreement) -> Vec<(&'static str, String)> {
    let lost = |d: Difference| format!("{}, {}", points(d), limits(d));
    let logits = format!("{} dB, at most {:.3} apart", decibels(c.logits_db), c.largest_logit_difference);
    let map = match (&c.no_map, c.map_cosine) {
        (Some(reason), _) => format!("none: {reason}"),
        (None, Some(cosine)) => format!("{cosine:.4} cosine"),
        (None, None) => "other shapes".into(),
    };
    vec![
        ("same class", percent(c.same_class)),
        ("accuracy lost", lost(c.accuracy_loss)),
        ("ECE lost", lost(c.ece_loss)),
        ("logits", logits),
        ("last map", c.features_db.map_or("equal, or of another shape".into(), |db| format!("{db:.1} dB"))),
        ("class-activation map", map),
    ]
}

fn points(d: Difference) -> String {
    format!("{:+.2} points", 100.0 * d.value)
}

fn limits(d: Difference) -> String {
    format!("{:+.2} to {:+.2}", 100.0 * d.lower, 100.0 * d.upper)
}

fn decibels(value: Option<f64>) -> String {
    value.map_or("equal".into(), |v| format!("{v:.1}"))
}
