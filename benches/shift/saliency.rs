//! Other ways to make the explanation see shift than the sealed ones: other masks, a typical map of each class, agreement
//! under small noise. Each as the AUROC of one frame, alone and on top of confidence and cosine.
//!
//! On top: scores become normal scores by their rank among healthy frames, and the sum of three is held against the sum
//! of the two.

use crate::subject::Result;
use crate::{Cell, SEVERITIES};
use anstream::println;
use excon_edge::image::Picture;
use excon_edge::predictor::{Prediction, Predictor};
use excon_edge::saliency::{Map, keep_above, keep_top, mask_normalised};
use excon_edge::shift::bet::normal_score;
use excon_edge::shift::{Channel, FrameScores};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Deviation of the small noise, in units of the data set's deviation.
const NOISE: f32 = 0.1;
/// Share of the pixels that the top mask keeps.
const TOP: f64 = 0.25;

/// What is tried, in the order of a frame's values.
const WAYS: [&str; 13] = [
    "confidence",
    "cosine to the class mean",
    "map entropy",
    "salient half kept (sealed): cosine",
    "salient half kept (sealed): other class",
    "soft mask: cosine",
    "soft mask: other class",
    "top quarter kept: cosine",
    "top quarter kept: other class",
    "background alone: cosine",
    "background alone: same class",
    "map unlike the class's typical map",
    "small noise: cosine",
];

/// One value a way and frame; larger is less usual.
type Frame = [f64; WAYS.len()];

/// The mean map of every class, over pictures that are rightly named.
pub struct TypicalMaps(Vec<Vec<f64>>);

impl TypicalMaps {
    /// From labelled pictures.
    pub fn of(predictor: &Predictor, pictures: &[Picture], labels: &[usize]) -> Result<Self> {
        let mut maps = vec![Vec::new(); predictor.parts().labels.len()];
        for (pictures, labels) in pictures.chunks(64).zip(labels.chunks(64)) {
            for (p, label) in
                predictor.predict_all(pictures)?.iter().zip(labels).filter(|(p, label)| p.class == **label)
            {
                let map = centred(&p.cam);
                let sum: &mut Vec<f64> = &mut maps[*label];
                sum.resize(map.len(), 0.0);
                sum.iter_mut().zip(map).for_each(|(sum, v)| *sum += v);
            }
        }
        Ok(Self(maps))
    }

    fn unlike(&self, p: &Prediction) -> f64 {
        let (map, typical) = (centred(&p.cam), &self.0[p.class]);
        let norm = typical.iter().map(|v| v * v).sum::<f64>().sqrt();
        if norm == 0.0 { 1.0 } else { 1.0 - map.iter().zip(typical).map(|(a, b)| a * b).sum::<f64>() / norm }
    }
}

/// A map about its mean, of length 1; zeros for a flat one.
fn centred(map: &Map) -> Vec<f64> {
    let mean = map.mean();
    let values: Vec<f64> = map.values.iter().map(|v| f64::from(*v) - mean).collect();
    let norm = values.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    values.into_iter().map(|v| v / norm).collect()
}

