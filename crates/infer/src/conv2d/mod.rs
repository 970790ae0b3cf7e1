//! Two-dimensional convolution with square kernels, symmetric padding and no bias: its sizes, its definition, and the
//! shaders that compute it in training.

mod form;
pub mod matrix;
pub mod reference;
pub mod wgsl;

pub use form::{Choice, Choices, Form, Outcome, Pass, Tile, Trial, UnknownForm};

/// The sizes of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    pub batch: usize,
    /// Input channels, height and width.
    pub input: [usize; 3],
    /// Output channels, height and width.
    pub outputs: [usize; 3],
    pub kernel: usize,
    pub stride: usize,
    pub padding: usize,
}

impl Geometry {
    /// # Panics
    /// If the shapes do not fit each other.
    pub fn new(x: [usize; 4], weight: [usize; 4], stride: usize, padding: usize) -> Self {
        let [batch, channels, height, width] = x;
        let [out, weight_channels, kernel, kernel_width] = weight;
        assert_eq!(channels, weight_channels, "conv2d of {x:?} with {weight:?}: the channels differ");
        assert_eq!(kernel, kernel_width, "conv2d with {weight:?}: the kernel must be square");
        assert!(stride > 0 && kernel > 0, "conv2d with stride {stride} and kernel {kernel}");
        let reach = height.min(width) + 2 * padding;
        assert!(
            reach >= kernel,
            "conv2d of {x:?} with {weight:?}, padding {padding}: the kernel is larger than the image"
        );
        let size = |size: usize| (size + 2 * padding - kernel) / stride + 1;
        let outputs = [out, size(height), size(width)];
        Self { batch, input: [channels, height, width], outputs, kernel, stride, padding }
    }

    /// `[N, O, H', W']`
    pub fn output(&self) -> [usize; 4] {
        let [out, height, width] = self.outputs;
        [self.batch, out, height, width]
    }

    /// Numbers that a pass makes.
    pub fn output_len(&self, pass: Pass) -> usize {
        match pass {
            Pass::Forward => self.output().iter().product(),
            Pass::BackwardData => self.batch * self.input.iter().product::<usize>(),
            Pass::BackwardWeight => self.outputs[0] * self.patch(),
        }
    }

    /// Products that any pass sums, those with the border included.
    pub fn multiply_adds(&self) -> usize {
        self.output().iter().product::<usize>() * self.patch()
    }

    /// Positions of the kernel.
    pub fn area(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Numbers of the input under one output.
    pub fn patch(&self) -> usize {
        self.input[0] * self.area()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the channels differ")]
    fn channels_that_differ_are_refused() {
        Geometry::new([1, 3, 5, 5], [4, 2, 3, 3], 1, 1);
    }
}
