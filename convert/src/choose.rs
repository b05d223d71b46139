//! Which form is written: int8 where it pays and keeps its budget, else mixed on the same terms, else float; and the reason,
//! in words. What was asked for by name is written whatever it costs.

use crate::compare::{BudgetLine, Verdict};
use crate::mixed::{KeptFloat, MixedReport};
use crate::target::Choice;
use crate::timing::Timing;
use excon_edge::bundle::Precision;

/// Whether layers that stay float are looked for: int8 as a whole costs more than allowed, and might still pay.
pub(crate) fn wants_mixed(choice: Choice, timing: &Timing, budget: &[BudgetLine]) -> bool {
    let pays =
        choice == Choice::Mixed || choice == Choice::Auto && timing.int8_microseconds < timing.float_microseconds;
    pays && budget.iter().any(|line| line.verdict == Verdict::NotMet)
}

/// Why float is written and not `form`, int8 or mixed; `None` where that is.
pub(crate) fn reason_for_float(
    choice: Choice,
    timing: &Timing,
    form: Precision,
    budget: &[BudgetLine],
) -> Option<String> {
    if choice != Choice::Auto {
        return None;
    }
    let (name, time) = match (form, timing.mixed_microseconds) {
        (Precision::Mixed, Some(time)) => ("mixed", time),
        _ => ("int8", timing.int8_microseconds),
    };
    let asked = format!("`--precision {name}` writes it all the same");
    let float = timing.float_microseconds;
    if time >= float {
        return Some(format!(
            "float is written: {name} is not faster on this machine, {time:.0} µs a picture against {float:.0}; {asked}"
        ));
    }
    let missed = budget.iter().find(|line| line.verdict == Verdict::NotMet)?;
    let [measured, allowed] = [missed.item.measured, missed.item.allowed].map(|v| 100.0 * v);
    Some(format!(
        "float is written: {name} has an {} of {measured:.1} points, and {allowed:.1} are allowed; {asked}",
        missed.item.name
    ))
}

/// What is said of layers that stay float, or that none has to.
pub(crate) fn note_of_choice(choice: Choice, float_written: bool, mixed: Option<&MixedReport>) -> Option<String> {
    let Some(mixed) = mixed else {
        let note = "int8 is written: it keeps the budget with every layer, so that none has to stay float";
        return (choice == Choice::Mixed).then(|| note.into());
    };
    let named: Vec<String> = mixed.float_layers.iter().map(KeptFloat::words).collect();
    let (verb, named) = (if float_written { "would stay" } else { "stay" }, named.join(", "));
    Some(format!("int8 as a whole costs more than allowed; in the mixed form these layers {verb} float: {named}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use excon_edge::bundle::BudgetItem;

    fn line(verdict: Verdict) -> Vec<BudgetLine> {
        let met = verdict != Verdict::NotMet;
        let item = BudgetItem { name: "accuracy loss".into(), allowed: 0.005, measured: 0.04, pictures: 500, met };
        vec![BudgetLine { item, interval: [0.02, 0.06], verdict }]
    }

    fn timing(int8: f64, mixed: Option<f64>) -> Timing {
        Timing { float_microseconds: 100.0, int8_microseconds: int8, mixed_microseconds: mixed, runs: 5 }
    }

    #[test]
    fn layers_that_stay_float_are_looked_for_only_where_they_may_serve() {
        let wanted = |choice, int8, verdict| wants_mixed(choice, &timing(int8, None), &line(verdict));
        assert!(wanted(Choice::Auto, 40.0, Verdict::NotMet));
        assert!(!wanted(Choice::Auto, 140.0, Verdict::NotMet), "int8 is no faster: mixed lies between");
        assert!(!wanted(Choice::Auto, 40.0, Verdict::TooFewPictures) && !wanted(Choice::Auto, 40.0, Verdict::Met));
        assert!(wanted(Choice::Mixed, 140.0, Verdict::NotMet) && !wanted(Choice::Mixed, 40.0, Verdict::Met));
        assert!(!wanted(Choice::Int8, 40.0, Verdict::NotMet));
    }

    #[test]
    fn a_form_is_written_where_it_is_faster_than_float_and_keeps_its_budget() {
        let reason = |mixed, verdict| {
            let form = if mixed > 0.0 { Precision::Mixed } else { Precision::Int8 };
            let timing = timing(40.0, (mixed > 0.0).then_some(mixed));
            reason_for_float(Choice::Auto, &timing, form, &line(verdict)).unwrap_or_default()
        };
        assert_eq!(
            reason(0.0, Verdict::Met) + &reason(70.0, Verdict::Met) + &reason(70.0, Verdict::TooFewPictures),
            ""
        );
        assert!(reason(120.0, Verdict::Met).contains("mixed is not faster on this machine, 120 µs"));
        assert!(
            reason(70.0, Verdict::NotMet).contains("mixed has an accuracy loss of 4.0 points, and 0.5 are allowed")
        );
        assert!(reason(0.0, Verdict::NotMet).contains("--precision int8"));
        let asked =
            reason_for_float(Choice::Mixed, &timing(40.0, Some(120.0)), Precision::Mixed, &line(Verdict::NotMet));
        assert_eq!(asked, None, "what was asked for is written");
    }
}
