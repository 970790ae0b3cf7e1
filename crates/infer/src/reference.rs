//! The plain form of every step, in double precision: what every executor is compared with.

use crate::{Conv2d, Norm, Operator, Plan};

type Image = Vec<f64>;

/// The last value, `[C, H, W]`, for an image `[C, H, W]`.
///
/// # Panics
/// If the plan's parts do not fit each other.
pub fn run(plan: &Plan, image: &[f32]) -> Image {
    let shapes = plan.shapes().expect("the plan fits");
    let mut values: Vec<Image> = vec![image.iter().map(|value| f64::from(*value)).collect()];
    for (index, step) in plan.steps.iter().enumerate() {
        let (from, to) = (shapes[step.input], shapes[index + 1]);
        let x = &values[step.input];
        let mut y = match &step.operator {
            Operator::Conv2d(conv) => conv2d(conv, from, to, x),
            Operator::Norm(norm) if norm.per_pixel => {
                // A pixel as an image of its own, and back.
                let area = from[1] * from[2];
                let pixels = transposed(x, area);
                let normal = pixels.chunks(from[0]).flat_map(|pixel| normalized([from[0], 1, 1], norm, pixel));
                transposed(&normal.collect::<Image>(), from[0])
            }
            Operator::Norm(norm) => normalized(from, norm, x),
            Operator::Attention { heads } => attention(to, *heads, x),
            Operator::Position { embedding } => x.iter().zip(embedding).map(|(x, add)| x + f64::from(*add)).collect(),
            Operator::Gelu => x.iter().map(|x| x * 0.5 * (1.0 + erf(x / f64::sqrt(2.0)))).collect(),
            Operator::MaxPool { kernel, stride, padding } => max_pool([*kernel, *stride, *padding], from, to, x),
        };
        if let Some(residual) = step.residual {
            y.iter_mut().zip(&values[residual]).for_each(|(y, residual)| *y += residual);
        }
        if step.relu {
            y.iter_mut().for_each(|y| *y = if *y < 0.0 { 0.0 } else { *y });
        }
        values.push(y);
    }
    values.pop().expect("there is always the input")
}

/// The input's index under kernel position `at` of output `out`, if it lies on the image.
fn under(out: usize, at: usize, stride: usize, padding: usize, size: usize) -> Option<usize> {
    (out * stride + at).checked_sub(padding).filter(|index| *index < size)
}

fn conv2d(conv: &Conv2d, [channels, height, width]: [usize; 3], [out, rows, columns]: [usize; 3], x: &[f64]) -> Image {
    let k = conv.kernel;
    let mut y = vec![];
    for o in 0..out {
        for i in 0..rows {
            for j in 0..columns {
                let mut sum = f64::from(conv.bias[o]);
                for c in 0..channels {
                    for di in 0..k {
                        for dj in 0..k {
                            let Some(row) = under(i, di, conv.stride, conv.padding, height) else { continue };
                            let Some(column) = under(j, dj, conv.stride, conv.padding, width) else { continue };
                            let weight = conv.weight[((o * channels + c) * k + di) * k + dj];
                            sum += f64::from(weight) * x[(c * height + row) * width + column];
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn max_pool([kernel, stride, padding]: [usize; 3], from: [usize; 3], to: [usize; 3], x: &[f64]) -> Image {
    let [channels, height, width] = from;
    let mut y = vec![];
    for c in 0..channels {
        for i in 0..to[1] {
            for j in 0..to[2] {
                let mut max = f64::NEG_INFINITY;
                for at in 0..kernel * kernel {
                    let Some(row) = under(i, at / kernel, stride, padding, height) else { continue };
                    let Some(column) = under(j, at % kernel, stride, padding, width) else { continue };
                    max = max.max(x[(c * height + row) * width + column]);
                }
                y.push(max);
            }
        }
    }
    y
}

/// `[n, columns]`, flattened, as `[columns, n]`.
fn transposed(x: &[f64], columns: usize) -> Image {
    (0..columns).flat_map(|column| x.iter().skip(column).step_by(columns).copied()).collect()
}

fn attention([channels, height, width]: [usize; 3], heads: usize, x: &[f64]) -> Image {
    let (area, size) = (height * width, channels / heads);
    let at = |part: usize, channel: usize, pixel: usize| x[(part * channels + channel) * area + pixel];
    let mut y = vec![0.0; channels * area];
    for (head, query) in (0..heads).flat_map(|head| (0..area).map(move |query| (head, query))) {
        let own = head * size..(head + 1) * size;
        let scores = (0..area).map(|key| own.clone().map(|c| at(0, c, query) * at(1, c, key)).sum::<f64>());
        let weights: Vec<f64> = scores.map(|score| (score / (size as f64).sqrt()).exp()).collect();
        let total: f64 = weights.iter().sum();
        for c in own {
            let sum: f64 = weights.iter().enumerate().map(|(key, weight)| weight * at(2, c, key)).sum();
            y[c * area + query] = sum / total;
        }
    }
    y
}

/// The error function, by its series of positive terms (Abramowitz and Stegun, 7.1.6).
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

fn normalized(shape: [usize; 3], norm: &Norm, x: &[f64]) -> Image {
    let Norm { weight, bias, groups, epsilon, .. } = norm;
    let area = shape[1] * shape[2];
    let group = shape[0] / groups * area;
    let mut y = vec![];
    for (index, values) in x.chunks(group).enumerate() {
        let mean = values.iter().sum::<f64>() / group as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / group as f64;
        for (at, x) in values.iter().enumerate() {
            let c = (index * group + at) / area;
            let normal = (x - mean) / (variance + f64::from(*epsilon)).sqrt();
            y.push(normal * f64::from(weight[c]) + f64::from(bias[c]));
        }
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_function_has_its_known_values() {
        // Abramowitz and Stegun, table 7.1.
        for (x, expected) in [(0.0, 0.0), (0.5, 0.5204998778), (1.0, 0.8427007929), (2.0, 0.9953222650), (9.0, 1.0)] {
            assert!((erf(x) - expected).abs() < 1e-10 && (erf(-x) + expected).abs() < 1e-10, "{x}: {}", erf(x));
        }
    }
}
