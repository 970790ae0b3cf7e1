//! A first convolution that whitens the images' patches: its outputs start uncorrelated and of equal variance.

use kiln_data::{ImageSet, fill_batch};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Training images whose patches are looked at: some 50,000 of a 3x3 kernel on 32x32 pixels.
const IMAGES: usize = 500;
/// Added to each variance, for those that are almost none.
const EPSILON: f64 = 5e-4;

/// Filters `[2 n, 3, kernel, kernel]`, flattened, at most `filters` of them: the eigenvectors of the covariance of the
/// patches by falling variance, each over the root of its variance, and after each its negative, which ReLU would
/// otherwise lose (Jordan 2024, <https://arxiv.org/abs/2404.00498>).
///
/// The patches are those of some of the images at `indices`, normalised by `mean` and `std`.
pub(crate) fn whitening(
    set: &ImageSet,
    indices: &[u32],
    [mean, std]: [[f32; 3]; 2],
    kernel: usize,
    filters: usize,
) -> Vec<f32> {
    let size = 3 * kernel * kernel;
    let mut sum = DMatrix::<f64>::zeros(size, size);
    let mut patches = 0;
    let mut pixels = vec![];
    for index in indices.iter().step_by(indices.len().div_ceil(IMAGES)) {
        fill_batch(set, &[*index], None, mean, std, &mut pixels);
        // Patches side by side: overlapping ones tell little more.
        for top in (0..(set.height + 1).saturating_sub(kernel)).step_by(kernel) {
            for left in (0..(set.width + 1).saturating_sub(kernel)).step_by(kernel) {
                let pixel = |at: usize| {
                    let (channel, row, column) = (at / (kernel * kernel), at / kernel % kernel, at % kernel);
                    f64::from(pixels[(channel * set.height + top + row) * set.width + left + column])
                };
                let patch = DVector::from_fn(size, |at, _| pixel(at));
                sum.syger(1.0, &patch, &patch, 1.0);
                patches += 1;
            }
        }
    }
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(sum / f64::from(patches.max(1)));
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|a, b| eigenvalues[*b].total_cmp(&eigenvalues[*a]));
    let filter = |index: usize| {
        let (vector, scale) = (eigenvectors.column(index), (eigenvalues[index].max(0.0) + EPSILON).sqrt());
        // An eigenvector's sign is arbitrary: the same one everywhere.
        let sign = if vector[vector.icamax()] < 0.0 { -1.0 } else { 1.0 };
        vector.iter().map(|value| (sign * value / scale) as f32).collect::<Vec<f32>>()
    };
    let pairs = order.into_iter().map(filter).flat_map(|filter| {
        let negative = filter.iter().map(|value| -value).collect();
        [filter, negative]
    });
    pairs.take(filters).flatten().collect()
}

#[cfg(test)]
mod tests {
    use kiln_data::synthetic;

    use super::*;

    #[test]
    fn outputs_are_uncorrelated_and_of_equal_variance() {
        let data = synthetic(200, 0, 0);
        let indices: Vec<u32> = (0..200).collect();
        let filters = whitening(&data.train, &indices, [data.mean, data.std], 3, 64);
        assert_eq!(filters.len(), 54 * 27, "a pair for each of 27 directions");
        let rows: Vec<&[f32]> = filters.chunks_exact(27).collect();
        for pair in rows.chunks_exact(2) {
            assert!(pair[0].iter().zip(pair[1]).all(|(a, b)| a == &-b));
        }
        // Over the same patches, the outputs of the strongest directions.
        let (mut products, mut patches, mut pixels) = ([[0.0; 4]; 4], 0, vec![]);
        for index in indices {
            fill_batch(&data.train, &[index], None, data.mean, data.std, &mut pixels);
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
    fn few_channels_get_the_strongest_directions() {
        let data = synthetic(50, 0, 0);
        let indices: Vec<u32> = (0..50).collect();
        let of = |filters| whitening(&data.train, &indices, [data.mean, data.std], 3, filters);
        assert_eq!(of(5), of(54)[..5 * 27]);
    }
}
