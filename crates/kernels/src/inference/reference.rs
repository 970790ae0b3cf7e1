//! The plain form of every step, in double precision: what every executor is compared with.

use super::{Conv2d, Operator, Plan};

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
            Operator::GroupNorm { weight, bias, groups, epsilon } => {
                group_norm(from, weight, bias, *groups, *epsilon, x)
            }
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

fn group_norm(shape: [usize; 3], weight: &[f32], bias: &[f32], groups: usize, epsilon: f32, x: &[f64]) -> Image {
    let area = shape[1] * shape[2];
    let group = shape[0] / groups * area;
    let mut y = vec![];
    for (index, values) in x.chunks(group).enumerate() {
        let mean = values.iter().sum::<f64>() / group as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / group as f64;
        for (at, x) in values.iter().enumerate() {
            let c = (index * group + at) / area;
            let normal = (x - mean) / (variance + f64::from(epsilon)).sqrt();
            y.push(normal * f64::from(weight[c]) + f64::from(bias[c]));
        }
    }
    y
}
