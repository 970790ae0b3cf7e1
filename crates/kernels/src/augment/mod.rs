//! Augmentation of training images where they are used: bytes stay on the device, and what goes there
//! each step are eight numbers an image.

pub(crate) mod gpu;
mod tensors;

pub use kiln_infer::augment::Change;
pub use tensors::Images;

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use kiln_infer::augment::{levels, reference};

    use super::*;

    const MEAN: [f32; 3] = [0.5, 0.25, 0.0];
    const STD: [f32; 3] = [0.5, 0.25, 1.0];

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn every_device_gives_the_bits_of_the_reference() {
        let levels = levels(MEAN, STD);
        for (count, [height, width]) in [(3, [4, 5]), (1, [1, 1]), (7, [32, 32])] {
            let pixels: Vec<u8> = (0..count * 3 * height * width).map(|at| (at * 37 % 255 + 1) as u8).collect();
            for padding in [0, 1, 4, 9] {
                let changes: Vec<_> = (0..2 * count as u32 + 1)
                    .map(|image| Change {
                        index: image * 5 % count as u32,
                        row: image * 7 % (2 * padding + 1),
                        column: image * 11 % (2 * padding + 1),
                        flip: image % 2 == 1,
                        // Over the right and lower edge too, and of no size.
                        cutout: [image % 3, image % 4, image % 5, 3],
                    })
                    .collect();
                let expected = reference::augment(&pixels, [height, width], &changes, padding, &levels);
                let wgpu = crate::device::for_tests();
                let devices = wgpu.into_iter().flat_map(|device| [device.clone().autodiff(), device]);
                for device in devices.chain([Device::flex()]) {
                    // What is freed here is given out again: outputs start as NaN.
                    Tensor::<1>::full([1 << 12], f32::NAN, &device).sum().into_data();
                    let images = Images::new(pixels.clone(), [height, width], MEAN, STD, &device);
                    let found = images.augment(&changes, padding);
                    assert_eq!(found.dims(), [changes.len(), 3, height, width]);
                    let found = found.into_data().try_into_vec::<f32>().unwrap();
                    assert_eq!(bits(&found), bits(&expected), "{height}x{width}, padding {padding}, {device:?}");
                }
            }
        }
    }

    #[test]
    fn a_cutout_is_zero_and_a_border_black() {
        let change = Change { row: 0, column: 2, cutout: [1, 0, 1, 1], ..Default::default() };
        let made = reference::augment(&[255; 12], [2, 2], &[change], 1, &levels(MEAN, STD));
        // The crop starts a row above the image and a column within it.
        assert_eq!(made[..4], [-1.0, -1.0, 0.0, -1.0]);
        let change = Change { column: 2, flip: true, row: 1, ..Default::default() };
        let made = reference::augment(&[255; 12], [2, 2], &[change], 1, &levels(MEAN, STD));
        assert_eq!(made[..4], [-1.0, 1.0, -1.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "image 3 of a set of 3")]
    fn an_image_that_is_not_there_is_refused() {
        let images = Images::new(vec![0; 9], [1, 1], MEAN, STD, &Device::flex());
        images.augment(&[Change { index: 3, ..Default::default() }], 0);
    }
}
