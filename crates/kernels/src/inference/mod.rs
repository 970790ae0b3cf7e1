//! Networks for inference as a plain list of fused steps, run straight on a CPU or on wgpu.
//!
//! burn's runtime pays off where shapes and graphs change, that is in training. A trained network's
//! shapes are fixed: a [`Plan`] lists its convolutions with everything that follows each of them
//! folded in, and an executor makes its buffers and pipelines once. Nothing here needs burn, so that
//! a page loads a few hundred kilobytes of code instead of megabytes.
//!
//! Both executors keep images as `[H, W, C]` with a border of zeros, so that no convolution asks
//! whether it hangs over an edge.

pub mod cpu;
#[cfg(feature = "wgpu")]
pub mod gpu;
mod layout;
pub mod reference;

pub use layout::{Layout, Storage};

/// Which value a step reads: 0 is the network's input, `n` what the `n`th step makes, counted from 1.
pub type Value = usize;

/// A network on one image: `input` in, the last step's value out.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// `[C, H, W]`
    pub input: [usize; 3],
    pub steps: Vec<Step>,
}

/// One operator on one or two values; then comes the sum with `residual`, then the ReLU.
#[derive(Clone, Debug)]
pub struct Step {
    pub input: Value,
    pub operator: Operator,
    /// Added to the operator's result, whose shape it has.
    pub residual: Option<Value>,
    pub relu: bool,
}

#[derive(Clone, Debug)]
pub enum Operator {
    Conv2d(Conv2d),
    /// Over groups of channels of equal size.
    GroupNorm {
        weight: Vec<f32>,
        bias: Vec<f32>,
        groups: usize,
        epsilon: f32,
    },
    /// Its border counts as nothing, as in PyTorch.
    MaxPool {
        kernel: usize,
        stride: usize,
        padding: usize,
    },
}

