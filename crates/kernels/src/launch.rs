//! Kiln's shaders among the kernels of burn's wgpu runtime.

use burn::backend::DType;
use burn::tensor::Shape;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::server::KernelArguments;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::template::{KernelSource, SourceKernel, SourceTemplate};
use burn_cubecl::tensor::CubeTensor;

use kiln_infer::shader::{Launch, Specialized, WORKGROUP};

/// A shader as burn's runtime takes it.
#[derive(Clone, Debug)]
struct Kernel(Specialized);

impl KernelSource for Kernel {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(self.0.source())
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.0.clone())
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Runs a launch on tensors, in the order of its shader's bindings.
pub fn launch(launch: Launch, tensors: &[&CubeTensor]) {
    let Some([x, y, z]) = launch.grid() else { return };
    let buffers = tensors.iter().map(|tensor| tensor.handle.clone().binding()).collect();
    let kernel = SourceKernel::new(Kernel(launch.shader), CubeDim::new_1d(WORKGROUP as u32));
    let count = CubeCount::Static(x, y, z);
    tensors[0].client.launch(Box::new(kernel), count, KernelArguments::new().with_buffers(buffers));
}

/// An uninitialized f32 tensor beside `tensor`.
pub fn empty<const D: usize>(tensor: &CubeTensor, shape: [usize; D]) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), Shape::from(shape), DType::F32)
}
