//! Corrections of a float network before it is quantized: channels of one map brought to one range, and biases moved by
//! what rounding the weights shifts on average (Nagel et al., *Data-free quantization through weight equalization and bias
//! correction*, 2019, sections 4.1 and 4.2; here with what calibration pictures showed).
//!
//! A map has one scale for all channels, so a channel that reaches a tenth of the range has a tenth of the codes. Between
//! two convolutions a channel may be multiplied by `k > 0` in the first and divided by it in the second: with ReLU the
//! network computes the same. Behind an upper limit (ReLU6) it does where the channel stays below `limit / k`, so `k` is
//! held to what calibration pictures leave, with a margin; beyond that it saturates as a quantized map would anyway.

use crate::fold::{Folded, LayerId, LayerOp};
use crate::quantize::quantize_weight;
use crate::range::Observed;
use excon_edge::kernel::Clip;

/// What other pictures may reach beyond the largest value that calibration pictures reached.
const MARGIN: f32 = 1.25;
/// Largest and, inverted, least factor of a channel.
const MOST: f32 = 64.0;

/// The network with the channels of its inner maps brought closer to one range; `None` where no map can be.
///
/// A map can be where a convolution alone reads it and its activation, if any, begins at 0. A depthwise reader takes any
/// factor without loss, for its weights have a scale a channel; one that mixes channels takes the factor that leaves map
/// and weights equally far from their ranges: `k = √((w / W) / (r / R))`.
pub fn equalised(network: &Folded, observed: &Observed) -> Option<Folded> {
    let mut equal = network.clone();
    let mut changed = false;
    for from in 0..network.layers.len() {
        let Some((to, factors)) = factors(network, observed, from) else { continue };
        if let LayerOp::Conv { weight, bias, .. } = &mut equal.layers[from].op {
            let filter = weight.len() / bias.len().max(1);
            for ((filter, bias), k) in weight.chunks_exact_mut(filter.max(1)).zip(bias).zip(&factors) {
                filter.iter_mut().for_each(|w| *w *= k);
                *bias *= k;
            }
        }
        if let LayerOp::Conv { weight, bias, groups, window } = &mut equal.layers[to].op {
            let inputs = Inputs::new(weight.len(), bias.len(), *groups, window.kernel);
            for (at, taps) in weight.chunks_exact_mut(inputs.taps).enumerate() {
                taps.iter_mut().for_each(|w| *w /= factors[inputs.channel(at)]);
            }
        }
        changed = true;
    }
    changed.then_some(equal)
}

/// The convolution that reads layer `from`, and a factor for every channel between them.
fn factors(network: &Folded, observed: &Observed, from: LayerId) -> Option<(LayerId, Vec<f32>)> {
    let layer = &network.layers[from];
    let clip = layer.activation.as_ref().map_or(Clip::NONE, |a| a.clip);
    let scalable = matches!(layer.op, LayerOp::Conv { .. }) && (clip.low == 0.0 || clip == Clip::NONE);
    let readers: Vec<LayerId> =
        (0..network.layers.len()).filter(|&i| network.layers[i].inputs.contains(&from)).collect();
    let ([to], true) = (&readers[..], scalable && from != network.features) else { return None };
    let LayerOp::Conv { weight, bias, groups, window } = &network.layers[*to].op else { return None };
    let ranges = &observed.map(from)?.largest;
    let inputs = Inputs::new(weight.len(), bias.len(), *groups, window.kernel);
    let widest = ranges.iter().fold(0.0f32, |m, &r| m.max(r));
    let depthwise = inputs.per_filter == 1;
    let whole = if clip.high.is_finite() { clip.high.min(MARGIN * widest) } else { widest };
    let importance = importance(weight, &inputs, ranges.len());
    let factor = |(&range, &weight): (&f32, &f32)| {
        if range <= 0.0 || weight <= 0.0 {
            return 1.0; // a channel that is always 0, or that nothing reads
        }
        let fill = whole / range;
        let k = if depthwise { fill } else { (fill * weight).sqrt() };
        let k = k.clamp(1.0 / MOST, MOST);
        // Scaled down, a limit would come into force later than trained.
        if clip.high.is_finite() { k.min(clip.high / (MARGIN * range)).max(1.0) } else { k }
    };
    Some((*to, ranges.iter().zip(&importance).map(factor).collect()))
}

/// Largest weight that reads each channel, as a share of the largest of its filter; 0..=1.
fn importance(weight: &[f32], inputs: &Inputs, channels: usize) -> Vec<f32> {
    let top = |taps: &[f32]| taps.iter().fold(0.0f32, |m, w| m.max(w.abs()));
    let mut shares = vec![0.0f32; channels];
    for (filter, taps) in weight.chunks_exact(inputs.per_filter * inputs.taps).enumerate() {
        let largest = top(taps);
        for (at, taps) in taps.chunks_exact(inputs.taps).enumerate().filter(|_| largest > 0.0) {
            let channel = inputs.channel(filter * inputs.per_filter + at);
            shares[channel] = shares[channel].max(top(taps) / largest);
        }
    }
    shares
}

/// The network with every bias moved against the mean error of its filter's rounded weights: `b − Σ (ŵ − w) · E[x]`, with
/// the means of the input's channels (as if padding were like the rest).
pub fn bias_corrected(network: &Folded, observed: &Observed) -> Folded {
    let mut corrected = network.clone();
    for layer in &mut corrected.layers {
        let LayerOp::Conv { weight, bias, groups, window } = &mut layer.op else { continue };
        let Some(seen) = layer.inputs.first().and_then(|&i| observed.map(i)) else { continue };
        let inputs = Inputs::new(weight.len(), bias.len(), *groups, window.kernel);
        let (bytes, scales) = quantize_weight(weight, bias.len());
        let filter = inputs.per_filter * inputs.taps;
        for (at, (&byte, &weight)) in bytes.iter().zip(weight.iter()).enumerate() {
            let error = f64::from(byte) * f64::from(scales[at / filter]) - f64::from(weight);
            let bias = &mut bias[at / filter];
            *bias = (f64::from(*bias) - error * seen.mean[inputs.channel(at / inputs.taps)]) as f32;
        }
    }
    corrected
}

/// Which input channel a slice of a convolution's weights reads.
struct Inputs {
    /// Weights of one slice.
    taps: usize,
    /// Slices of one filter.
    per_filter: usize,
    filters_per_group: usize,
}

impl Inputs {
    fn new(weights: usize, filters: usize, groups: usize, kernel: [usize; 2]) -> Self {
        let taps = kernel.iter().product::<usize>().max(1);
        let per_filter = (weights / (filters * taps).max(1)).max(1);
        Self { taps, per_filter, filters_per_group: (filters / groups.max(1)).max(1) }
    }

    /// Input channel of the slice at this position.
    fn channel(&self, slice: usize) -> usize {
        let (filter, input) = (slice / self.per_filter, slice % self.per_filter);
        filter / self.filters_per_group * self.per_filter + input
    }
}
