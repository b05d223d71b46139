//! How maps lie in memory, and where in the arena.

use super::{Graph, Map};

/// Numbers behind the last map, so that a vector may be read past its end.
const SLACK: usize = 64;
/// Maps start at multiples of this: a cache line's numbers.
const ALIGNED: usize = 16;

/// A map in memory: pixels `pixel` numbers apart, channels `channel` apart, rows `row` apart, and a halo around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
    pub pixel: usize,
    pub row: usize,
    pub channel: usize,
    /// Rows above, columns to the left.
    top: usize,
    left: usize,
    pub len: usize,
}

impl Layout {
    /// Pixel by pixel, `stride` numbers each.
    pub fn pixels(map: &Map, stride: usize, before: [usize; 2], after: [usize; 2]) -> Self {
        let (row, len) = sizes(map, stride, before, after);
        let [top, left] = before;
        let Map { channels, height, width, .. } = *map;
        Self { channels, height, width, pixel: stride, row, channel: 1, top, left, len }
    }

    /// Channel by channel.
    pub fn planes(map: &Map, before: [usize; 2], after: [usize; 2]) -> Self {
        let (row, plane) = sizes(map, 1, before, after);
        let [top, left] = before;
        let Map { channels, height, width, .. } = *map;
        Self { channels, height, width, pixel: 1, row, channel: plane, top, left, len: plane * channels }
    }

    /// Numbers of the map, without padding and halo.
    pub fn values(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Whether it lies channel by channel.
    pub fn is_planar(&self) -> bool {
        self.channel != 1
    }

    /// First number of a pixel.
    #[inline(always)]
    pub fn at(&self, y: usize, x: usize) -> usize {
        (y + self.top) * self.row + (x + self.left) * self.pixel
    }

    /// First number of the pixel `up` above and `back` left of a pixel, which may lie in the halo.
    #[inline(always)]
    pub fn halo_at(&self, y: usize, up: usize, x: usize, back: usize) -> usize {
        (y + self.top - up) * self.row + (x + self.left - back) * self.pixel
    }

    /// Writes the halo's zeros.
    pub fn clear_halo(&self, map: &mut [f32]) {
        let plane = if self.is_planar() { self.channel } else { self.len };
        let inner = self.width * self.pixel;
        if plane == self.height * inner {
            return;
        }
        for plane in map[..self.len].chunks_exact_mut(plane) {
            let mut from = 0;
            for y in 0..self.height {
                let row = self.at(y, 0);
                plane[from..row].fill(0.0);
                from = row + inner;
            }
            plane[from..].fill(0.0);
        }
    }
}

/// Numbers of a row and of all rows.
fn sizes(map: &Map, pixel: usize, before: [usize; 2], after: [usize; 2]) -> (usize, usize) {
    let row = (before[1] + map.width + after[1]) * pixel;
    (row, (before[0] + map.height + after[0]) * row)
}

/// Where each map starts in the arena, and the arena's size. Maps that are needed at the same time do not overlap: a map
/// lives from the step that writes it to the last one that reads it.
pub(super) fn assign(graph: &Graph, layouts: &[Layout]) -> (Vec<usize>, usize) {
    let last_read = graph.last_reads();
    let mut lives = vec![(0, 0); layouts.len()];
    // What is given is there before the first step, and stays if nothing reads it.
    (0..graph.given).for_each(|map| lives[map] = (0, last_read[map].saturating_add(1)));
    for (at, step) in graph.steps.iter().enumerate() {
        let map = step.output();
        lives[map] = (at + 1, last_read[map].max(at).saturating_add(1));
    }
    let sizes: Vec<usize> = layouts.iter().map(|l| (l.len + SLACK).next_multiple_of(ALIGNED)).collect();
    let mut largest_first: Vec<usize> = (0..layouts.len()).collect();
    largest_first.sort_by_key(|&map| std::cmp::Reverse(sizes[map]));
    let mut starts = vec![0; layouts.len()];
    let mut placed: Vec<usize> = vec![];
    for map in largest_first {
        let meets = |other: &&usize| lives[**other].0 <= lives[map].1 && lives[map].0 <= lives[**other].1;
        let mut taken: Vec<(usize, usize)> =
            placed.iter().filter(meets).map(|&o| (starts[o], starts[o] + sizes[o])).collect();
        taken.sort_unstable();
        let mut start = 0;
        for (from, to) in taken {
            if start + sizes[map] <= from {
                break;
            }
            start = start.max(to);
        }
        starts[map] = start;
        placed.push(map);
    }
    let len = (0..layouts.len()).map(|m| starts[m] + sizes[m]).max().unwrap_or(0);
    (starts, len)
}

#[cfg(test)]
mod tests {
    use super::super::{Head, Step};
    use super::*;
    use crate::kernel::Clip;

    #[test]
    fn maps_that_live_together_do_not_overlap_and_others_share_memory() {
        let map = |channels| Map { channels, height: 4, width: 4, codes: () };
        let add = |inputs, output| Step::Add { inputs, output, clip: Clip::NONE };
        let graph = Graph {
            maps: [8, 8, 8, 8, 8, 8].map(map).to_vec(),
            steps: vec![add([0, 0], 1), add([1, 1], 2), add([2, 1], 3), add([3, 3], 4), add([4, 4], 5)],
            given: 1,
            handed: vec![],
            features: 5,
            head: Head { weight: vec![0.0; 8], bias: vec![0.0] },
        };
        let layouts: Vec<Layout> = graph.maps.iter().map(|m| Layout::pixels(m, 16, [1, 1], [1, 1])).collect();
        let (starts, len) = assign(&graph, &layouts);
        let overlap = |a: usize, b: usize| starts[a].abs_diff(starts[b]) < layouts[0].len;
        for (a, b) in [(0, 1), (1, 2), (1, 3), (2, 3), (3, 4), (4, 5)] {
            assert!(!overlap(a, b), "{a} {b}");
        }
        assert!(len < 4 * (layouts[0].len + 2 * SLACK), "three maps are the most at a time");
    }

    #[test]
    fn clearing_writes_the_halo_alone() {
        let map = Map { channels: 3, height: 2, width: 3, codes: () };
        for layout in [Layout::pixels(&map, 4, [1, 2], [2, 1]), Layout::planes(&map, [2, 1], [1, 3])] {
            let mut values = vec![f32::NAN; layout.len];
            layout.clear_halo(&mut values);
            let stored = if layout.is_planar() { 3 } else { 4 };
            let inner = values.iter().filter(|v| v.is_nan()).count();
            assert_eq!(inner, stored * 6);
            assert!((0..2).all(|y| (0..3).all(|x| values[layout.at(y, x)].is_nan())));
        }
    }
}
