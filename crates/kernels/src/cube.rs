//! The operators on burn's GPU runtimes: Kiln's shaders where the runtime takes WGSL, burn's own
//! operators elsewhere (CUDA, and wgpu built for SPIR-V or MSL).

use burn::backend::tensor::FloatTensor;
use burn::backend::{DType, ops::ModuleOps};
use burn::tensor::Shape;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::cubecl::server::KernelArguments;
use burn_cubecl::template::{KernelSource, SourceKernel, SourceTemplate};
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, ops::numeric::empty_device_contiguous_dtype};

use crate::backend::{KernelBackend, conv_options, dims4};
use crate::conv2d::{Geometry, wgsl};
use crate::shader::Specialised;

/// Invocations of a workgroup, in every shader.
const WORKGROUP: usize = 64;
/// Workgroups of a row, in every shader that may need several.
const ROW: usize = 65_535;

/// What burn calls a wgpu runtime that takes WGSL.
pub(crate) const WGSL_RUNTIME: &str = "wgpu<wgsl>";

/// Whether Kiln's shaders run on that tensor: its runtime takes WGSL, and it holds f32.
fn takes_wgsl(tensor: &CubeTensor) -> bool {
    tensor.dtype == DType::F32 && tensor.client.name() == WGSL_RUNTIME
}

impl KernelBackend for CubeBackend {
    fn kiln_conv2d(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d(x, weight, None, conv_options(stride, padding));
        }
        wgsl::forward(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), x, weight)
    }

    fn kiln_conv2d_backward_data(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d_x_backward(x, weight, grad, conv_options(stride, padding));
        }
        wgsl::backward_data(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), weight, grad)
    }

    fn kiln_conv2d_backward_weight(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        stride: usize,
        padding: usize,
    ) -> FloatTensor<Self> {
        if !takes_wgsl(&x) {
            return Self::conv2d_weight_backward(x, weight, grad, conv_options(stride, padding));
        }
        wgsl::backward_weight(&Geometry::new(dims4(&x), dims4(&weight), stride, padding), x, grad)
    }
}

impl KernelSource for Specialised {
    fn source(&self) -> SourceTemplate {
        SourceTemplate::new(Specialised::source(self))
    }

    fn id(&self) -> KernelId {
        KernelId::new::<Self>().info(self.clone())
    }

    fn lang(&self) -> &'static str {
        "wgsl"
    }
}

/// Runs at least `invocations` of a shader on tensors, in the order of its bindings.
pub(crate) fn launch(shader: Specialised, invocations: usize, tensors: &[&CubeTensor]) {
    if invocations == 0 {
        return;
    }
    let client = &tensors[0].client;
    let workgroups = invocations.div_ceil(WORKGROUP);
    let count = CubeCount::Static(workgroups.min(ROW) as u32, workgroups.div_ceil(ROW) as u32, 1);
    let buffers = tensors.iter().map(|tensor| tensor.handle.clone().binding()).collect();
    let kernel = SourceKernel::new(shader, CubeDim::new_1d(WORKGROUP as u32));
    client.launch(Box::new(kernel), count, KernelArguments::new().with_buffers(buffers));
}

/// An uninitialised f32 tensor beside `tensor`.
pub(crate) fn empty(tensor: &CubeTensor, shape: [usize; 4]) -> CubeTensor {
    empty_device_contiguous_dtype(tensor.client.clone(), tensor.device.clone(), Shape::from(shape), DType::F32)
}
