//! What wgpu sees of this machine's graphics adapters.

use burn::tensor::wgpu::WgpuSetup;
use burn::tensor::{Device, DeviceKind};
use kiln_infer::conv2d::matrix::MatrixUnits;
use kiln_infer::gpu;

use super::{AdapterClass, DeviceError, GraphicsAdapter};

/// An adapter as wgpu and burn know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    kind: DeviceKind,
    adapter: wgpu::Adapter,
    instance: wgpu::Instance,
}

impl Handle {
    pub fn device(&self) -> Device {
        Device::wgpu(self.kind.clone())
    }

    /// Another device of the adapter, with the limits that every WebGPU device has at least. CubeCL asks the adapter and not the
    /// device for its extensions, so that it has those.
    pub fn with_webgpu_limits(&self) -> Result<Device, DeviceError> {
        let Self { adapter, instance, .. } = self.clone();
        let refused = |error: &dyn std::fmt::Display| DeviceError::Refused(error.to_string());
        let required_features = adapter.features() - wgpu::Features::all_experimental_mask();
        let descriptor = wgpu::DeviceDescriptor {
            required_features,
            required_limits: wgpu::Limits::default(),
            ..Default::default()
        };
        let (device, queue) =
            pollster::block_on(adapter.request_device(&descriptor)).map_err(|error| refused(&error))?;
        let backend = adapter.get_info().backend;
        let setup = WgpuSetup { instance, adapter, device, queue, backend };
        Device::wgpu_options().setup(setup).init().map_err(|error| refused(&error))
    }

    pub fn for_inference(&self) -> gpu::Adapter {
        gpu::Adapter::new(self.adapter.clone())
    }

    pub fn matrix_units(&self) -> Option<MatrixUnits> {
        use wgpu::{CooperativeScalarType as Scalar, Features};

        let needed = Features::SHADER_F16 | Features::SUBGROUP | Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let info = self.adapter.get_info();
        if !self.adapter.features().contains(needed) || info.subgroup_min_size != info.subgroup_max_size {
            return None;
        }
        let units = MatrixUnits::of_subgroups(info.subgroup_max_size)?;
        let side = units.side() as u32;
        let fits = |found: &wgpu::CooperativeMatrixProperties| {
            [found.m_size, found.n_size, found.k_size] == [side; 3]
                && (found.ab_type, found.cr_type) == (Scalar::F16, Scalar::F32)
        };
        self.adapter.cooperative_matrix_properties().iter().any(fits).then_some(units)
    }
}

/// Every adapter that burn's wgpu runtime could use, real GPUs first.
pub fn adapters() -> Vec<GraphicsAdapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // What cubecl's runtime uses; OpenGL is not among them.
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let instance = wgpu::Instance::new(descriptor);
    let found = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    // burn counts adapters by class.
    let mut counts = [0; 3];
    let mut next = |class: usize| {
        counts[class] += 1;
        counts[class] - 1
    };
    let mut adapters: Vec<GraphicsAdapter> = found
        .iter()
        .filter_map(|adapter| {
            let info = adapter.get_info();
            let (class, kind) = match info.device_type {
                wgpu::DeviceType::DiscreteGpu => (AdapterClass::Discrete, DeviceKind::DiscreteGpu(next(0))),
                wgpu::DeviceType::IntegratedGpu => (AdapterClass::Integrated, DeviceKind::IntegratedGpu(next(1))),
                wgpu::DeviceType::VirtualGpu => (AdapterClass::Virtual, DeviceKind::VirtualGpu(next(2))),
                wgpu::DeviceType::Cpu => (AdapterClass::Software, DeviceKind::Cpu),
                wgpu::DeviceType::Other => return None,
            };
            let driver = format!("{} {}", info.driver, info.driver_info).trim().to_owned();
            let (api, adapter, instance) = (format!("{:?}", info.backend), adapter.clone(), instance.clone());
            Some(GraphicsAdapter { name: info.name, api, driver, class, handle: Handle { kind, adapter, instance } })
        })
        .collect();
    adapters.sort_by_key(|adapter| adapter.class as u8);
    adapters
}
