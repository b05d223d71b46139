//! Vector scaling and Venn–Abers against independent vectors, and the choice among calibrations on data whose best one is
//! known.

use super::*;

#[test]
fn vector_scaling_is_the_reference() {
    let golden = Golden::open(DATA);
    let expected = &json("probability/metrics.json")["vector_scaling"];
    let (logits, labels) = (golden.f64("logits"), golden.index("label"));
    let fit = VectorScaling::fit(&logits, CLASSES, &labels).unwrap();
    assert!(gap(&fit.weights, &golden.f64("vector_scale")) <= 1e-5, "{:?}", fit.weights);
    assert!(gap(&fit.biases, &golden.f64("vector_bias_centred")) <= 1e-5, "{:?}", fit.biases);
    let scaling = Scaling { temperature: 1.0, refinement: Some(Refinement::Vector(fit)) };
    let nll = Metrics::measure(&scaling.rows(&logits, CLASSES), CLASSES, &labels).unwrap().nll;
    close(nll, expected["nll"].as_f64().unwrap(), 1e-10);
    let test = scaling.rows(&golden.f64("test_logits"), CLASSES);
    assert!(gap(&test, &golden.f64("vector_scaled_softmax_test")) <= 1e-6);
    assert!(VectorScaling::fit(&logits, CLASSES, &labels[1..]).is_err());
}

#[test]
fn venn_abers_is_the_reference() {
    let golden = Golden::open(DATA);
    let fit = VennAbers::fit(&golden.f64("venn.cal_score"), &golden.mask("venn.cal_label")).unwrap();
    let scores = golden.f64("venn.test_score");
    let both: Vec<f64> = scores.iter().flat_map(|s| fit.p0_p1(*s)).collect();
    assert!(gap(&both, &golden.f64("venn.p0_p1_two_isotonic")) <= 1e-12);
    let merged: Vec<f64> = scores.iter().map(|s| fit.probability(*s)).collect();
    assert!(gap(&merged, &golden.f64("venn.p")) <= 1e-12);
    for (scores, right) in [(vec![], vec![]), (vec![0.5], vec![]), (vec![f64::NAN], vec![true])] {
        assert!(VennAbers::fit(&scores, &right).is_err());
    }
    let text = serde_json::to_string(&fit).unwrap();
    assert_eq!(serde_json::from_str::<VennAbers>(&text).unwrap(), fit);
}

/// Least-squares non-decreasing fit of values with weights, by pooling neighbours that fall.
fn isotonic(values: &[(f64, f64)]) -> Vec<f64> {
    let mut blocks: Vec<(f64, f64, usize)> = Vec::new();
    for &(sum, weight) in values {
        blocks.push((sum, weight, 1));
        while let [.., a, b] = blocks[..] {
            if a.0 / a.1 < b.0 / b.1 {
                break;
            }
            blocks.truncate(blocks.len() - 2);
            blocks.push((a.0 + b.0, a.1 + b.1, a.2 + b.2));
        }
    }
    blocks.iter().flat_map(|b| std::iter::repeat_n(b.0 / b.1, b.2)).collect()
}

proptest! {
    /// The step function is the definition: the new score joins the others, and the regression is made anew.
    #[test]
    fn the_steps_are_two_regressions_with_the_new_score(
        answers in proptest::collection::vec((0u8..12, any::<bool>()), 1..40),
        new in 0u8..25,
    ) {
        // Scores on a grid of 12: many ties. New ones fall on them and between.
        let score = |grid: u8| f64::from(grid) / 12.0;
        let (scores, right): (Vec<f64>, Vec<bool>) = answers.iter().map(|(s, r)| (score(*s), *r)).unzip();
        let fit = VennAbers::fit(&scores, &right).unwrap();
        let new = f64::from(new) / 24.0 - 0.01;
        for candidate in [0.0, 1.0] {
            let mut all: Vec<(f64, f64)> = scores.iter().zip(&right).map(|(s, r)| (*s, f64::from(u8::from(*r)))).collect();
            all.push((new, candidate));
            all.sort_by(|a, b| a.0.total_cmp(&b.0));
            let mut groups: Vec<(f64, f64, f64)> = Vec::new();
            for (s, y) in all {
                match groups.last_mut() {
                    Some(g) if g.0 == s => *g = (s, g.1 + y, g.2 + 1.0),
                    _ => groups.push((s, y, 1.0)),
                }
            }
            let values = isotonic(&groups.iter().map(|g| (g.1, g.2)).collect::<Vec<_>>());
            let at = groups.iter().position(|g| g.0 == new).unwrap();
            let own = fit.p0_p1(new)[candidate as usize];
            prop_assert!((own - values[at]).abs() < 1e-12, "{own} {} {groups:?}", values[at]);
        }
        let p = fit.probability(new);
        prop_assert!(p > 0.0 && p < 1.0);
    }

    #[test]
    fn every_scaling_gives_probabilities(
        logits in proptest::collection::vec(-400.0f64..400.0, 3),
        temperature in 0.05f64..20.0,
        weights in proptest::collection::vec(-2.0f64..2.0, 3),
    ) {
        let venn_abers = VennAbers::fit(&[0.2, 0.6, 0.9], &[false, true, true]).unwrap();
        let vector = VectorScaling { weights: weights.clone(), biases: weights };
        for refinement in [None, Some(Refinement::VennAbers(venn_abers)), Some(Refinement::Vector(vector))] {
            let scaling = Scaling { temperature, refinement };
            scaling.validate(3).unwrap();
            let p = scaling.probabilities(&logits);
            prop_assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && p.iter().all(|v| (0.0..=1.0).contains(v)), "{p:?}");
        }
    }
}

