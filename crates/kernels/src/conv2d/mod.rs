//! Two-dimensional convolution with square kernels, symmetric padding and no bias.

mod amx;
pub mod cpu;
#[cfg(feature = "wgpu")]
pub(crate) mod gpu;
mod tensors;
mod weight_sums;

pub use kiln_infer::Precision;
pub use kiln_infer::conv2d::Geometry;
pub use tensors::conv2d;

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use kiln_infer::check::{noise, relative_error as error};
    use kiln_infer::conv2d::reference;
    use kiln_infer::cpu_conv::are_tiled;

    /// Odd sizes, batch 1, every stride, maps smaller and larger than a tile of `cpu`.
    fn cases() -> Vec<Geometry> {
        [
            ([1, 1, 1, 1], [1, 1, 1, 1], 1, 0),
            ([1, 3, 5, 7], [4, 3, 3, 3], 1, 1),
            ([3, 5, 9, 9], [7, 5, 3, 3], 2, 1),
            ([2, 3, 8, 6], [5, 3, 3, 3], 1, 0),
            ([2, 16, 32, 32], [16, 16, 3, 3], 1, 1),
            ([19, 40, 4, 4], [33, 40, 3, 3], 1, 1),
            ([17, 24, 4, 4], [8, 24, 1, 1], 2, 0),
            ([2, 4, 33, 17], [6, 4, 1, 1], 1, 0),
            ([3, 20, 7, 6], [70, 20, 3, 3], 3, 1),
            ([70, 17, 2, 3], [35, 17, 3, 3], 1, 1),
            ([1, 3, 23, 23], [4, 3, 7, 7], 2, 3),
            ([5, 2, 2, 2], [3, 2, 3, 3], 2, 1),
            ([1, 2, 70, 300], [3, 2, 3, 3], 1, 1),
            ([8, 1, 32, 32], [2, 1, 3, 3], 2, 1),
            ([8, 1, 32, 32], [2, 1, 1, 1], 2, 0),
            ([3, 48, 8, 8], [64, 48, 3, 3], 1, 1),
            ([5, 32, 16, 16], [96, 32, 3, 3], 2, 1),
        ]
        .map(|(x, weight, stride, padding)| Geometry::new(x, weight, stride, padding))
        .to_vec()
    }

    fn tensors(geometry: &Geometry) -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let x = noise(geometry.batch * geometry.input.iter().product::<usize>(), 1);
        let weight = noise(geometry.outputs[0] * geometry.patch(), 2);
        let grad = noise(geometry.output().iter().product(), 3);
        (x, weight, grad)
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let geometry = Geometry::new([19, 40, 8, 8], [33, 40, 3, 3], 1, 1);
        let (x, weight, grad) = tensors(&geometry);
        let run = |threads: usize, form: Form| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                form.choose();
                let forward = cpu::forward(&geometry, &x, &weight, form.precision);
                let data = cpu::backward_data(&geometry, &weight, &grad, form.precision);
                (forward, data, cpu::backward_weight(&geometry, &x, &grad, form.precision))
            })
        };
        for form in forms() {
            let one = run(1, form);
            assert!([2, 3, 8].into_iter().all(|threads| run(threads, form) == one));
        }
    }

    #[test]
    fn a_value_that_is_not_finite_reaches_the_output() {
        let geometry = Geometry::new([1, 3, 5, 5], [4, 3, 3, 3], 1, 1);
        let (mut x, weight, _) = tensors(&geometry);
        x[12] = f32::NAN;
        for form in forms() {
            form.choose();
            assert!(cpu::forward(&geometry, &x, &weight, form.precision).iter().any(|value| value.is_nan()));
        }
    }

    #[test]
    fn the_operator_and_its_gradients_agree_with_the_reference_on_the_cpu() {
        for form in forms() {
            form.choose();
            for geometry in cases() {
                agree_with_the_reference(&geometry, &Device::flex().autodiff(), form.precision);
            }
        }
    }

    #[test]
    fn the_operator_and_its_gradients_agree_with_the_reference_on_wgpu() {
        let Some(device) = crate::device::for_tests() else { return };
        let device = device.autodiff();
        for precision in [Precision::F32, Precision::F16] {
            if !crate::device::multiplies(&device, precision) {
                eprintln!("skipped: the device does not multiply {precision}");
                continue;
            }
            for geometry in cases().into_iter().filter(|geometry| geometry.output().iter().product::<usize>() < 20_000)
            {
                // What is freed here is given out again: outputs start as NaN.
                for len in [1 << 12, 1 << 16, 1 << 20] {
                    Tensor::<1>::full([len], f32::NAN, &device).sum().into_data();
                }
                agree_with_the_reference(&geometry, &device, precision);
            }
        }
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn a_device_takes_the_form_that_was_found_to_be_the_fastest() {
        use kiln_infer::conv2d::{Choice, Choices, Pass};

        let Some(device) = crate::device::for_tests() else { return };
        // Sizes of no other test: what is set here holds for the whole process.
        let geometry = Geometry::new([9, 24, 6, 7], [40, 24, 3, 3], 1, 1);
        let gradients = ["tiles 64x64", "tiles 32x128", "tiles 16x256", "tiles 64x64 split", "registers"].map(|name| {
            let form = name.parse().unwrap();
            let mut choices = Choices::default();
            Pass::ALL.into_iter().for_each(|pass| choices.insert(Choice { geometry, pass, form }));
            crate::tuning::use_on(&device, choices);
            agree_with_the_reference(&geometry, &device.clone().autodiff(), Precision::F32)
        });
        // Sums in another order are a little different: it was another form.
        assert_ne!(gradients[0], gradients[4]);
    }

    /// What multiplies on a CPU.
    #[derive(Clone, Copy)]
    struct Form {
        precision: Precision,
        by_tiles: bool,
    }

    impl Form {
        /// For what this thread calls from now on.
        fn choose(self) {
            kiln_infer::cpu_conv::allow_tiles(self.by_tiles);
        }
    }

    /// Those that this machine has.
    fn forms() -> impl Iterator<Item = Form> {
        let forms = [(Precision::F32, false), (Precision::Bf16, false), (Precision::Bf16, true)];
        let forms = forms.map(|(precision, by_tiles)| Form { precision, by_tiles });
        forms.into_iter().filter(|form| form.precision.is_on_cpu() && (!form.by_tiles || are_tiled(form.precision)))
    }

    /// Gives the gradient of the weights.
    fn agree_with_the_reference(geometry: &Geometry, device: &Device, precision: Precision) -> Vec<f32> {
        let (mut x, mut weight, mut grad) = tensors(geometry);
        if precision != Precision::F32 {
            // What is exact in bf16, and in f16 too unless it is tiny, loses nothing but what f32 sums lose.
            for value in x.iter_mut().chain(&mut weight).chain(&mut grad) {
                *value = f32::from_bits(value.to_bits() & 0xffff_0000);
            }
        }
        let tensor = |values: &[f32], shape: [usize; 4]| Tensor::<1>::from_data(values, device).reshape(shape);
        let [channels, height, width] = geometry.input;
        let kernel = geometry.kernel;
        let shape = [geometry.outputs[0], channels, kernel, kernel];
        let inputs = tensor(&x, [geometry.batch, channels, height, width]).require_grad();
        let weights = tensor(&weight, shape).require_grad();
        let output = conv2d(inputs.clone(), weights.clone(), geometry.stride, geometry.padding, precision);
        let grads = (output.clone() * tensor(&grad, geometry.output())).sum().backward();
        let read = |tensor: Tensor<4>| tensor.into_data().try_into_vec::<f32>().unwrap();
        let forward = error(&read(output.inner()), &reference::forward(geometry, &x, &weight));
        let data = error(&read(inputs.grad(&grads).unwrap()), &reference::backward_data(geometry, &weight, &grad));
        let gradient = read(weights.grad(&grads).unwrap());
        let weights = error(&gradient, &reference::backward_weight(geometry, &x, &grad));
        assert!(forward < 1e-5, "{precision:?}, {geometry:?}: {forward}");
        assert!(data < 1e-5, "{precision:?}, {geometry:?}: {data}");
        assert!(weights < 1e-5, "{precision:?}, {geometry:?}: {weights}");
        gradient
    }
}
