//! Elastic transform: a random affine map, then smooth random displacements.

use super::apply::Field;
use super::blur::{ELASTIC, gaussian, mirror, mirror_with_edge};

/// Moves three points around the centre by `jitter` (x, y; pixels) and the picture with them; outside it is mirrored.
pub(super) fn affine(field: &mut Field, jitter: [[f64; 2]; 3]) {
    let centre = [(field.width / 2) as f64, (field.height / 2) as f64];
    let arm = (field.width.min(field.height) / 3) as f64;
    let from = [[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]].map(|[x, y]| [centre[0] + arm * x, centre[1] + arm * y]);
    let to: [[f64; 2]; 3] = std::array::from_fn(|i| [from[i][0] + jitter[i][0], from[i][1] + jitter[i][1]]);
    // Backwards: from where a pixel of the result comes.
    let Some(back) = map_of(to, from) else { return };
    let place = |x: f64, y: f64| [0, 1].map(|i| back[i][0] * x + back[i][1] * y + back[i][2]);
    resample(field, mirror, |x, y| place(x as f64, y as f64));
}

/// Moves every pixel by `alpha` times the Gaussian-filtered `dx` and `dy` (one value a pixel in −1..1); outside the
/// picture is mirrored with its border.
pub(super) fn displace(field: &mut Field, dx: Vec<f64>, dy: Vec<f64>, alpha: f64, sigma: f64) {
    let [dx, dy] = [dx, dy].map(|values| {
        let mut layer = field.layer(values);
        gaussian(&mut layer, ELASTIC, sigma);
        layer.values
    });
    let width = field.width;
    let place = |x: usize, y: usize| [x as f64 + alpha * dx[y * width + x], y as f64 + alpha * dy[y * width + x]];
    resample(field, mirror_with_edge, place);
}

/// The affine map that takes three points to three others, row by row; none for points on a line.
fn map_of(from: [[f64; 2]; 3], to: [[f64; 2]; 3]) -> Option<[[f64; 3]; 2]> {
    let side = |p: &[[f64; 2]; 3], i: usize| [p[i][0] - p[0][0], p[i][1] - p[0][1]];
    let (a, b) = (side(&from, 1), side(&from, 2));
    let area = a[0] * b[1] - a[1] * b[0];
    if area.abs() < 1e-9 {
        return None;
    }
    let (p, q) = (side(&to, 1), side(&to, 2));
    Some([0, 1].map(|i| {
        let x = (p[i] * b[1] - q[i] * a[1]) / area;
        let y = (q[i] * a[0] - p[i] * b[0]) / area;
        [x, y, to[0][i] - x * from[0][0] - y * from[0][1]]
    }))
}

/// Bilinear samples of the field at the place that `place` names for each pixel; `outside` folds indices back.
fn resample(field: &mut Field, outside: fn(isize, isize) -> isize, place: impl Fn(usize, usize) -> [f64; 2]) {
    let (width, height, channels) = (field.width as isize, field.height as isize, field.channels);
    let mut out = Vec::with_capacity(field.values.len());
    for y in 0..field.height {
        for x in 0..field.width {
            let [px, py] = place(x, y);
            let (left, top) = (px.floor(), py.floor());
            let (right, down) = (px - left, py - top);
            for c in 0..channels {
                let at = |dx: isize, dy: isize| {
                    let (x, y) = (outside(left as isize + dx, width), outside(top as isize + dy, height));
                    field.values[(y * width + x) as usize * channels + c]
                };
                let upper = at(0, 0) * (1.0 - right) + at(1, 0) * right;
                let lower = at(0, 1) * (1.0 - right) + at(1, 1) * right;
                out.push(upper * (1.0 - down) + lower * down);
            }
        }
    }
    field.values = out;
}
