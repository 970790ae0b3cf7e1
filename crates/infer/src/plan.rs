//! Networks for inference as lists of fused steps: [`Plan`].
//!
//! Both executors keep images as `[H, W, C]` with a border of zeros, so that no convolution asks
//! whether it hangs over an edge.

/// Most pixels that attend to each other: a workgroup keeps as many scores.
pub const MAX_TOKENS: usize = 1024;

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
    Norm(Norm),
    /// Softmax attention of every pixel to every pixel. Its input has the channels of all queries, then those of all
    /// keys, then those of all values; each head takes an equal part of them.
    Attention {
        heads: usize,
    },
    /// Adds the same `[C, H, W]` to every image.
    Position {
        embedding: Vec<f32>,
    },
    /// `x` times the share of a standard normal distribution that lies below it.
    Gelu,
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

/// A normalization over groups of channels of equal size.
#[derive(Clone, Debug)]
pub struct Norm {
    /// `[C]`
    pub weight: Vec<f32>,
    /// `[C]`
    pub bias: Vec<f32>,
    pub groups: usize,
    /// Each pixel separately; with one group this is a transformer's layer normalization.
    pub per_pixel: bool,
    pub epsilon: f32,
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
            Self::Norm(_) | Self::Attention { .. } | Self::Position { .. } | Self::Gelu => [1, 1, 0],
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
            Self::Norm(Norm { weight, bias, groups, .. }) => {
                if weight.len() != channels || bias.len() != channels || *groups == 0 || channels % groups != 0 {
                    return Err(format!("{groups} groups over {channels} channels"));
                }
                channels
            }
            Self::Attention { heads } => {
                if *heads == 0 || channels % (3 * heads) != 0 || height * width > MAX_TOKENS {
                    return Err(format!("{heads} heads over {channels} channels of {height} x {width} pixels"));
                }
                channels / 3
            }
            Self::Position { embedding } => {
                if embedding.len() != channels * height * width {
                    return Err(format!("{} numbers added to {channels} x {height} x {width}", embedding.len()));
                }
                channels
            }
            Self::MaxPool { .. } | Self::Gelu => channels,
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

    /// Multiply-adds of convolutions and attention for one image.
    pub fn multiply_adds(&self) -> Result<usize, PlanError> {
        let shapes = self.shapes()?;
        let of = |(step, output): (&Step, &[usize; 3])| match &step.operator {
            Operator::Conv2d(conv) => conv.weight.len() * output[1] * output[2],
            // Scores, and what they weigh.
            Operator::Attention { .. } => 2 * output[0] * (output[1] * output[2]).pow(2),
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

    /// A convolution of squares side by side.
    pub fn patches(channels: [usize; 2], size: usize) -> Operator {
        let Operator::Conv2d(conv) = conv(channels, size, size) else { unreachable!("made just now") };
        Operator::Conv2d(Conv2d { padding: 0, ..conv })
    }

    pub fn step(input: Value, operator: Operator, residual: Option<Value>, relu: bool) -> Step {
        Step { input, operator, residual, relu }
    }

    /// Plans with odd sizes, one channel, every operator, residuals, values that live long.
    pub fn plans() -> Vec<Plan> {
        let norm_of = |channels: usize, groups, per_pixel| {
            let (weight, bias) = (noise(channels, 3), noise(channels, 4));
            Operator::Norm(Norm { weight, bias, groups, per_pixel, epsilon: 1e-5 })
        };
        let norm = |channels, groups| norm_of(channels, groups, false);
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
            // A block of a transformer.
            Plan {
                input: [3, 21, 15],
                steps: vec![
                    step(0, patches([3, 18], 3), None, false),
                    step(1, Operator::Position { embedding: noise(18 * 7 * 5, 6) }, None, false),
                    step(2, norm_of(18, 1, true), None, false),
                    step(3, conv([18, 54], 1, 1), None, false),
                    step(4, Operator::Attention { heads: 2 }, None, false),
                    step(5, conv([18, 18], 1, 1), Some(2), false),
                    step(6, norm_of(18, 3, true), None, true),
                    step(7, conv([18, 37], 1, 1), None, false),
                    step(8, Operator::Gelu, None, false),
                    step(9, conv([37, 18], 1, 1), Some(6), false),
                    step(10, Operator::Gelu, Some(6), true),
                ],
            },
            // More tokens than a workgroup has invocations, and channels of a head beyond them too.
            Plan { input: [3 * 70, 9, 11], steps: vec![step(0, Operator::Attention { heads: 1 }, None, false)] },
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
        let norm = Norm { weight: vec![1.0; 3], bias: vec![0.0; 3], groups: 2, per_pixel: false, epsilon: 1e-5 };
        let error = |operator| plan(vec![step(0, operator, None, true)]).shapes().unwrap_err().what;
        assert_eq!(error(Operator::Norm(norm)), "2 groups over 3 channels");
        assert_eq!(error(Operator::Attention { heads: 2 }), "2 heads over 3 channels of 8 x 8 pixels");
        assert_eq!(error(Operator::Position { embedding: vec![0.0; 3] }), "3 numbers added to 3 x 8 x 8");
        let large = Plan { input: [3, 33, 32], steps: vec![step(0, Operator::Attention { heads: 1 }, None, true)] };
        assert!(large.shapes().is_err());
    }

    #[test]
    fn multiply_adds_are_those_of_convolutions_and_attention() {
        let attention = Operator::Attention { heads: 2 };
        let steps = vec![step(0, conv([3, 6], 3, 2), None, true), step(1, attention, None, false)];
        let plan = Plan { input: [3, 8, 8], steps };
        assert_eq!(plan.multiply_adds().unwrap(), 6 * 4 * 4 * 27 + 2 * 2 * 16 * 16);
    }
}
