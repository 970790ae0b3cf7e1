//! Which device of this machine runs the model.

#[cfg_attr(not(feature = "wgpu"), path = "no_adapters.rs")]
mod adapters;

use std::fmt;
use std::str::FromStr;

use burn::backend::{Backend, Dispatch};
use burn::tensor::Device;
use kiln_infer::conv2d::matrix::MatrixUnits;
use kiln_infer::gpu;
pub use kiln_infer::parallel::Awake;

use self::adapters::Handle;
pub use self::adapters::adapters;
use crate::conv2d::Precision;

/// What burn calls a wgpu runtime that takes WGSL.
pub(crate) const WGSL_RUNTIME: &str = "wgpu<wgsl>";

/// The device that a user asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceRequest {
    /// A real GPU if there is one, else the CPU; never a software adapter.
    #[default]
    Auto,
    Cpu,
    /// The real GPU with this number in the list of [`adapters`].
    Gpu(usize),
    /// A software Vulkan adapter such as lavapipe: slow, but it runs what a GPU runs.
    Software,
    #[cfg(feature = "cuda")]
    Cuda(usize),
}

/// A graphics adapter that wgpu sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphicsAdapter {
    pub name: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub api: String,
    pub driver: String,
    pub class: AdapterClass,
    handle: Handle,
}

impl GraphicsAdapter {
    /// The same adapter for [`kiln_infer::gpu`].
    pub fn for_inference(&self) -> gpu::Adapter {
        self.handle.for_inference()
    }

    /// The matrix units that convolutions can take, if it has any of their kind.
    pub fn matrix_units(&self) -> Option<MatrixUnits> {
        self.handle.matrix_units()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterClass {
    Discrete,
    Integrated,
    Virtual,
    Software,
}

/// A device, its name, and why it is the one.
#[derive(Clone, Debug)]
pub struct SelectedDevice {
    pub device: Device,
    pub name: String,
    pub reason: String,
    /// Whether it is a real GPU, fast enough for a large network.
    pub is_gpu: bool,
    /// What wgpu calls it, where it runs through wgpu.
    pub adapter: Option<GraphicsAdapter>,
}

impl SelectedDevice {
    /// Whether work is queued for it and done later, as for all but the CPU's own operators.
    pub fn is_queued(&self) -> bool {
        self.is_gpu || self.adapter.is_some()
    }

    /// The same with another device of its adapter, whose limits are the least that WebGPU allows: eight storage buffers
    /// of 128 MiB for a shader, 16 KiB of memory for a workgroup, which has 256 invocations.
    ///
    /// # Errors
    /// If it does not run through wgpu, or its adapter gives no such device.
    pub fn with_webgpu_limits(self) -> Result<Self, DeviceError> {
        let Some(adapter) = &self.adapter else { return Err(DeviceError::NotOnWgpu(self.name)) };
        let device = adapter.handle.with_webgpu_limits()?;
        Ok(Self { device, name: format!("{}, at WebGPU's limits", self.name), ..self })
    }
}

/// Which form of the operators a device runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorPath {
    /// The `cpu` module of each operator.
    Cpu,
    /// Kiln's shaders where an operator has them, burn's operators for the rest.
    Wgsl,
    /// burn's operators alone, on the runtime of this name.
    Burn(String),
}

impl OperatorPath {
    /// Opens the device.
    pub fn of(device: &Device) -> Self {
        let name = Dispatch::name(device.as_dispatch());
        match name.as_str() {
            name if name.contains("flex") => Self::Cpu,
            name if name.contains(WGSL_RUNTIME) => Self::Wgsl,
            _ => Self::Burn(name),
        }
    }
}

/// Keeps the threads that compute for a device awake, on a CPU, as long as what it gives lives: a step of training is
/// hundreds of short loops, and waking a thread for each takes a good part of a small one.
pub fn awake(device: &Device) -> Option<Awake> {
    (OperatorPath::of(device) == OperatorPath::Cpu).then(Awake::new)
}

/// Whether work is queued for a device and done later, as for all but the CPU's own operators.
pub fn is_queued(device: &Device) -> bool {
    OperatorPath::of(device) != OperatorPath::Cpu
}

/// Whether convolutions on a device can multiply numbers of that precision.
pub fn multiplies(device: &Device, precision: Precision) -> bool {
    let path = OperatorPath::of(device);
    match precision {
        Precision::F32 => true,
        Precision::Bf16 => path == OperatorPath::Cpu && precision.is_on_cpu(),
        Precision::F16 => {
            let is_it = |adapter: &GraphicsAdapter| adapter.handle.device() == device.clone().inner();
            path == OperatorPath::Wgsl
                && adapters().iter().any(|adapter| is_it(adapter) && adapter.matrix_units().is_some())
        }
    }
}

impl fmt::Display for OperatorPath {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("Kiln's CPU forms"),
            Self::Wgsl => f.write_str("Kiln's WGSL, burn's operators for what it lacks"),
            Self::Burn(runtime) => write!(f, "burn's operators ({runtime})"),
        }
    }
}

const CUDA: &str =
    if cfg!(feature = "cuda") { ", cuda or cuda:N" } else { " (cuda needs a build with --features cuda)" };