/// Values of every way for pictures at network size.
pub fn frames(predictor: &Predictor, typical: &TypicalMaps, pictures: &[Picture]) -> Result<Vec<Frame>> {
    let mut found = Vec::with_capacity(pictures.len());
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for pictures in pictures.chunks(64) {
        for (picture, p) in pictures.iter().zip(predictor.predict_all(pictures)?) {
            let scores = predictor.scores(picture, &p, false)?;
            let of = |channel| scores_of(&scores, channel);
            let mut input = Vec::new();
            predictor.parts().preprocess.normalise(&predictor.resize(picture), &mut input);
            let map = p.cam.upsample(predictor.parts().preprocess.size, predictor.parts().preprocess.size).normalised();
            let masked = |change: &mut dyn FnMut(&mut [f32])| -> Result<Prediction> {
                let mut input = input.clone();
                change(&mut input);
                Ok(predictor.predict_normalised(&input)?.remove(0))
            };
            let salient = keep_above(&map, 0.5);
            let background: Vec<bool> = salient.iter().map(|keep| !keep).collect();
            let area = map.values.len();
            let half = masked(&mut |x| mask_normalised(x, &salient))?;
            let soft = masked(&mut |x| x.iter_mut().enumerate().for_each(|(i, v)| *v *= map.values[i % area]))?;
            let top = masked(&mut |x| mask_normalised(x, &keep_top(&map, TOP)))?;
            let behind = masked(&mut |x| mask_normalised(x, &background))?;
            let noisy =
                masked(&mut |x| x.iter_mut().for_each(|v| *v += NOISE * (rng.random::<f32>() - 0.5) * 12f32.sqrt()))?;
            let other = |q: &Prediction| f64::from(u8::from(q.class != p.class));
            found.push([
                of(Channel::Confidence),
                of(Channel::Cosine),
                of(Channel::CamEntropy),
                apart(&p, &half),
                other(&half),
                apart(&p, &soft),
                other(&soft),
                apart(&p, &top),
                other(&top),
                -apart(&p, &behind),
                1.0 - other(&behind),
                typical.unlike(&p),
                apart(&p, &noisy),
            ]);
        }
    }
    Ok(found)
}

fn scores_of(scores: &FrameScores, channel: Channel) -> f64 {
    scores.get(channel).unwrap_or(f64::NAN)
}

/// 1 − cosine of two embeddings.
fn apart(a: &Prediction, b: &Prediction) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    1.0 - dot(&a.pooled, &b.pooled) / (dot(&a.pooled, &a.pooled) * dot(&b.pooled, &b.pooled)).sqrt().max(1e-12)
}

/// The table: AUROC of each way alone, and what it adds on top of confidence and cosine.
pub fn table(healthy: &[Frame], cells: &[(&Cell, Vec<Frame>)]) {
    println!(
        "\n| way | severity 1 | 3 | 5 | other classes | on top: 1 | 3 | 5 | other classes |\n|---|---|---|---|---|---|---|---|---|"
    );
    let (half, rest) = healthy.split_at(healthy.len() / 2);
    // Ranks come from one half of the healthy frames; the other half is what shifted ones are told from.
    let score = |frame: &Frame, way: usize| {
        let below = half.iter().filter(|h| h[way] < frame[way]).count() as f64;
        let equal = half.iter().filter(|h| h[way] == frame[way]).count() as f64;
        -normal_score((below + 0.5 * equal + 0.5) / (half.len() as f64 + 1.0))
    };
    for (way, name) in WAYS.iter().enumerate() {
        let alone = |frame: &Frame| frame[way];
        let base = |frame: &Frame| score(frame, 0) + score(frame, 1);
        let on_top = |frame: &Frame| base(frame) + if way < 2 { 0.0 } else { score(frame, way) };
        let mean = |value: &dyn Fn(&Frame) -> f64, severity: usize| {
            let of = |frames: &[Frame]| auroc(&values(rest, value), &values(frames, value));
            let all: Vec<f64> = cells.iter().filter(|(c, _)| c.severity == severity).map(|(_, f)| of(f)).collect();
            all.iter().sum::<f64>() / all.len() as f64
        };
        let row: Vec<String> = [&alone as &dyn Fn(&Frame) -> f64, &on_top]
            .iter()
            .flat_map(|value| {
                SEVERITIES.iter().chain(&[0]).map(|s| format!("{:.3}", mean(*value, *s))).collect::<Vec<_>>()
            })
            .collect();
        println!("| {name} | {} |", row.join(" | "));
    }
}

fn values(frames: &[Frame], value: &dyn Fn(&Frame) -> f64) -> Vec<f64> {
    frames.iter().map(value).collect()
}

/// P(shifted > healthy) + ½ P(equal).
fn auroc(healthy: &[f64], shifted: &[f64]) -> f64 {
    let mut healthy = healthy.to_vec();
    healthy.sort_by(f64::total_cmp);
    let beaten = |v: &f64| healthy.partition_point(|h| h < v) + healthy.partition_point(|h| h <= v);
    shifted.iter().map(beaten).sum::<usize>() as f64 / (2 * healthy.len() * shifted.len()) as f64
}
