//! The scalar twin: a float network in plain loops on planar maps, sums in f64. Slow, and the measure of every other text.

use super::{Conv, Graph, Map, Step, Window};
use crate::kernel::Clip;

/// Planar values of every map of a graph; `image` holds what is given, planar and one behind the other.
pub fn run(graph: &Graph, image: &[f32]) -> Vec<Vec<f32>> {
    let mut values = vec![Vec::new(); graph.maps.len()];
    let mut rest = image;
    for map in 0..graph.given {
        let (given, others) = rest.split_at(graph.values(map..map + 1));
        (values[map], rest) = (given.to_vec(), others);
    }
    for step in &graph.steps {
        values[step.output()] = match step {
            Step::Conv(c) => {
                let residual = c.residual.map(|r| values[r.map].as_slice());
                convolve(c, &graph.maps, &values[c.input], residual)
            }
            Step::Add { inputs: [a, b], clip, .. } => {
                values[*a].iter().zip(&values[*b]).map(|(x, y)| clipped(x + y, *clip)).collect()
            }
            Step::MaxPool { input, output, window } => {
                max_pool(window, &graph.maps[*input], &graph.maps[*output], &values[*input])
            }
        };
    }
    values
}

fn clipped(value: f32, clip: Clip) -> f32 {
    let value = if clip.low > value { clip.low } else { value };
    if clip.high < value { clip.high } else { value }
}

fn convolve(conv: &Conv, maps: &[Map], x: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
    let (w, input, output) = (&conv.window, &maps[conv.input], &maps[conv.output]);
    let [kernel_rows, kernel_columns] = w.kernel;
    let (fan_in, fan_out) = (input.channels / conv.groups, output.channels / conv.groups);
    let mut values = Vec::with_capacity(output.channels * output.height * output.width);
    for o in 0..output.channels {
        for row in 0..output.height {
            for column in 0..output.width {
                let mut sum = f64::from(conv.bias[o]);
                for tap in 0..fan_in * kernel_rows * kernel_columns {
                    let (i, ky, kx) = (
                        tap / (kernel_rows * kernel_columns),
                        tap / kernel_columns % kernel_rows,
                        tap % kernel_columns,
                    );
                    let y = (row * w.stride[0] + ky * w.dilation[0]).checked_sub(w.before[0]);
                    let x_at = (column * w.stride[1] + kx * w.dilation[1]).checked_sub(w.before[1]);
                    if let (Some(y), Some(x_at)) = (y, x_at)
                        && y < input.height
                        && x_at < input.width
                    {
                        let from = x[((o / fan_out * fan_in + i) * input.height + y) * input.width + x_at];
                        let weight = conv.weight[o * fan_in * kernel_rows * kernel_columns + tap];
                        sum += f64::from(from) * f64::from(weight);
                    }
                }
                let mut value = sum as f32;
                if let (Some(r), Some(other)) = (&conv.residual, residual) {
                    value = clipped(value, r.between.map_or(Clip::NONE, |(_, clip)| clip)) + other[values.len()];
                }
                values.push(clipped(value, conv.clip));
            }
        }
    }
    values
}

fn max_pool(w: &Window, from: &Map, to: &Map, x: &[f32]) -> Vec<f32> {
    let mut out = Vec::with_capacity(to.channels * to.height * to.width);
    for plane in x.chunks_exact(from.height * from.width) {
        for row in 0..to.height {
            for column in 0..to.width {
                let values = w
                    .inside(row, 0, from.height)
                    .flat_map(|y| w.inside(column, 1, from.width).map(move |x_at| plane[y * from.width + x_at]));
                out.push(values.fold(f32::NEG_INFINITY, |best, v| if best > v { best } else { v }));
            }
        }
    }
    out
}
