//! What the steps of a network are called in a profile.

use super::{Format, Graph, Map, Step, StepDescription, Window};

/// A name and the number of products for taking in what is given (what `first` calls it), each step, and the end.
pub fn describe<F: Format>(graph: &Graph<F>, first: &str) -> Vec<StepDescription> {
    let size = |m: &Map<F>| format!("{}×{}", m.height, m.width);
    let shape = |m: &Map<F>| format!("{} {}", m.channels, size(m));
    let shapes = |maps: Vec<&Map<F>>| maps.into_iter().map(shape).collect::<Vec<_>>().join(" and ");
    let given = shapes(graph.maps[..graph.given].iter().collect());
    let mut all = vec![StepDescription { name: format!("{first} {given}"), products: 0 }];
    for step in &graph.steps {
        let to = &graph.maps[step.output()];
        let kind = |w: &Window| {
            let stride = if w.stride == [1, 1] { String::new() } else { format!("/{}", w.stride[0]) };
            format!("{}×{}{stride}", w.kernel[0], w.kernel[1])
        };
        all.push(match step {
            Step::Conv(c) => {
                let end = if c.residual.is_some() { ", sum" } else { "" };
                let (what, from) = (kind(&c.window), graph.maps[c.input].channels);
                let name = match c.groups {
                    1 => format!("conv {what} {from}→{} to {}{end}", to.channels, size(to)),
                    _ if c.is_depthwise(&graph.maps) => format!("depthwise {what} {from} to {}{end}", size(to)),
                    groups => format!("conv {what} {from}→{} in {groups} groups to {}{end}", to.channels, size(to)),
                };
                StepDescription { name, products: (c.weight.len() * to.height * to.width) as u64 }
            }
            Step::Add { .. } => StepDescription { name: format!("sum {} {}", to.channels, size(to)), products: 0 },
            Step::MaxPool { window, .. } => {
                StepDescription { name: format!("max pool {} to {}", kind(window), size(to)), products: 0 }
            }
        });
    }
    let last = &graph.maps[graph.features];
    let products = graph.head.weight.len() as u64;
    let name = match graph.head.bias.len() {
        0 => format!("hand on {}", shapes(graph.results().map(|m| &graph.maps[m]).collect())),
        classes => format!("mean, linear {}→{classes}", last.channels),
    };
    all.push(StepDescription { name, products });
    all
}