#[test]
fn a_scaling_is_written_as_it_is_read_and_a_broken_one_is_refused() {
    let plain: Scaling = serde_json::from_str(r#"{"temperature":1.5}"#).unwrap();
    assert_eq!((&plain, serde_json::to_string(&plain).unwrap().as_str()), (&1.5.into(), r#"{"temperature":1.5}"#));
    assert_eq!(plain.words(), "temperature 1.500");
    let vector = VectorScaling { weights: vec![1.0, 2.0], biases: vec![0.1 + 0.2, -0.3] };
    let scaling = Scaling { temperature: 1.0, refinement: Some(Refinement::Vector(vector)) };
    let text = serde_json::to_string(&scaling).unwrap();
    assert_eq!(serde_json::from_str::<Scaling>(&text).unwrap(), scaling);
    assert!(scaling.validate(2).is_ok() && scaling.validate(3).is_err());
    for broken in [
        r#"{"temperature":0}"#,
        r#"{"temperature":1,"refinement":{"method":"vector","weights":[1,1e9],"biases":[0,0]}}"#,
        r#"{"temperature":1,"refinement":{"method":"venn-abers","steps":[]}}"#,
        r#"{"temperature":1,"refinement":{"method":"venn-abers","steps":[[0.5,0.1,0.2],[0.4,0.2,0.3]]}}"#,
        r#"{"temperature":1,"refinement":{"method":"venn-abers","steps":[[0.5,1.0,0.0]]}}"#,
    ] {
        assert!(serde_json::from_str::<Scaling>(broken).unwrap().validate(2).is_err(), "{broken}");
    }
    assert!(serde_json::from_str::<Scaling>(r#"{"temperature":1,"refinement":{"method":"other"}}"#).is_err());
}

/// Logits of three classes and labels drawn from what `truth` makes of them.
fn drawn(n: usize, seed: u64, truth: impl Fn(&[f64]) -> Vec<f64>) -> (Vec<f64>, Vec<usize>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let logits: Vec<f64> = (0..n * 3).map(|_| rng.random_range(-3.0..3.0)).collect();
    let label = |row: &[f64]| {
        let (p, u) = (truth(row), rng.random::<f64>());
        if u < p[0] { 0 } else { 1 + usize::from(u >= p[0] + p[1]) }
    };
    let labels = logits.chunks_exact(3).map(label).collect();
    (logits, labels)
}

#[test]
fn the_simplest_calibration_that_held_out_pictures_allow_is_chosen() {
    let method = |choice: &Choice| choice.candidates.iter().find(|c| c.chosen).unwrap().method;
    // Twice too sure: a temperature, and no more.
    let (logits, labels) = drawn(2_000, 3, |row| softmax(row, 2.0));
    let choice = choose(&logits, 3, &labels).unwrap();
    assert_eq!((method(&choice), choice.candidates.len()), (Method::Temperature, 4), "{:?}", choice.candidates);
    close(choice.scaling.temperature, 2.0, 0.25);
    assert_eq!(choice.scaling.refinement, None);
    // Classes that are wrong by offsets of their own: a vector.
    let (logits, labels) = drawn(2_000, 4, |row| softmax(&[row[0] + 1.5, row[1], row[2] - 1.5], 1.0));
    let choice = choose(&logits, 3, &labels).unwrap();
    assert_eq!(method(&choice), Method::Vector, "{:?}", choice.candidates);
    let Some(Refinement::Vector(vector)) = &choice.scaling.refinement else { panic!("no vector") };
    assert!(gap(&vector.biases, &[1.5, 0.0, -1.5]) < 0.25, "{:?}", vector.biases);
    // Sure answers that are no better than unsure ones: no temperature says that, a step function does.
    let flat = |row: &[f64]| {
        let top = argmax(row);
        (0..3).map(|class| if class == top { 0.7 } else { 0.15 }).collect::<Vec<f64>>()
    };
    let (logits, labels) = drawn(2_000, 5, flat);
    let choice = choose(&logits, 3, &labels).unwrap();
    assert_eq!(method(&choice), Method::VennAbers, "{:?}", choice.candidates);
    let sure = choice.scaling.probabilities(&[2.5, 0.0, -1.0])[0];
    close(sure, 0.7, 0.06);
}

#[test]
fn what_held_out_pictures_do_not_gain_by_is_refused_and_said() {
    // Calibrated already: over many draws a fit must be refused about as often as it is taken, and no refinement appears.
    let choices: Vec<Choice> = (0..20)
        .map(|seed| {
            let (logits, labels) = drawn(300, 100 + seed, |row| softmax(row, 1.0));
            choose(&logits, 3, &labels).unwrap()
        })
        .collect();
    let refused = choices.iter().filter(|c| c.scaling == Scaling::default()).count();
    assert!((4..=19).contains(&refused), "{refused}");
    for choice in choices.iter().filter(|c| c.scaling == Scaling::default()) {
        assert!(choice.notes.iter().any(|n| n.contains("temperature kept at 1")), "{:?}", choice.notes);
    }
    let refined = choices.iter().filter(|c| c.scaling.refinement.is_some()).count();
    assert!(refined <= 3, "{refined}");

    let few = choose(&[1.0f32; 18], 2, &[0; 9]).unwrap();
    assert!(few.scaling == Scaling::default() && few.notes[0].contains("10 are needed"), "{:?}", few.notes);
    // Every answer right: the likelihood has no best temperature.
    let right = choose(&[3.0f32, 0.0].repeat(20), 2, &[0; 20]).unwrap();
    assert!(right.scaling == Scaling::default() && right.notes[0].contains("kept at 1"), "{:?}", right.notes);
    assert!(choose(&[f32::NAN; 40], 2, &[0; 20]).is_err());
}
