//! The figures runs are compared by: one list for table, page and data. A further one is a further line.

use crate::evaluation::Report;
use excon_edge::page::Unit;
use excon_edge::probability::{Estimate, Intervals, Metrics};
use excon_train::evaluate::Attack;

/// What a figure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Accuracy,
    Features,
    Calibration,
    Explanation,
    Attack,
    Corruption,
}

impl Theme {
    /// Heading.
    pub fn words(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy",
            Self::Features => "Features alone",
            Self::Calibration => "Calibration",
            Self::Explanation => "Explanations",
            Self::Attack => "Under attack",
            Self::Corruption => "Under corruption",
        }
    }
}

/// A value and, where one evaluation knows it, its 95 % interval.
pub type Found = (f64, Option<[f64; 2]>);

/// One figure.
pub struct Figure {
    /// Key in the data.
    pub key: &'static str,
    /// Name for people.
    pub name: &'static str,
    pub theme: Theme,
    /// Whether it is a fraction, shown as per cent.
    pub share: bool,
    /// Whether more is better.
    pub up: bool,
    /// Its value in an evaluation, where it was measured.
    pub of: fn(&Report) -> Option<Found>,
}

const fn figure(
    key: &'static str,
    name: &'static str,
    theme: Theme,
    share: bool,
    up: bool,
    of: fn(&Report) -> Option<Found>,
) -> Figure {
    Figure { key, name, theme, share, up, of }
}

/// All of them, theme by theme.
pub const FIGURES: [Figure; 28] = {
    use Theme::*;
    [
        figure("accuracy", "top-1", Accuracy, true, true, |r| measured(r, |m, i| (m.accuracy, i.accuracy))),
        figure("top5", "top-5", Accuracy, true, true, |r| measured(r, |m, i| (m.top5, i.top5))),
        figure("macro_accuracy", "macro", Accuracy, true, true, |r| {
            measured(r, |m, i| (m.macro_accuracy, i.macro_accuracy))
        }),
        figure("linear_probe", "linear probe", Features, true, true, |r| Some((r.probe.as_ref()?.linear, None))),
        figure("neighbours", "20 nearest neighbours", Features, true, true, |r| {
            Some((r.probe.as_ref()?.neighbours, None))
        }),
        figure("ece", "ECE", Calibration, true, false, |r| measured(r, |m, i| (m.ece, i.ece))),
        figure("unscaled_ece", "ECE before scaling", Calibration, true, false, |r| {
            let m = &r.evaluation.measured;
            Some((m.unscaled.ece, Some(m.unscaled_intervals.ece)))
        }),
        figure("ece10", "ECE, 10 bins", Calibration, true, false, |r| measured(r, |m, i| (m.ece10, i.ece10))),
        figure("classwise_ece", "classwise ECE", Calibration, true, false, |r| {
            measured(r, |m, i| (m.classwise_ece, i.classwise_ece))
        }),
        figure("nll", "NLL", Calibration, false, false, |r| measured(r, |m, i| (m.nll, i.nll))),
        figure("brier", "Brier", Calibration, false, false, |r| measured(r, |m, i| (m.brier, i.brier))),
        figure("auroc", "AUROC of errors", Calibration, false, true, |r| {
            let m = &r.evaluation.measured;
            Some((m.metrics.auroc?, m.intervals.auroc))
        }),
        figure("drop", "drop", Explanation, true, false, |r| {
            let f = r.evaluation.faithfulness.as_ref()?;
            Some((f.drop, Some(f.drop_interval)))
        }),
        figure("increase", "increase", Explanation, true, true, |r| {
            let f = r.evaluation.faithfulness.as_ref()?;
            Some((f.increase, Some(f.increase_interval)))
        }),
        figure("deletion", "deletion", Explanation, false, false, |r| known(r.explanations.as_ref()?.deletion?)),
        figure("insertion", "insertion", Explanation, false, true, |r| known(r.explanations.as_ref()?.insertion?)),
        figure("occlusion", "occlusion invariance", Explanation, false, true, |r| {
            known(r.explanations.as_ref()?.occlusion.invariance)
        }),
        figure("energy", "energy in box", Explanation, true, true, |r| {
            known(r.evaluation.localisation.as_ref()?.energy)
        }),
        figure("pointing", "pointing game", Explanation, true, true, |r| {
            known(r.evaluation.localisation.as_ref()?.pointing)
        }),
        figure("fgsm1", "FGSM 1/255", Attack, true, true, |r| attacked(r, 0)),
        figure("fgsm2", "FGSM 2/255", Attack, true, true, |r| attacked(r, 1)),
        figure("fgsm4", "FGSM 4/255", Attack, true, true, |r| attacked(r, 2)),
        figure("fgsm8", "FGSM 8/255", Attack, true, true, |r| attacked(r, 3)),
        figure("pgd20", "PGD-20 8/255", Attack, true, true, |r| attacked(r, 4)),
        figure("corrupted_accuracy", "top-1, mean of 15", Corruption, true, true, |r| {
            Some((r.corruptions.as_ref()?.mean?.accuracy, None))
        }),
        figure("corrupted_ece", "ECE, mean of 15", Corruption, true, false, |r| {
            Some((r.corruptions.as_ref()?.mean?.ece, None))
        }),
        figure("corrupted_nll", "NLL, mean of 15", Corruption, false, false, |r| {
            Some((r.corruptions.as_ref()?.mean?.nll, None))
        }),
        figure("held_out_accuracy", "top-1, mean of 4 held out", Corruption, true, true, |r| {
            Some((r.corruptions.as_ref()?.mean_held_out?.accuracy, None))
        }),
    ]
};

fn measured(r: &Report, of: fn(&Metrics, &Intervals) -> (f64, [f64; 2])) -> Option<Found> {
    let m = &r.evaluation.measured;
    let (value, interval) = of(&m.metrics, &m.intervals);
    Some((value, Some(interval)))
}

fn known(e: Estimate) -> Option<Found> {
    Some((e.value, Some(e.interval)))
}

/// Accuracy under one of [`Attack::ALL`].
fn attacked(r: &Report, index: usize) -> Option<Found> {
    let a = r.attacks.as_ref()?.iter().find(|a| a.attack == Attack::ALL[index])?;
    Some((a.measured.metrics.accuracy, Some(a.measured.intervals.accuracy)))
}

impl Figure {
    /// Name with unit and the direction that is better.
    pub fn title(&self) -> String {
        let unit = match (self.share, self.key) {
            (true, _) => ", %",
            (_, "nll" | "corrupted_nll") => ", nats",
            _ => "",
        };
        format!("{}{unit} {}", self.name, if self.up { "↑" } else { "↓" })
    }

    /// A value without its unit.
    pub fn write(&self, value: f64) -> String {
        if self.share { format!("{:.1}", 100.0 * value) } else { format!("{value:.3}") }
    }

    /// How charts write it.
    pub fn unit(&self) -> Unit {
        if self.share { Unit::Percent } else { Unit::Plain }
    }
}
