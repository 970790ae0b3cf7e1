//! Where a tensor goes two ways.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::backend::KernelBackend;

/// `x` twice, once for each branch of a residual block. Its gradient is the sum of theirs, as it would be
/// if `x` were used twice; but burn's own sum walks tensors with channels last number by number.
///
/// Both must be used, and nothing else of `x` after them.
pub fn fork(x: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let (branch, shortcut) = Dispatch::kiln_fork(x.into_dispatch());
    (Tensor::from_dispatch(branch), Tensor::from_dispatch(shortcut))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn gradients_of_both_branches_are_added() {
        for device in std::iter::once(Device::flex()).chain(crate::device::for_tests()) {
            let values: Vec<f32> = (0..120).map(|index| index as f32).collect();
            let x = Tensor::<1>::from_data(values.as_slice(), &device.autodiff()).require_grad();
            let (branch, shortcut) = fork(x.clone().reshape([2, 3, 4, 5]));
            // The second branch is deeper on one side and the first on the other.
            let sum = (branch * 2.0).square().sum() + (shortcut.square() * 3.0).sum();
            let gradient = x.grad(&sum.backward()).unwrap().into_data().try_into_vec::<f32>().unwrap();
            let expected: Vec<f32> = values.iter().map(|x| 8.0 * x + 6.0 * x).collect();
            assert_eq!(gradient, expected);
        }
    }
}
