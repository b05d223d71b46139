//! The one piece of linear algebra that the scores need.

/// Inverse of a symmetric positive definite matrix by Gauss–Jordan with pivoting. Callers add a ridge, which keeps it
/// away from singular.
pub(super) fn inverse<const D: usize>(mut a: [[f64; D]; D]) -> [[f64; D]; D] {
    let mut inverse: [[f64; D]; D] = std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
    for column in 0..D {
        let pivot = (column..D).max_by(|&i, &j| a[i][column].abs().total_cmp(&a[j][column].abs())).unwrap_or(column);
        a.swap(column, pivot);
        inverse.swap(column, pivot);
        let scale = a[column][column];
        a[column].iter_mut().for_each(|v| *v /= scale);
        inverse[column].iter_mut().for_each(|v| *v /= scale);
        for row in (0..D).filter(|&row| row != column) {
            let factor = a[row][column];
            for j in 0..D {
                a[row][j] -= factor * a[column][j];
                inverse[row][j] -= factor * inverse[column][j];
            }
        }
    }
    inverse
}
