//! The definition, in double precision: what every fast form is compared with.

use super::Geometry;

/// Calls `visit(x, weight, y)` with the indices of every product that `y[..] += x[..] * weight[..]` sums.
fn products(geometry: &Geometry, mut visit: impl FnMut(usize, usize, usize)) {
    let ([channels, height, width], [out, out_height, out_width]) = (geometry.input, geometry.outputs);
    let Geometry { batch, kernel, stride, padding, .. } = *geometry;
    for (n, o) in (0..batch).flat_map(|n| (0..out).map(move |o| (n, o))) {
        for (i, j) in (0..out_height).flat_map(|i| (0..out_width).map(move |j| (i, j))) {
            for c in 0..channels {
                for (di, dj) in (0..kernel).flat_map(|di| (0..kernel).map(move |dj| (di, dj))) {
                    let (row, column) = (i * stride + di, j * stride + dj);
                    if (padding..height + padding).contains(&row) && (padding..width + padding).contains(&column) {
                        visit(
                            ((n * channels + c) * height + row - padding) * width + column - padding,
                            ((o * channels + c) * kernel + di) * kernel + dj,
                            ((n * out + o) * out_height + i) * out_width + j,
                        );
                    }
                }
            }
        }
    }
}

/// `[N, O, H', W']`
pub fn forward(geometry: &Geometry, x: &[f32], weight: &[f32]) -> Vec<f64> {
    let mut y = vec![0.0; geometry.output().iter().product()];
    products(geometry, |from, with, to| y[to] += f64::from(x[from]) * f64::from(weight[with]));
    y
}

/// Gradient of the input, `[N, C, H, W]`.
pub fn backward_data(geometry: &Geometry, weight: &[f32], grad: &[f32]) -> Vec<f64> {
    let mut x_grad = vec![0.0; geometry.batch * geometry.input.iter().product::<usize>()];
    products(geometry, |from, with, to| x_grad[from] += f64::from(grad[to]) * f64::from(weight[with]));
    x_grad
}

/// Gradient of the weight, `[O, C, K, K]`.
pub fn backward_weight(geometry: &Geometry, x: &[f32], grad: &[f32]) -> Vec<f64> {
    let mut weight_grad = vec![0.0; geometry.outputs[0] * geometry.patch()];
    products(geometry, |from, with, to| weight_grad[with] += f64::from(x[from]) * f64::from(grad[to]));
    weight_grad
}
