//! The promise in words, with what it rests on and what it lacks.

use super::reference::{LOW_POWER, Reference};
use super::sensor::SensorFault;
use serde::Serialize;

/// What a user is promised, and whether it holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Promise {
    /// The promise in one sentence, or `no guarantee` and why.
    pub sentence: String,
    /// N: mean effective frames between false alarms, at least.
    pub mean_time_between_false_alarms: f64,
    /// Kept reference frames n.
    pub reference_frames: usize,
    /// Integrated autocorrelation time of the reference in raw frames.
    pub autocorrelation_time: f64,
    /// Raw frames per effective frame.
    pub step: usize,
    /// Whether every condition that can be checked holds.
    pub guarantee: bool,
    /// Whether the reference is too small to expect much power.
    pub low_power: bool,
    /// Conditions that fail.
    pub reasons: Vec<String>,
    /// What the promise rests on.
    pub conditions: Vec<String>,
}

impl Promise {
    pub(super) fn new(reference: &Reference, mean_time: f64, fault: Option<SensorFault>, accepted: bool) -> Self {
        let mut reasons: Vec<String> = reference.problems().iter().map(|p| p.words().to_string()).collect();
        if let Some(fault) = fault {
            reasons.push(format!("sensor fault ({})", fault.words()));
        }
        let n = thousands(mean_time);
        let mut sentence = if reasons.is_empty() {
            format!(
                "With no shift, P(a false alarm within t effective frames) ≤ t/{n}, so the mean time between false \
                 alarms is at least {n} effective frames"
            )
        } else {
            format!("no guarantee: {}", reasons.join("; "))
        };
        let low_power = reference.low_power();
        if low_power {
            sentence += &format!(" (low power: fewer than {LOW_POWER} reference frames)");
        }
        let time = reference.autocorrelation_time();
        let mut conditions = vec![
            format!("marginal over the draw of the reference of {} effective frames", reference.frames()),
            "reference and stream come from the same source, and the score model has not seen the reference".into(),
        ];
        if reference.independent() {
            conditions.push("frames were declared independent of each other: every frame counts".into());
        } else {
            conditions.push(format!(
                "approximate for video: autocorrelation time {time:.1} raw frames, one frame in {} counts",
                reference.step()
            ));
        }
        conditions
            .push("proved for each channel; the weighted average over channels is held to it by simulation".into());
        if accepted {
            conditions
                .push("the reference was accepted on the device after an alarm; the promise counts from there".into());
        }
        Self {
            sentence,
            mean_time_between_false_alarms: mean_time,
            reference_frames: reference.frames(),
            autocorrelation_time: time,
            step: reference.step(),
            guarantee: reasons.is_empty(),
            low_power,
            reasons,
            conditions,
        }
    }
}

/// A whole number with commas: `1,000,000`.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::thousands;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([1.0, 1_000.0, 1_000_000.0].map(thousands), ["1", "1,000", "1,000,000"]);
    }
}
