//! The transforms of Winograd's F(m, 3), in one dimension; a tile takes them down its columns, then along its rows.

use crate::kernel::Vector;

/// One dimension of F(m, 3): `IN = m + 2` numbers to `OUT = m`.
pub(super) trait Form<const IN: usize, const OUT: usize> {
    /// Rows of `G`.
    const WEIGHTS: [[f64; 3]; IN];

    /// `Bᵀ` times a column.
    ///
    /// # Safety
    /// The processor must have the set of `V`.
    unsafe fn input<V: Vector>(d: [V; IN]) -> [V; IN];

    /// `Aᵀ` times a column.
    ///
    /// # Safety
    /// The processor must have the set of `V`.
    unsafe fn output<V: Vector>(m: [V; IN]) -> [V; OUT];
}

/// F(2, 3).
pub(super) struct Two;

impl Form<4, 2> for Two {
    const WEIGHTS: [[f64; 3]; 4] = [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 4]) -> [V; 4] {
        // SAFETY: vouched for by the caller.
        unsafe { [d[0].sub(d[2]), d[1].add(d[2]), d[2].sub(d[1]), d[1].sub(d[3])] }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 4]) -> [V; 2] {
        // SAFETY: vouched for by the caller.
        unsafe { [m[0].add(m[1]).add(m[2]), m[1].sub(m[2]).sub(m[3])] }
    }
}

/// F(4, 3) at 0, ±a, ±b and ∞ with `a = 1/√2`, `b = √2`.
pub(super) struct Four;

const A: f64 = std::f64::consts::FRAC_1_SQRT_2;
const B: f64 = std::f64::consts::SQRT_2;

impl Form<6, 4> for Four {
    // 1 / Π (p − q) over the other points q: 1 / (a²b²) = 1 at 0, 1 / (2a²(a² − b²)) at ±a, 1 / (2b²(b² − a²)) at ±b.
    const WEIGHTS: [[f64; 3]; 6] = [
        [1.0, 0.0, 0.0],
        [-2.0 / 3.0, -2.0 / 3.0 * A, -1.0 / 3.0],
        [-2.0 / 3.0, 2.0 / 3.0 * A, -1.0 / 3.0],
        [1.0 / 6.0, 1.0 / 6.0 * B, 1.0 / 3.0],
        [1.0 / 6.0, -1.0 / 6.0 * B, 1.0 / 3.0],
        [0.0, 0.0, 1.0],
    ];

    #[inline(always)]
    unsafe fn input<V: Vector>(d: [V; 6]) -> [V; 6] {
        // SAFETY: vouched for by the caller.
        unsafe {
            let [middle, two, half] = [-2.5, -2.0, -0.5].map(|v| V::splat(v));
            let (even_a, odd_a) = (d[4].add_product(two, d[2]), d[3].add_product(two, d[1]));
            let (even_b, odd_b) = (d[4].add_product(half, d[2]), d[3].add_product(half, d[1]));
            let [a, minus_a, b, minus_b] = [A, -A, B, -B].map(|v| V::splat(v as f32));
            [
                d[0].add(d[4]).add_product(middle, d[2]),
                even_a.add_product(a, odd_a),
                even_a.add_product(minus_a, odd_a),
                even_b.add_product(b, odd_b),
                even_b.add_product(minus_b, odd_b),
                d[1].add(d[5]).add_product(middle, d[3]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn output<V: Vector>(m: [V; 6]) -> [V; 4] {
        // SAFETY: vouched for by the caller.
        unsafe {
            let (sum_a, gap_a) = (m[1].add(m[2]), m[1].sub(m[2]));
            let (sum_b, gap_b) = (m[3].add(m[4]), m[3].sub(m[4]));
            let splat = |v: f64| V::splat(v as f32);
            [
                m[0].add(sum_a).add(sum_b),
                gap_a.mul(splat(A)).add_product(splat(B), gap_b),
                sum_a.mul(splat(A * A)).add_product(splat(B * B), sum_b),
                m[5].add_product(splat(A * A * A), gap_a).add_product(splat(B * B * B), gap_b),
            ]
        }
    }
}

/// Gives `G w Gᵀ`, computed in f64, by position.
pub(super) fn transformed<F: Form<IN, OUT>, const IN: usize, const OUT: usize>(
    w: &[f32],
    put: &mut dyn FnMut(usize, f32),
) {
    for (y, down) in F::WEIGHTS.iter().enumerate() {
        let row: [f64; 3] = std::array::from_fn(|x| (0..3).map(|k| down[k] * f64::from(w[k * 3 + x])).sum());
        for (x, across) in F::WEIGHTS.iter().enumerate() {
            put(y * IN + x, (0..3).map(|k| across[k] * row[k]).sum::<f64>() as f32);
        }
    }
}
