//! The scalar twin: the arithmetic of this module's first paragraph in plain loops, on planar maps of centred codes.
//! Slow, and the measure of every other text.

use super::{Conv, Graph, Map, Requantize, Step, Window, ratio};

/// Planar centred codes of every map of a graph, by its plain loops; `image` holds what is given, planar and one behind the other.
pub fn run(graph: &Graph, image: &[f32]) -> Vec<Vec<i32>> {
    let mut values = vec![Vec::new(); graph.maps.len()];
    let mut rest = image;
    for map in 0..graph.given {
        let (given, others) = rest.split_at(graph.values(map..map + 1));
        values[map] = given.iter().map(|&v| graph.maps[map].codes.quantize(v) as i32).collect();
        rest = others;
    }
    for step in &graph.steps {
        values[step.output()] = match step {
            Step::Conv(c) => {
                let sums = accumulate(c, &graph.maps[c.input], &values[c.input]);
                let area = graph.maps[c.output].height * graph.maps[c.output].width;
                requantize(c, &graph.maps, &sums, c.residual.map(|r| values[r.map].as_slice()), area)
            }
            Step::Add { inputs: [a, b], output, clip } => {
                let to = &graph.maps[*output].codes;
                let (low, high) = to.limits(*clip);
                let factor = |id: usize| ratio(&graph.maps[id].codes, to);
                let pairs = values[*a].iter().zip(&values[*b]);
                let sum = pairs.map(|(&x, &y)| x as f32 * factor(*a) + y as f32 * factor(*b));
                sum.map(|v| v.clamp(low, high).round_ties_even() as i32).collect()
            }
            Step::MaxPool { input, output, window } => {
                let (from, to) = (&graph.maps[*input], &graph.maps[*output]);
                max_pool(window, from, to, &values[*input])
            }
        };
    }
    values
}

/// The exact sums `Σ x·w` of a convolution, planar.
pub fn accumulate(conv: &Conv, input: &Map, x: &[i32]) -> Vec<i32> {
    let w = &conv.window;
    let [rows, columns] = w.output(input.height, input.width).unwrap_or_default();
    let [kernel_rows, kernel_columns] = w.kernel;
    let outputs = conv.weight_scale.len();
    let (fan_in, fan_out) = (input.channels / conv.groups, outputs / conv.groups);
    let mut sums = Vec::with_capacity(outputs * rows * columns);
    for o in 0..outputs {
        for row in 0..rows {
            for column in 0..columns {
                let mut sum = 0;
                for i in 0..fan_in {
                    for ky in 0..kernel_rows {
                        for kx in 0..kernel_columns {
                            let y = (row * w.stride[0] + ky * w.dilation[0]).checked_sub(w.before[0]);
                            let x_at = (column * w.stride[1] + kx * w.dilation[1]).checked_sub(w.before[1]);
                            if let (Some(y), Some(x_at)) = (y, x_at)
                                && y < input.height
                                && x_at < input.width
                            {
                                let channel = o / fan_out * fan_in + i;
                                let code = x[(channel * input.height + y) * input.width + x_at];
                                let tap = ((o * fan_in + i) * kernel_rows + ky) * kernel_columns + kx;
                                sum += code * i32::from(conv.weight[tap]);
                            }
                        }
                    }
                }
                sums.push(sum);
            }
        }
    }
    sums
}

/// Sums to centred codes: requantization, residual, activation, in the order of the specification.
fn requantize(conv: &Conv, maps: &[Map], sums: &[i32], residual: Option<&[i32]>, area: usize) -> Vec<i32> {
    let r = Requantize::new(conv, maps);
    let end = |(at, &sum): (usize, &i32)| {
        let mut y = sum as f32 * r.scale[at / area] + r.bias[at / area];
        if let Some(other) = residual {
            if let Some((low, high, factor)) = r.between {
                y = y.clamp(low, high).round_ties_even() * factor;
            }
            y += other[at] as f32 * r.residual;
        }
        y.clamp(r.low, r.high).round_ties_even() as i32
    };
    sums.iter().enumerate().map(end).collect()
}

fn max_pool(w: &Window, from: &Map, to: &Map, x: &[i32]) -> Vec<i32> {
    let mut out = Vec::with_capacity(to.channels * to.height * to.width);
    for plane in x.chunks_exact(from.height * from.width) {
        for row in 0..to.height {
            for column in 0..to.width {
                let inside = |at: usize, i: usize, size: usize| {
                    let start = at * w.stride[i];
                    (start..start + w.kernel[i]).filter_map(move |v| v.checked_sub(w.before[i]).filter(|&v| v < size))
                };
                let codes = inside(row, 0, from.height)
                    .flat_map(|y| inside(column, 1, from.width).map(move |x_at| plane[y * from.width + x_at]));
                let best = codes.max().unwrap_or_default();
                out.push(to.codes.quantize(best as f32 * from.codes.scale) as i32);
            }
        }
    }
    out
}