/// A request that this machine cannot meet.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    #[error("no device is called '{0}': choose auto, cpu, gpu, gpu:N, software{CUDA}")]
    Unknown(String),
    #[error("this build runs on CPUs alone: build Kiln with its feature wgpu, which is on by default")]
    CpuBuild,
    #[error("{0} does not run through wgpu, so that WebGPU's limits mean nothing to it")]
    NotOnWgpu(String),
    #[error("the adapter gives no such device: {0}")]
    Refused(String),
    #[error("this machine has no GPU {wanted} ({found} found)")]
    NoGpu { wanted: usize, found: usize },
    #[error("this machine has no software adapter: Mesa's lavapipe is one (package mesa-vulkan-drivers)")]
    NoSoftware,
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let (name, number) = match text.split_once(':') {
            Some((name, number)) => (name, number.parse().map_err(|_| DeviceError::Unknown(text.to_owned()))?),
            None => (text, 0),
        };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "gpu" => Ok(Self::Gpu(number)),
            "software" => Ok(Self::Software),
            #[cfg(feature = "cuda")]
            "cuda" => Ok(Self::Cuda(number)),
            _ => Err(DeviceError::Unknown(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceRequest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(index) => write!(f, "gpu:{index}"),
            Self::Software => f.write_str("software"),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl fmt::Display for AdapterClass {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Software => "software",
        })
    }
}

/// Every device of this machine that a request can name.
pub fn all() -> Vec<DeviceRequest> {
    let mut requests = vec![DeviceRequest::Cpu];
    #[cfg(feature = "cuda")]
    requests.push(DeviceRequest::Cuda(0));
    let adapters = adapters();
    let gpus = adapters.iter().filter(|adapter| adapter.class != AdapterClass::Software).count();
    requests.extend((0..gpus).map(DeviceRequest::Gpu));
    // burn reaches no more than one.
    requests.extend((gpus < adapters.len()).then_some(DeviceRequest::Software));
    requests
}

/// Meets `request` on this machine.
pub fn choose(request: DeviceRequest) -> Result<SelectedDevice, DeviceError> {
    if request == DeviceRequest::Cpu {
        return Ok(cpu("as asked".into()));
    }
    #[cfg(feature = "cuda")]
    if let DeviceRequest::Cuda(index) = request {
        let (name, reason) = (format!("CUDA device {index}"), "as asked".to_owned());
        return Ok(SelectedDevice { device: Device::cuda(index), name, reason, is_gpu: true, adapter: None });
    }
    if cfg!(not(feature = "wgpu")) && request != DeviceRequest::Auto {
        return Err(DeviceError::CpuBuild);
    }
    let adapters = adapters();
    let (software, gpus): (Vec<_>, Vec<_>) =
        adapters.into_iter().partition(|adapter| adapter.class == AdapterClass::Software);
    match request {
        DeviceRequest::Gpu(index) => match gpus.get(index) {
            Some(adapter) => Ok(on_wgpu(adapter, "as asked")),
            None => Err(DeviceError::NoGpu { wanted: index, found: gpus.len() }),
        },
        DeviceRequest::Software => {
            software.first().map(|adapter| on_wgpu(adapter, "as asked")).ok_or(DeviceError::NoSoftware)
        }
        _ => Ok(match (gpus.first(), software.first()) {
            (Some(adapter), _) => on_wgpu(adapter, "the fastest GPU that wgpu sees"),
            (None, Some(adapter)) => {
                cpu(format!("wgpu sees no GPU; {} is software and slower than the CPU", adapter.name))
            }
            (None, None) if cfg!(feature = "wgpu") => cpu("wgpu sees no GPU".into()),
            (None, None) => cpu("this build runs on CPUs alone".into()),
        }),
    }
}

/// A GPU for a test, or a software adapter in its place. Without either it panics, so that no test
/// passes by not running; `KILN_SKIP_GPU=1` skips such tests and says so.
pub fn for_tests() -> Option<Device> {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        eprintln!("skipped: KILN_SKIP_GPU is set");
        return None;
    }
    let chosen = choose(DeviceRequest::Gpu(0)).or_else(|_| choose(DeviceRequest::Software));
    Some(chosen.expect("a Vulkan, Metal or DX12 adapter, or KILN_SKIP_GPU=1 to go without").device)
}

fn on_wgpu(adapter: &GraphicsAdapter, reason: &str) -> SelectedDevice {
    SelectedDevice {
        device: adapter.handle.device(),
        name: format!("{} ({}, {})", adapter.name, adapter.api, adapter.class),
        reason: reason.to_owned(),
        is_gpu: adapter.class != AdapterClass::Software,
        adapter: Some(adapter.clone()),
    }
}

fn cpu(reason: String) -> SelectedDevice {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let name = format!("CPU ({threads} thread{})", if threads == 1 { "" } else { "s" });
    SelectedDevice { device: Device::flex(), name, reason, is_gpu: false, adapter: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_from_text() {
        assert_eq!("auto".parse(), Ok(DeviceRequest::Auto));
        assert_eq!("gpu:1".parse(), Ok(DeviceRequest::Gpu(1)));
        assert_eq!("software".parse(), Ok(DeviceRequest::Software));
        for text in ["auto", "cpu", "gpu:1", "software"] {
            assert_eq!(text.parse::<DeviceRequest>().unwrap().to_string(), text);
        }
        for text in ["", "tpu", "gpu:", "gpu:x", "gpu:-1"] {
            assert_eq!(text.parse::<DeviceRequest>(), Err(DeviceError::Unknown(text.to_owned())));
        }
    }

    #[test]
    fn every_listed_device_can_be_had() {
        let all = all();
        assert_eq!(all[0], DeviceRequest::Cpu);
        assert!(all.into_iter().all(|request| choose(request).is_ok()));
        assert_eq!(OperatorPath::of(&choose(DeviceRequest::Cpu).unwrap().device), OperatorPath::Cpu);
    }

    #[test]
    fn the_automatic_choice_is_never_a_software_adapter() {
        let chosen = choose(DeviceRequest::Auto).unwrap();
        let has_gpu = adapters().iter().any(|adapter| adapter.class != AdapterClass::Software);
        assert_eq!(chosen.is_gpu, has_gpu, "{}: {}", chosen.name, chosen.reason);
    }
}
