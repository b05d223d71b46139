//! Prediction sets and abstention: their promises over many draws, for classes that are easy and hard, and on the test
//! set of CIFAR-100.

use super::*;
use rand::seq::SliceRandom;

/// Probabilities of four classes and labels: class 3 is hard, whatever the network says of it is half noise.
fn drawn(n: usize, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<usize>) {
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let label = rng.random_range(0..4usize);
        let strength = if label == 3 { 0.5 } else { 2.5 };
        let logits: Vec<f64> =
            (0..4).map(|c| rng.random_range(-1.5..1.5) + strength * f64::from(u8::from(c == label))).collect();
        rows.extend(softmax(&logits, 1.0));
        labels.push(label);
    }
    (rows, labels)
}

fn labelled<'a>(rows: &'a (Vec<f64>, Vec<usize>)) -> LabelledRows<'a> {
    LabelledRows { probabilities: &rows.0, classes: 4, labels: &rows.1 }
}

/// Share of rows whose set holds the label, of all and of each class, and the mean size.
fn coverage(conformal: &Conformal, (rows, labels): &(Vec<f64>, Vec<usize>)) -> (f64, [f64; 4], f64) {
    let (mut held, mut of, mut size) = ([0.0; 4], [0.0; 4], 0);
    for (row, &label) in rows.chunks_exact(4).zip(labels) {
        let set = conformal.set(row);
        assert!(set.contains(&argmax(row)) && set.is_sorted(), "{set:?} {row:?}");
        held[label] += f64::from(u8::from(set.contains(&label)));
        of[label] += 1.0;
        size += set.len();
    }
    let n = labels.len() as f64;
    (held.iter().sum::<f64>() / n, std::array::from_fn(|c| held[c] / of[c]), size as f64 / n)
}

#[test]
fn sets_cover_as_promised_all_together_and_by_class() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut mean = |options: &SetOptions| {
        let draws = 60;
        let (mut all, mut each, mut sizes) = (0.0, [0.0; 4], 0.0);
        for _ in 0..draws {
            let (fit, rank, test) = (drawn(400, &mut rng), drawn(400, &mut rng), drawn(1_000, &mut rng));
            let (conformal, few) = Conformal::fit(options, labelled(&fit), labelled(&rank)).unwrap();
            conformal.validate(4).unwrap();
            assert!(few.is_empty() && conformal.options() == *options);
            let (share, classes, size) = coverage(&conformal, &test);
            all += share / f64::from(draws);
            (0..4).for_each(|c| each[c] += classes[c] / f64::from(draws));
            sizes += size / f64::from(draws);
        }
        (all, each, sizes)
    };
    let aps = SetOptions::default();
    let (all, each, aps_size) = mean(&aps);
    close(all, 0.9, 0.01);
    assert!(each[3] < 0.85, "the hard class pays for the others: {each:?}");
    let (all, _, raps_size) = mean(&SetOptions { score: SetScore::Raps, ..aps.clone() });
    close(all, 0.9, 0.01);
    assert!(raps_size < aps_size + 0.02, "{raps_size} {aps_size}");
    let (_, each, _) = mean(&SetOptions { by_class: true, ..aps });
    close(each[3], 0.9, 0.02);
    assert!(each.iter().all(|share| *share > 0.89), "{each:?}");
}

#[test]
fn a_class_of_too_few_pictures_is_in_every_set() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut rank = drawn(200, &mut rng);
    let kept: Vec<usize> = (0..200).filter(|&i| rank.1[i] != 2).collect();
    rank.0 = kept.iter().flat_map(|&i| rank.0[4 * i..4 * i + 4].to_vec()).collect();
    rank.1 = kept.iter().map(|&i| rank.1[i]).collect();
    let options = SetOptions { by_class: true, ..SetOptions::default() };
    let (conformal, few) = Conformal::fit(&options, labelled(&rank), labelled(&rank)).unwrap();
    assert_eq!((few, conformal.by_class.as_ref().unwrap()[2]), (vec![2], None));
    assert!(conformal.set(&[0.97, 0.01, 0.01, 0.01]).contains(&2));
    let text = serde_json::to_string(&conformal).unwrap();
    assert_eq!(serde_json::from_str::<Conformal>(&text).unwrap(), conformal);
    assert!(conformal.validate(3).is_err());
    let few = drawn(8, &mut rng);
    let reason = Conformal::fit(&SetOptions::default(), labelled(&few), labelled(&few)).unwrap_err().to_string();
    assert!(reason.contains("needs at least 9"), "{reason}");
    for alpha in [0.0, 1.0, f64::NAN] {
        assert!(Conformal::fit(&SetOptions { alpha, ..options.clone() }, labelled(&rank), labelled(&rank)).is_err());
    }
}

