//! The definition, in double precision: what every fast form is compared with.

use super::{Geometry, Pass};

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

/// One number of a pass's output, by its index: for outputs too long to be computed whole. `first` and `second` are the pass's
/// inputs, as [`super::wgsl::Buffer`] has them.
pub fn at(geometry: &Geometry, pass: Pass, first: &[f32], second: &[f32], index: usize) -> f64 {
    let ([channels, height, width], [out, out_height, out_width]) = (geometry.input, geometry.outputs);
    let Geometry { batch, kernel, stride, padding, .. } = *geometry;
    // Where an output's place and a kernel's meet the input, if they do.
    let under = |i: usize, di: usize, size: usize| (i * stride + di).checked_sub(padding).filter(|at| *at < size);
    let x = |n, c, row, column| ((n * channels + c) * height + row) * width + column;
    let y = |n, o, i, j| ((n * out + o) * out_height + i) * out_width + j;
    let weight = |o, c, di, dj| ((o * channels + c) * kernel + di) * kernel + dj;
    let mut sum = 0.0;
    let mut add = |a: usize, b: usize| sum += f64::from(first[a]) * f64::from(second[b]);
    let square = |size: usize| (0..size).flat_map(move |a| (0..size).map(move |b| (a, b)));
    match pass {
        Pass::Forward => {
            let (j, i) = (index % out_width, index / out_width % out_height);
            let (o, n) = (index / out_width / out_height % out, index / out_width / out_height / out);
            for (c, (di, dj)) in (0..channels).flat_map(|c| square(kernel).map(move |at| (c, at))) {
                if let (Some(row), Some(column)) = (under(i, di, height), under(j, dj, width)) {
                    add(x(n, c, row, column), weight(o, c, di, dj));
                }
            }
        }
        Pass::BackwardData => {
            let (column, row) = (index % width, index / width % height);
            let (c, n) = (index / width / height % channels, index / width / height / channels);
            // The output that has this number under a place of its kernel.
            let over = |at: usize, di: usize, size: usize| {
                let from = (at + padding).checked_sub(di)?;
                (from % stride == 0 && from / stride < size).then_some(from / stride)
            };
            for (o, (di, dj)) in (0..out).flat_map(|o| square(kernel).map(move |at| (o, at))) {
                if let (Some(i), Some(j)) = (over(row, di, out_height), over(column, dj, out_width)) {
                    add(y(n, o, i, j), weight(o, c, di, dj));
                }
            }
        }
        Pass::BackwardWeight => {
            let (dj, di) = (index % kernel, index / kernel % kernel);
            let (c, o) = (index / kernel / kernel % channels, index / kernel / kernel / channels);
            for (n, i) in (0..batch).flat_map(|n| (0..out_height).map(move |i| (n, i))) {
                let Some(row) = under(i, di, height) else { continue };
                for (j, column) in (0..out_width).filter_map(|j| Some((j, under(j, dj, width)?))) {
                    add(x(n, c, row, column), y(n, o, i, j));
                }
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::noise;

    #[test]
    fn one_number_is_that_of_the_whole() {
        for (x, out, kernel, stride, padding) in
            [([2, 3, 5, 7], 4, 3, 1, 1), ([2, 2, 9, 8], 3, 3, 2, 1), ([1, 3, 23, 21], 2, 7, 2, 3)]
        {
            let geometry = Geometry::new(x, [out, x[1], kernel, kernel], stride, padding);
            let [x, weight, grad] = [Pass::BackwardData, Pass::BackwardWeight, Pass::Forward]
                .map(|pass| noise(geometry.output_len(pass), pass as u32 + 1));
            for (pass, first, second, whole) in [
                (Pass::Forward, &x, &weight, forward(&geometry, &x, &weight)),
                (Pass::BackwardData, &grad, &weight, backward_data(&geometry, &weight, &grad)),
                (Pass::BackwardWeight, &x, &grad, backward_weight(&geometry, &x, &grad)),
            ] {
                for (index, expected) in whole.iter().enumerate() {
                    let found = at(&geometry, pass, first, second, index);
                    assert!((found - expected).abs() < 1e-12, "{pass} of {geometry:?} at {index}: {found}, {expected}");
                }
            }
        }
    }
}
