//! Layers as they are made: convolutions that take affine steps and activations into themselves, and the few forms that
//! stand in for what a [`Folded`](crate::fold::Folded) network has no layer for, each computing exactly the same.
//!
//! | in the file | written as |
//! |---|---|
//! | an affine step or activation that no convolution can take | a depthwise 1 × 1 convolution |
//! | average pooling, the mean in the middle of a network | a depthwise convolution with equal weights |
//! | a linear layer on a whole map | a convolution as large as the map |
//! | a linear layer that others follow | a 1 × 1 convolution |

use super::view::{Axis, Of, Outcome, View};
use crate::fold::{Activation, Layer, LayerId, LayerOp, slide};
use excon_edge::kernel::Clip;
use excon_edge::kernel::graph::Window;
use std::collections::HashSet;

/// Most values of one map.
const MAX_MAP: usize = 1 << 26;
/// How often the values that a file stores may be written again on the way, and how many more a small file may make.
const REWRITES: usize = 8;
const ROOM: usize = 1 << 21;
/// Longest name a layer keeps; parts such as `.weight` are appended to it.
const MAX_NAME: usize = 160;

/// A network in the making.
pub(super) struct Build {
    pub layers: Vec<Layer>,
    /// `x · scale + shift` that the network itself begins with.
    pub input: Option<([f64; 3], [f64; 3])>,
    names: HashSet<String>,
    budget: usize,
}

/// A window of size and step 1.
pub(super) const ONE: Window =
    Window { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], before: [0; 2], after: [0; 2] };

impl Build {
    /// A network that takes pictures of this shape, from a file that stores so many values.
    pub fn new(shape: [usize; 3], stored: usize) -> Self {
        // The three public names of an exported file stay free.
        let names = ["input", "logits", "features"].map(String::from).into();
        let input = Layer { name: "input".into(), op: LayerOp::Input, inputs: vec![], activation: None, shape };
        Self { layers: vec![input], input: None, names, budget: REWRITES * stored + ROOM }
    }

    /// Takes note that so many values are about to be written: time and memory stay in proportion to the file.
    pub fn spend(&mut self, values: usize) -> Outcome<()> {
        match self.budget.checked_sub(values) {
            Some(left) => self.budget = left,
            None => return Err("the network makes far more numbers than its file stores".into()),
        }
        Ok(())
    }

    /// A name like the wished one that no layer has.
    fn name(&mut self, wish: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-/:".contains(c) { c } else { '_' };
        let wish: String = wish.trim_start_matches('/').chars().map(plain).take(MAX_NAME).collect();
        let wish = if wish.is_empty() { "layer".to_string() } else { wish };
        let numbered = (2..).map(|n| format!("{wish}_{n}"));
        let free = std::iter::once(wish.clone()).chain(numbered).find(|n| !self.names.contains(n)).unwrap_or(wish);
        self.names.insert(free.clone());
        free
    }

