//! Where the values of a plan lie in memory.

use crate::{Operator, Plan, PlanError};

/// How one value lies in its buffer: `[H + 2 border, W + 2 border, stride]`, the border zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValueStorage {
    /// Values that are never alive together share a buffer.
    pub buffer: usize,
    /// `[C, H, W]`
    pub shape: [usize; 3],
    pub border: usize,
    /// Numbers from one pixel to the next; at least the channels.
    pub pixel: usize,
}

impl ValueStorage {
    /// Numbers from one row to the next.
    pub fn row(&self) -> usize {
        (self.shape[2] + 2 * self.border) * self.pixel
    }

    pub fn len(&self) -> usize {
        (self.shape[1] + 2 * self.border) * self.row()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the pixel at `row`, `column` starts; `-border` is allowed for both.
    pub fn at(&self, row: isize, column: isize) -> usize {
        let border = self.border as isize;
        (row + border) as usize * self.row() + (column + border) as usize * self.pixel
    }

    /// Lays `[C, H, W]` out.
    pub fn store(&self, image: &[f32], buffer: &mut [f32]) {
        let [channels, height, width] = self.shape;
        for c in 0..channels {
            for i in 0..height {
                let from = &image[(c * height + i) * width..][..width];
                let start = self.at(i as isize, 0) + c;
                for (j, value) in from.iter().enumerate() {
                    buffer[start + j * self.pixel] = *value;
                }
            }
        }
    }

    /// The way back of [`Self::store`].
    pub fn load(&self, buffer: &[f32]) -> Vec<f32> {
        let [channels, height, width] = self.shape;
        let mut image = Vec::with_capacity(channels * height * width);
        for c in 0..channels {
            for i in 0..height {
                let start = self.at(i as isize, 0) + c;
                image.extend((0..width).map(|j| buffer[start + j * self.pixel]));
            }
        }
        image
    }
}

/// Every value's place, and the buffers' lengths in numbers.
#[derive(Clone, Debug)]
pub struct Layout {
    pub values: Vec<ValueStorage>,
    pub buffers: Vec<usize>,
}

impl Layout {
    /// Rounds a pixel's channels up to a multiple of `lanes`: the first for the plan's input, the
    /// second for every other value. The last value has no border.
    ///
    /// Only values of one form share a buffer: a step writes a value's pixels and leaves its border,
    /// which is zero from the start, alone.
    pub fn new(plan: &Plan, lanes: [usize; 2]) -> Result<Self, PlanError> {
        let shapes = plan.shapes()?;
        let mut border = vec![0; shapes.len()];
        let mut last_use: Vec<usize> = (0..shapes.len()).collect();
        for (index, step) in plan.steps.iter().enumerate() {
            if let Operator::Conv2d(conv) = &step.operator {
                border[step.input] = border[step.input].max(conv.padding);
            }
            for value in [Some(step.input), step.residual].into_iter().flatten() {
                last_use[value] = index + 1;
            }
        }
        *last_use.last_mut().expect("there is always the input") = usize::MAX;

        let mut values: Vec<ValueStorage> = vec![];
        let mut buffers: Vec<usize> = vec![];
        for (value, shape) in shapes.into_iter().enumerate() {
            let pixel = shape[0].next_multiple_of(lanes[usize::from(value > 0)]);
            let mut storage = ValueStorage { buffer: buffers.len(), shape, border: border[value], pixel };
            let same_form = |other: &ValueStorage| ValueStorage { buffer: storage.buffer, ..*other } == storage;
            // The step that makes a value still reads what it is made from. The input's buffer stays
            // its own, since the next image may be written while this one is not done.
            let in_use = |buffer: usize| {
                (0..value).any(|other| values[other].buffer == buffer && (other == 0 || last_use[other] >= value))
            };
            let free = values.iter().find(|other| same_form(other) && !in_use(other.buffer));
            match free {
                Some(other) => storage.buffer = other.buffer,
                None => buffers.push(storage.len()),
            }
            values.push(storage);
        }
        Ok(Self { values, buffers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{conv, plans, step};

    #[test]
    fn values_that_live_together_share_nothing() {
        let same = || conv([4, 4], 3, 1);
        let plan = Plan {
            input: [4, 8, 8],
            steps: vec![
                step(0, same(), None, true),
                step(1, same(), None, true),
                step(2, same(), Some(1), true),
                step(3, same(), None, true),
                step(4, same(), Some(3), true),
                step(5, same(), None, true),
            ],
        };
        let layout = Layout::new(&plan, [1, 1]).unwrap();
        let buffers: Vec<_> = layout.values.iter().map(|value| value.buffer).collect();
        // The input keeps its own; 3 cannot take 1's place, which is added to it; 4 can take 1's or 2's.
        assert_eq!(buffers, [0, 1, 2, 3, 1, 2, 4]);
        assert_eq!(layout.values[6].border, 0);
    }

    #[test]
    fn a_stored_image_comes_back() {
        for plan in plans() {
            for lanes in [[1, 1], [4, 8]] {
                let layout = Layout::new(&plan, lanes).unwrap();
                let input = layout.values[0];
                let image: Vec<f32> = (0..plan.input.iter().product()).map(|value| value as f32).collect();
                let mut buffer = vec![0.0; layout.buffers[input.buffer]];
                input.store(&image, &mut buffer);
                assert_eq!(input.load(&buffer), image);
            }
        }
    }
}