/// Answers that are right as often as they say: then the risk above a threshold t is the mean of 1 − c above it.
#[test]
fn the_risk_of_answers_stays_within_its_target() {
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let (draws, n, target) = (400, 4_000, 0.1);
    let (mut broken, mut answered) = (0, 0.0);
    for _ in 0..draws {
        let confidences: Vec<f64> = (0..n).map(|_| rng.random_range(0.3..1.0)).collect();
        let right: Vec<bool> = confidences.iter().map(|c| rng.random::<f64>() < *c).collect();
        let fit = Abstention::fit(&confidences, &right, target).unwrap();
        fit.validate().unwrap();
        assert!(fit.error <= target && fit.abstains(fit.confidence - 1e-9) && !fit.abstains(fit.confidence));
        broken += usize::from(0.5 * (1.0 - fit.confidence) > target);
        answered += fit.answered / f64::from(draws);
    }
    // 5 % of 400 are 20; 35 would be more than three standard errors above.
    assert!(broken <= 35, "{broken}");
    // The best threshold, 0.8, answers two in seven; certainty may cost half of that, not more.
    assert!(answered > 0.5 * 0.2 / 0.7, "{answered}");

    let wrong = Abstention::fit(&[0.9; 50], &[false; 50], 0.1).unwrap_err().to_string();
    assert!(wrong.contains("no confidence keeps"), "{wrong}");
    assert!(Abstention::fit(&[0.9; 5], &[true; 5], 0.1).is_err(), "five right answers prove nothing");
    assert_eq!(Abstention::fit(&[0.9; 200], &[true; 200], 0.1).unwrap().answered, 1.0);
    for (confidences, right, risk) in
        [(vec![], vec![], 0.1), (vec![f64::NAN], vec![true], 0.1), (vec![0.5], vec![true], 0.0)]
    {
        assert!(Abstention::fit(&confidences, &right, risk).is_err());
    }
}

#[test]
fn wilson_intervals_match_known_values_and_stay_within_0_and_1() {
    let [low, high] = wilson(0.75, 431);
    assert!((low - 0.70706).abs() < 1e-4 && (high - 0.78858).abs() < 1e-4, "{low} {high}");
    let [low, high] = wilson(1.0, 10);
    assert!((low - 0.72246).abs() < 1e-4 && (high - 1.0).abs() < 1e-9, "{low} {high}");
}

#[test]
fn binomial_limits_are_those_of_the_distribution() {
    // Nothing in 20: 1 − 0.05^(1/20). All of 20: none above 1.
    close(upper_limit(0, 20, 0.05), 1.0 - 0.05f64.powf(1.0 / 20.0), 1e-9);
    assert_eq!((upper_limit(20, 20, 0.05), lower_limit(0, 20, 0.05)), (1.0, 0.0));
    close(lower_limit(20, 20, 0.05), 0.05f64.powf(1.0 / 20.0), 1e-9);
    // One in two at 25 %: the root of (1 − p)² + 2 p (1 − p) = 0.25.
    close(upper_limit(1, 2, 0.25), 0.75f64.sqrt(), 1e-9);
}

/// The test set of CIFAR-100 as a network saw it (41 % right), dealt twenty times into pictures to fit, to rank and to test.
#[test]
fn twenty_splits_of_cifar_100_are_covered_within_a_point() {
    const CLASSES: usize = 100;
    let golden = Golden::open("coverage/cifar100.safetensors");
    let (scale, labels) = (golden.f64("scale")[0], golden.index("label"));
    let logits: Vec<f64> = golden.f64("codes").into_iter().map(|code| (code - 128.0) * scale).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(100);
    let splits: Vec<[(Vec<f64>, Vec<usize>); 3]> = (0..20)
        .map(|_| {
            let mut order: Vec<usize> = (0..labels.len()).collect();
            order.shuffle(&mut rng);
            let part = |range: std::ops::Range<usize>| {
                let row = |i: &usize| &logits[i * CLASSES..][..CLASSES];
                let rows: Vec<f64> = order[range.clone()].iter().flat_map(row).copied().collect();
                (rows, order[range].iter().map(|i| labels[*i]).collect::<Vec<usize>>())
            };
            let parts = [part(0..1_000), part(1_000..8_000), part(8_000..10_000)];
            let scaling = Scaling::from(fit_temperature(&parts[0].0, CLASSES, &parts[0].1).unwrap());
            parts.map(|(rows, labels)| (scaling.rows(&rows, CLASSES), labels))
        })
        .collect();
    for options in [
        SetOptions::default(),
        SetOptions { alpha: 0.05, ..SetOptions::default() },
        SetOptions { score: SetScore::Raps, ..SetOptions::default() },
        SetOptions { by_class: true, ..SetOptions::default() },
    ] {
        let (mut mean, mut size) = (0.0, 0.0);
        for [fit, rank, test] in &splits {
            let [fit, rank] =
                [fit, rank].map(|(rows, labels)| LabelledRows { probabilities: rows, classes: CLASSES, labels });
            let (conformal, _) = Conformal::fit(&options, fit, rank).unwrap();
            let sets: Vec<Vec<usize>> = test.0.chunks_exact(CLASSES).map(|row| conformal.set(row)).collect();
            let held = sets.iter().zip(&test.1).filter(|(set, label)| set.contains(label)).count();
            mean += held as f64 / (test.1.len() * splits.len()) as f64;
            size += sets.iter().map(Vec::len).sum::<usize>() as f64 / (test.1.len() * splits.len()) as f64;
        }
        println!("{options:?}: covered {mean:.4}, mean size {size:.1}");
        close(mean, 1.0 - options.alpha, 0.01);
    }
}