/// A square convolution with a bias. Symmetric padding with zeros.
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[O, C, K, K]`
    pub weight: Vec<f32>,
    /// `[O]`
    pub bias: Vec<f32>,
    pub channels: usize,
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

/// A plan whose parts do not fit each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("step {step} of the plan does not fit: {what}")]
pub struct PlanError {
    pub step: usize,
    pub what: String,
}

impl Operator {
    /// Kernel, stride and padding.
    fn window(&self) -> [usize; 3] {
        match *self {
            Self::Conv2d(Conv2d { kernel, stride, padding, .. }) | Self::MaxPool { kernel, stride, padding } => {
                [kernel, stride, padding]
            }
            Self::GroupNorm { .. } => [1, 1, 0],
        }
    }

    /// The shape made of an input `[C, H, W]`, or what is wrong.
    fn output(&self, [channels, height, width]: [usize; 3]) -> Result<[usize; 3], String> {
        let [kernel, stride, padding] = self.window();
        if kernel == 0 || stride == 0 || height.min(width) + 2 * padding < kernel {
            return Err(format!("a window of {kernel} at stride {stride} on {height} x {width} pixels"));
        }
        let made = match self {
            Self::Conv2d(conv) => {
                let expected = conv.bias.len() * channels * kernel * kernel;
                if conv.channels != channels || conv.weight.len() != expected || conv.bias.is_empty() {
                    return Err(format!("a convolution of {} channels on {channels}", conv.channels));
                }
                conv.bias.len()
            }
            Self::GroupNorm { weight, bias, groups, .. } => {
                if weight.len() != channels || bias.len() != channels || *groups == 0 || channels % groups != 0 {
                    return Err(format!("{groups} groups over {channels} channels"));
                }
                channels
            }
            Self::MaxPool { .. } => channels,
        };
        let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        Ok([made, size(height), size(width)])
    }
}

impl Plan {
    /// `[C, H, W]` of every value, in order.
    ///
    /// # Errors
    /// If a step reads what is not made yet, or shapes do not fit.
    pub fn shapes(&self) -> Result<Vec<[usize; 3]>, PlanError> {
        let mut shapes = vec![self.input];
        for (index, step) in self.steps.iter().enumerate() {
            let error = |what| PlanError { step: index + 1, what };
            let input = *shapes.get(step.input).ok_or_else(|| error("its input is made later".into()))?;
            let output = step.operator.output(input).map_err(error)?;
            if let Some(residual) = step.residual
                && shapes.get(residual) != Some(&output)
            {
                return Err(error(format!("it adds {:?} to {output:?}", shapes.get(residual))));
            }
            shapes.push(output);
        }
        Ok(shapes)
    }

    /// Multiply-adds of the convolutions for one image.
    pub fn multiply_adds(&self) -> Result<usize, PlanError> {
        let shapes = self.shapes()?;
        let of = |(step, output): (&Step, &[usize; 3])| match &step.operator {
            Operator::Conv2d(conv) => conv.weight.len() * output[1] * output[2],
            _ => 0,
        };
        Ok(self.steps.iter().zip(&shapes[1..]).map(of).sum())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    pub use crate::check::{noise, relative_error as error};

    pub fn conv([channels, out]: [usize; 2], kernel: usize, stride: usize) -> Operator {
        let weight = noise(out * channels * kernel * kernel, 7 + out as u32);
        let scale = (2.0 / (channels * kernel * kernel) as f32).sqrt() * 3.0;
        Operator::Conv2d(Conv2d {
            weight: weight.iter().map(|weight| weight * scale).collect(),
            bias: noise(out, 5),
            channels,
            kernel,
            stride,
            padding: kernel / 2,
        })
    }

    pub fn step(input: Value, operator: Operator, residual: Option<Value>, relu: bool) -> Step {
        Step { input, operator, residual, relu }
    }

    /// Plans with odd sizes, one channel, every operator, residuals, values that live long.
    pub fn plans() -> Vec<Plan> {
        let norm = |channels: usize, groups| Operator::GroupNorm {
            weight: noise(channels, 3),
            bias: noise(channels, 4),
            groups,
            epsilon: 1e-5,
        };
        vec![
            Plan { input: [1, 1, 1], steps: vec![step(0, conv([1, 1], 1, 1), None, false)] },
            Plan { input: [3, 7, 5], steps: vec![step(0, conv([3, 5], 3, 1), None, true)] },
            Plan { input: [5, 9, 9], steps: vec![step(0, conv([5, 33], 3, 2), None, false)] },
            Plan {
                input: [3, 23, 21],
                steps: vec![
                    step(0, conv([3, 8], 7, 2), None, true),
                    step(1, Operator::MaxPool { kernel: 3, stride: 2, padding: 1 }, None, false),
                    step(2, conv([8, 17], 1, 2), None, false),
                    step(2, conv([8, 17], 3, 2), None, true),
                    step(4, conv([17, 17], 3, 1), Some(3), true),
                    step(5, norm(17, 17), Some(3), true),
                ],
            },
            Plan {
                input: [4, 8, 8],
                steps: vec![
                    step(0, conv([4, 12], 3, 1), None, false),
                    step(1, norm(12, 3), None, true),
                    step(2, conv([12, 12], 3, 1), None, false),
                    step(3, norm(12, 4), Some(1), true),
                ],
            },
            Plan {
                input: [16, 4, 4],
                steps: vec![
                    step(0, conv([16, 64], 3, 2), None, true),
                    step(1, conv([64, 64], 3, 1), None, true),
                    step(2, conv([64, 64], 3, 1), Some(1), true),
                ],
            },
        ]
    }

    #[test]
    fn a_step_that_does_not_fit_is_named() {
        let plan = |steps| Plan { input: [3, 8, 8], steps };
        let later = plan(vec![step(1, conv([3, 4], 3, 1), None, true)]).shapes().unwrap_err();
        assert_eq!(later.to_string(), "step 1 of the plan does not fit: its input is made later");
        let channels = plan(vec![step(0, conv([4, 4], 3, 1), None, true)]).shapes().unwrap_err();
        assert!(channels.to_string().contains("4 channels on 3"), "{channels}");
        let sum = vec![step(0, conv([3, 4], 3, 1), None, true), step(1, conv([4, 4], 3, 2), Some(1), true)];
        assert_eq!(plan(sum).shapes().unwrap_err().step, 2);
        let norm = Operator::GroupNorm { weight: vec![1.0; 3], bias: vec![0.0; 3], groups: 2, epsilon: 1e-5 };
        assert!(plan(vec![step(0, norm, None, true)]).shapes().is_err());
    }

    #[test]
    fn multiply_adds_are_those_of_the_convolutions() {
        let plan = Plan { input: [3, 8, 8], steps: vec![step(0, conv([3, 4], 3, 2), None, true)] };
        assert_eq!(plan.multiply_adds().unwrap(), 4 * 4 * 4 * 27);
    }
}