    pub fn push(&mut self, name: &str, op: LayerOp, inputs: Vec<LayerId>, shape: [usize; 3]) -> Outcome<LayerId> {
        let size = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).unwrap_or(usize::MAX);
        if size == 0 || size > MAX_MAP {
            return Err(format!("its result {shape:?} is empty or has more than {MAX_MAP} values"));
        }
        if let LayerOp::Conv { weight, bias, .. } | LayerOp::Linear { weight, bias } = &op {
            self.spend(weight.len())?;
            if weight.iter().chain(bias).any(|v| !v.is_finite()) {
                return Err("its weights, with what is folded into them, are not all finite".into());
            }
        }
        let name = self.name(name);
        self.layers.push(Layer { name, op, inputs, activation: None, shape });
        Ok(self.layers.len() - 1)
    }

    /// A convolution on a layer.
    pub fn conv(
        &mut self,
        name: &str,
        from: LayerId,
        (weight, bias): (Vec<f32>, Vec<f32>),
        window: Window,
        groups: usize,
    ) -> Outcome<LayerId> {
        let shape = slide(self.layers[from].shape, bias.len(), &window).ok_or("its window does not fit its input")?;
        self.push(name, LayerOp::Conv { weight, bias, window, groups }, vec![from], shape)
    }

    /// A convolution of each channel by itself with one weight for all its taps.
    pub fn depthwise(
        &mut self,
        name: &str,
        from: LayerId,
        window: Window,
        scale: &[f64],
        shift: &[f64],
    ) -> Outcome<LayerId> {
        let taps = window.kernel[0] * window.kernel[1];
        self.spend(taps * scale.len())?;
        let weight = scale.iter().flat_map(|&s| std::iter::repeat_n(s as f32, taps)).collect();
        let bias = shift.iter().map(|&s| s as f32).collect();
        self.conv(name, from, (weight, bias), window, scale.len())
    }

    /// The mean over a whole map, as a layer.
    fn mean(&mut self, name: &str, from: LayerId) -> Outcome<LayerId> {
        let [channels, rows, columns] = self.layers[from].shape;
        if rows * columns == 1 {
            return Ok(from);
        }
        let share = 1.0 / (rows * columns) as f64;
        let window = Window { kernel: [rows, columns], ..ONE };
        self.depthwise(&format!("{name}.mean"), from, window, &vec![share; channels], &vec![0.0; channels])
    }

    /// The layer that computes what a view shows.
    pub fn layer(&mut self, name: &str, view: &View) -> Outcome<LayerId> {
        match &view.of {
            Of::Layer(id) => Ok(*id),
            Of::Mean(map) => self.mean(name, *map),
            Of::Linear { map, weight, bias } => {
                let mean = self.mean(name, *map)?;
                self.conv(&format!("{name}.linear"), mean, (weight.to_vec(), bias.clone()), ONE, 1)
            }
            Of::Padded(..) => Err("its input is padded; only convolutions and pools take that".into()),
        }
    }

    /// `x · scale + shift` of each channel.
    pub fn affine(&mut self, name: &str, view: &View, scale: &[f64], shift: &[f64]) -> Outcome<View> {
        if scale.iter().chain(shift).any(|v| !v.is_finite()) {
            return Err("its numbers are not all finite".into());
        }
        let mut made = view.clone();
        let apply = |weight: &mut [f32], bias: &mut [f32]| {
            let per = (weight.len() / bias.len().max(1)).max(1);
            for (c, filter) in weight.chunks_exact_mut(per).enumerate() {
                filter.iter_mut().for_each(|w| *w = (f64::from(*w) * scale[c]) as f32);
                bias[c] = (f64::from(bias[c]) * scale[c] + shift[c]) as f32;
            }
        };
        match &mut made.of {
            Of::Linear { weight, bias, .. } => {
                self.spend(weight.len())?;
                let mut scaled = weight.to_vec();
                apply(&mut scaled, bias);
                *weight = scaled.into();
                return Ok(made);
            }
            Of::Layer(0)
                if self.layers.len() == 1 && !view.shared && scale.len() == 3 && scale.iter().all(|&s| s > 0.0) =>
            {
                let (a, b) = self.input.unwrap_or(([1.0; 3], [0.0; 3]));
                let scaled = std::array::from_fn(|c| a[c] * scale[c]);
                let shifted = std::array::from_fn(|c| b[c] * scale[c] + shift[c]);
                self.input = Some((scaled, shifted));
                return Ok(made);
            }
            Of::Layer(id) if !view.shared => {
                let id = *id;
                if let LayerOp::Conv { weight, .. } = &self.layers[id].op {
                    self.spend(weight.len())?;
                }
                if let Layer { op: LayerOp::Conv { weight, bias, .. }, activation: None, .. } = &mut self.layers[id] {
                    apply(weight, bias);
                    if weight.iter().chain(bias.iter()).any(|v| !v.is_finite()) {
                        return Err("its weights, with what is folded into them, are not all finite".into());
                    }
                    return Ok(made);
                }
            }
            _ => {}
        }
        let from = self.layer(name, view)?;
        made.of = Of::Layer(self.depthwise(name, from, ONE, scale, shift)?);
        Ok(made)
    }

    /// An activation that clips.
    pub fn clip(&mut self, name: &str, view: &View, clip: Clip) -> Outcome<View> {
        if clip.low.is_nan() || clip.high.is_nan() || clip.low > clip.high {
            return Err("its limits are in the wrong order".into());
        }
        let mut made = view.clone();
        let known = self.range(view);
        if clip.low <= known.low && clip.high >= known.high {
            return Ok(made);
        }
        let computed = !matches!(view.of, Of::Layer(_));
        let mut id = self.layer(name, view)?;
        let takes = matches!(self.layers[id].op, LayerOp::Conv { .. } | LayerOp::Add);
        if !takes || (view.shared && !computed) {
            let channels = self.layers[id].shape[0];
            id = self.depthwise(&format!("{name}.copy"), id, ONE, &vec![1.0; channels], &vec![0.0; channels])?;
        }
        let named = self.name(name);
        let layer = &mut self.layers[id];
        let before = layer.activation.take();
        let both = before.as_ref().map_or(clip, |a| a.clip.then(clip));
        layer.activation = Some(Activation { name: before.map_or(named, |a| a.name), clip: both });
        made.of = Of::Layer(id);
        Ok(made)
    }

    /// Between which values a view is known to lie.
    pub fn range(&self, view: &View) -> Clip {
        match view.of {
            Of::Layer(id) | Of::Mean(id) => {
                let layer = &self.layers[id];
                match (&layer.activation, &layer.op) {
                    (Some(activation), _) => activation.clip,
                    (None, LayerOp::MaxPool { .. }) => {
                        self.range(&View { of: Of::Layer(layer.inputs[0]), ..view.clone() })
                    }
                    _ => Clip::NONE,
                }
            }
            _ => Clip::NONE,
        }
    }

    /// A linear layer: `weight` is `outputs × inputs` with the inputs as the view holds them.
    pub fn linear(&mut self, name: &str, view: &View, weight: Vec<f32>, bias: Vec<f32>) -> Outcome<View> {
        let outputs = bias.len();
        let [channels, rows, columns] = view.shape;
        if view.dims.len() != 2 || view.dims[0] != 1 {
            return Err(format!("its input {:?} is no row for each picture", view.dims));
        }
        if rows * columns == 1 {
            let map = match view.of {
                Of::Layer(id) | Of::Mean(id) => id,
                _ => self.layer(name, view)?,
            };
            return Ok(View::row(Of::Linear { map, weight: weight.into(), bias }, outputs));
        }
        // A whole map, flattened in the order of the view: as a convolution's weights, channels first.
        let from = self.layer(name, view)?;
        let size = view.dims[1];
        let mut strides = [0; 3];
        let mut step = 1;
        for &axis in view.order.iter().rev() {
            strides[axis as usize] = step;
            step *= view.shape[axis as usize];
        }
        let stride = |axis: Axis| strides[axis as usize];
        self.spend(weight.len())?;
        let mut sorted = Vec::with_capacity(weight.len());
        for output in weight.chunks_exact(size) {
            for c in 0..channels {
                for r in 0..rows {
                    let start = c * stride(Axis::Channel) + r * stride(Axis::Row);
                    sorted.extend((0..columns).map(|x| output[start + x * stride(Axis::Column)]));
                }
            }
        }
        let window = Window { kernel: [rows, columns], ..ONE };
        Ok(View::row(Of::Layer(self.conv(name, from, (sorted, bias), window, 1)?), outputs))
    }
}
