//! A first convolution that whitens the images' patches: its outputs start uncorrelated and of equal variance.

use kiln_data::{DataError, ImageSet, fill_batch};

/// Training images whose patches are looked at: some 50,000 of a 3x3 kernel on 32x32 pixels.
const IMAGES: usize = 500;
/// Added to each variance, for those that are almost none.
const EPSILON: f64 = 5e-4;

/// Filters `[2 n, 3, kernel, kernel]`, flattened, at most `filters` of them: the eigenvectors of the covariance of the
/// patches by falling variance, each over the root of its variance, and after each its negative, which ReLU would
/// otherwise lose (Jordan 2024, <https://arxiv.org/abs/2404.00498>).
///
/// The patches are those of some of the images at `indices`, normalized by `mean` and `std`.
///
/// # Errors
/// If an image cannot be read any more.
pub(crate) fn whitening(
    set: &ImageSet,
    indices: &[u32],
    [mean, std]: [[f32; 3]; 2],
    kernel: usize,
    filters: usize,
) -> Result<Vec<f32>, DataError> {
    let size = 3 * kernel * kernel;
    let mut covariance = vec![vec![0.0; size]; size];
    let mut patch = vec![0.0; size];
    let (mut pixels, mut patches) = (vec![], 0);
    for index in indices.iter().step_by(indices.len().div_ceil(IMAGES)) {
        fill_batch(set, &[*index], None, mean, std, &mut pixels)?;
        // Patches side by side: overlapping ones tell little more.
        for top in (0..(set.height + 1).saturating_sub(kernel)).step_by(kernel) {
            for left in (0..(set.width + 1).saturating_sub(kernel)).step_by(kernel) {
                for (at, value) in patch.iter_mut().enumerate() {
                    let (channel, row, column) = (at / (kernel * kernel), at / kernel % kernel, at % kernel);
                    *value = f64::from(pixels[(channel * set.height + top + row) * set.width + left + column]);
                }
                for (sums, a) in covariance.iter_mut().zip(&patch) {
                    sums.iter_mut().zip(&patch).for_each(|(sum, b)| *sum += a * b);
                }
                patches += 1;
            }
        }
    }
    covariance.iter_mut().flatten().for_each(|sum| *sum /= f64::from(patches.max(1)));
    let mut directions = eigen(covariance);
    directions.sort_by(|a, b| b.0.total_cmp(&a.0));
    let filter = |(variance, vector): (f64, Vec<f64>)| {
        let scale = (variance.max(0.0) + EPSILON).sqrt();
        vector.iter().map(|value| (value / scale) as f32).collect::<Vec<f32>>()
    };
    let pairs = directions.into_iter().map(filter).flat_map(|filter| {
        let negative = filter.iter().map(|value| -value).collect();
        [filter, negative]
    });
    Ok(pairs.take(filters).flatten().collect())
}

/// Eigenvalues and unit eigenvectors of a symmetric matrix, by cyclic Jacobi rotations (Golub and Van Loan, Matrix
/// Computations, 8.5). A library for these few lines would have burn compiled with other features.
fn eigen(mut matrix: Vec<Vec<f64>>) -> Vec<(f64, Vec<f64>)> {
    let size = matrix.len();
    // One vector a row.
    let mut vectors: Vec<Vec<f64>> =
        (0..size).map(|i| (0..size).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    let total: f64 = matrix.iter().flatten().map(|value| value * value).sum();
    // It converges quadratically: six to ten sweeps are usual.
    for _ in 0..50 {
        let off: f64 = (0..size).flat_map(|p| (0..p).map(move |q| (p, q))).map(|(p, q)| matrix[p][q].powi(2)).sum();
        if off <= 1e-24 * total {
            break;
        }
        for (p, q) in (0..size).flat_map(|p| (p + 1..size).map(move |q| (p, q))) {
            if matrix[p][q] == 0.0 {
                continue;
            }
            let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
            let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
            let cosine = 1.0 / tangent.hypot(1.0);
            let sine = tangent * cosine;
            let rotate = |a: &mut f64, b: &mut f64| (*a, *b) = (cosine * *a - sine * *b, sine * *a + cosine * *b);
            for row in &mut matrix {
                let (left, right) = row.split_at_mut(q);
                rotate(&mut left[p], &mut right[0]);
            }
            for rows in [&mut matrix, &mut vectors] {
                let (above, below) = rows.split_at_mut(q);
                above[p].iter_mut().zip(&mut below[0]).for_each(|(a, b)| rotate(a, b));
            }
        }
    }
    matrix.iter().enumerate().map(|(i, row)| row[i]).zip(vectors).collect()
}

#[cfg(test)]
mod tests {
    use kiln_data::synthetic;

    use super::*;

    #[test]
    fn outputs_are_uncorrelated_and_of_equal_variance() {
        let data = synthetic(200, 0, 0);
        let indices: Vec<u32> = (0..200).collect();
        let filters = whitening(&data.train, &indices, [data.mean, data.std], 3, 64).unwrap();
        assert_eq!(filters.len(), 54 * 27, "a pair for each of 27 directions");
        let rows: Vec<&[f32]> = filters.chunks_exact(27).collect();
        for pair in rows.chunks_exact(2) {
            assert!(pair[0].iter().zip(pair[1]).all(|(a, b)| a == &-b));
        }
        // Over the same patches, the outputs of the strongest directions.
        let (mut products, mut patches, mut pixels) = ([[0.0; 4]; 4], 0, vec![]);
        for index in indices {
            fill_batch(&data.train, &[index], None, data.mean, data.std, &mut pixels).unwrap();
            for (top, left) in (0..10).flat_map(|top| (0..10).map(move |left| (3 * top, 3 * left))) {
                let outputs = [0, 1, 2, 3].map(|filter| {
                    let value = |at: usize| pixels[(at / 9 * 32 + top + at / 3 % 3) * 32 + left + at % 3];
                    rows[2 * filter].iter().enumerate().map(|(at, weight)| weight * value(at)).sum::<f32>()
                });
                for (row, a) in products.iter_mut().zip(outputs) {
                    row.iter_mut().zip(outputs).for_each(|(product, b)| *product += a * b);
                }
                patches += 1;
            }
        }
        for (i, row) in products.iter().enumerate() {
            for (j, product) in row.iter().enumerate() {
                let (found, expected) = (product / patches as f32, if i == j { 1.0 } else { 0.0 });
                assert!((found - expected).abs() < 0.02, "{i}, {j}: {found}");
            }
        }
    }

    #[test]
    fn a_matrix_is_made_of_its_directions() {
        let matrix: Vec<Vec<f64>> = (0..7).map(|i| (0..7).map(|j| 1.0 / f64::from(i + j + 1)).collect()).collect();
        let directions = eigen(matrix.clone());
        for (i, j) in (0..7).flat_map(|i| (0..7).map(move |j| (i, j))) {
            let made: f64 = directions.iter().map(|(value, vector)| value * vector[i] * vector[j]).sum();
            assert!((made - matrix[i][j]).abs() < 1e-12, "{made} for {}", matrix[i][j]);
            let product: f64 = directions[i].1.iter().zip(&directions[j].1).map(|(a, b)| a * b).sum();
            assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{i}, {j}: {product}");
        }
    }

    #[test]
    fn few_channels_get_the_strongest_directions() {
        let data = synthetic(50, 0, 0);
        let indices: Vec<u32> = (0..50).collect();
        let of = |filters| whitening(&data.train, &indices, [data.mean, data.std], 3, filters).unwrap();
        assert_eq!(of(5), of(54)[..5 * 27]);
    }
}
