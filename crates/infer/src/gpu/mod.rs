//! Plans on wgpu: native adapters, and WebGPU in a browser, with the shaders in `shaders/`.
//!
//! Buffers, pipelines and bind groups are made once; an image is one upload, one submission and one
//! read-back.

mod builder;
mod peak;

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_channel::oneshot;
use half::f16;
use half::slice::HalfFloatSliceExt;
use web_time::Instant;

use self::builder::Builder;
pub use self::peak::peak;
use crate::shader::Specialized;
use crate::variants::Variants;
use crate::{GpuError, Layout, Operator, Plan, Precision, Step, Timings, ValueStorage};

/// Numbers of a vec4.
const VEC4: usize = 4;
/// What the packed weights count channels in.
const BLOCK: usize = 8;

/// A plan's pipelines and buffers on one device.
pub struct GpuExecutor {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    precision: Precision,
    input: ValueStorage,
    output: ValueStorage,
    input_buffer: wgpu::Buffer,
    output_buffer: wgpu::Buffer,
    staging: wgpu::Buffer,
    dispatches: Vec<Dispatch>,
    lost: Arc<AtomicBool>,
    failure: Arc<Mutex<Option<String>>>,
    /// The laid-out input, kept between images.
    upload: RefCell<Vec<f32>>,
}

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bindings: wgpu::BindGroup,
    workgroups: u32,
}

/// An adapter that a plan could run on.
#[derive(Clone, Debug)]
pub struct Adapter {
    adapter: wgpu::Adapter,
    /// Empty where a browser keeps it to itself.
    pub name: String,
    /// Whether a CPU does the work. Chooses between the forms of a shader that suit one or the other.
    pub is_software: bool,
}

impl Adapter {
    /// The adapter that wgpu prefers. On wgpu's native side software adapters count too.
    ///
    /// # Errors
    /// If there is none.
    pub async fn request() -> Result<Self, GpuError> {
        #[cfg(target_family = "wasm")]
        if !wgpu::util::is_browser_webgpu_supported().await {
            return Err(GpuError::NoAdapter("this browser has no WebGPU, or no GPU that it may use".into()));
        }
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends =
            wgpu::Backends::BROWSER_WEBGPU | wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        let options = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let adapter = wgpu::Instance::new(descriptor).request_adapter(&options).await;
        let adapter = adapter.map_err(|error| GpuError::NoAdapter(error.to_string()))?;
        Ok(Self::new(adapter))
    }

    /// The same adapter, opened by other means.
    pub fn new(adapter: wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        Self { adapter, name: info.name, is_software: info.device_type == wgpu::DeviceType::Cpu }
    }
}

impl Adapter {
    /// What of [`crate::variants`] runs on it.
    pub fn variants(&self) -> &'static Variants {
        Variants::of(self.is_software)
    }

    /// Whether plans can keep their numbers in that precision on it.
    pub fn stores(&self, precision: Precision) -> bool {
        match precision {
            Precision::F32 => true,
            Precision::F16 => self.adapter.features().contains(wgpu::Features::SHADER_F16),
            Precision::Bf16 => false,
        }
    }

    /// All that a device of it can be asked for.
    pub(crate) fn limits(&self) -> wgpu::Limits {
        self.adapter.limits()
    }

    pub(crate) async fn device(
        &self,
        required_limits: wgpu::Limits,
        required_features: wgpu::Features,
    ) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
        let descriptor = wgpu::DeviceDescriptor { required_limits, required_features, ..Default::default() };
        self.adapter.request_device(&descriptor).await.map_err(|error| GpuError::NoDevice(error.to_string()))
    }
}

impl GpuExecutor {
    /// Makes everything that a run needs and waits until the device has accepted it. `precision` is that of
    /// stored numbers, F32 or, where [`Adapter::stores`] says so, F16; sums are f32.
    ///
    /// # Errors
    /// If the plan does not fit, or the device cannot hold or compile it.
    pub async fn new(adapter: &Adapter, plan: &Plan, precision: Precision) -> Result<Self, GpuError> {
        if !adapter.stores(precision) {
            return Err(GpuError::Precision(adapter.name.clone(), precision));
        }
        let layout = Layout::new(plan, [VEC4, BLOCK])?;
        let largest = layout.buffers.iter().copied().chain(plan.steps.iter().map(weights)).max().unwrap_or(0);
        let mut limits = wgpu::Limits::default();
        let bytes = bytes_of(largest, precision);
        limits.max_buffer_size = limits.max_buffer_size.max(bytes);
        limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.max(bytes);
        let f16 = if precision == Precision::F16 { wgpu::Features::SHADER_F16 } else { wgpu::Features::empty() };
        let (device, queue) = adapter.device(limits, f16).await?;
        let lost = Arc::new(AtomicBool::new(false));
        let failure = Arc::new(Mutex::new(None));
        device.set_device_lost_callback({
            let lost = lost.clone();
            move |_, _| lost.store(true, Ordering::Relaxed)
        });
        device.on_uncaptured_error({
            let failure = failure.clone();
            // Later errors only follow from the first.
            Arc::new(move |error: wgpu::Error| {
                if let Ok(mut failure) = failure.lock() {
                    failure.get_or_insert(error.to_string());
                }
            })
        });

        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = |len: usize, usage| {
            let size = bytes_of(len, precision);
            // WebGPU clears every buffer; the borders rely on it.
            device.create_buffer(&wgpu::BufferDescriptor { label: None, size, usage, mapped_at_creation: false })
        };
        let buffers: Vec<_> = layout.buffers.iter().map(|len| buffer(*len, usage)).collect();
        let (input, output) = (layout.values[0], *layout.values.last().expect("there is always the input"));
        let staging = buffer(output.len(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST);
        let mut builder = Builder {
            device: &device,
            layout: &layout,
            buffers: &buffers,
            variants: adapter.variants(),
            precision,
            pipelines: HashMap::new(),
        };
        let dispatches = plan.steps.iter().enumerate().map(|(index, step)| builder.dispatch(index, step)).collect();
        let executor = Self {
            name: adapter.name.clone(),
            precision,
            input,
            output,
            input_buffer: buffers[input.buffer].clone(),
            output_buffer: buffers[output.buffer].clone(),
            staging,
            dispatches,
            lost,
            failure,
            upload: RefCell::new(vec![0.0; input.len()]),
            device,
            queue,
        };
        // Compilation errors of a browser arrive with the first work that is done.
        executor.wait().await?;
        Ok(executor)
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last value, `[C, H, W]`, for an image `[C, H, W]`. Runs must not overlap.
    ///
    /// # Errors
    /// If the device is lost or refuses the work.
    ///
    /// # Panics
    /// If `image` has not the size of the plan's input.
    pub async fn run(&self, image: &[f32]) -> Result<(Vec<f32>, Timings), GpuError> {
        assert_eq!(image.len(), self.input.shape.iter().product::<usize>(), "an image of {:?}", self.input.shape);
        let start = Instant::now();
        {
            let mut upload = self.upload.borrow_mut();
            self.input.store(image, &mut upload);
            self.queue.write_buffer(&self.input_buffer, 0, &encode(&upload, self.precision));
        }
        let uploaded = Instant::now();
        let mut encoder = self.device.create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            for dispatch in &self.dispatches {
                pass.set_pipeline(&dispatch.pipeline);
                pass.set_bind_group(0, &dispatch.bindings, &[]);
                pass.dispatch_workgroups(dispatch.workgroups, 1, 1);
            }
        }
        encoder.copy_buffer_to_buffer(&self.output_buffer, 0, &self.staging, 0, self.staging.size());
        self.queue.submit([encoder.finish()]);
        let mapping = map(&self.staging);
        self.wait().await?;
        let computed = Instant::now();
        mapping.await.map_err(|error| self.failure().unwrap_or(error))?;
        let values = unmap(&self.staging, |bytes| self.output.load(&decode(bytes, self.precision)))?;
        let timings = Timings { upload: uploaded - start, compute: computed - uploaded, read_back: computed.elapsed() };
        Ok((values, timings))
    }

    /// Loses the device, as a driver's reset would. Later runs fail with [`GpuError::Lost`].
    pub fn destroy(&self) {
        self.device.destroy();
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Waits until all submitted work is done.
    async fn wait(&self) -> Result<(), GpuError> {
        done(&self.device, &self.queue).await?;
        self.failure().map_or(Ok(()), Err)
    }

    fn failure(&self) -> Option<GpuError> {
        if self.lost.load(Ordering::Relaxed) {
            return Some(GpuError::Lost);
        }
        let failure = self.failure.lock().ok()?;
        failure.clone().map(GpuError::Refused)
    }
}

/// Numbers of a step's packed weights.
fn weights(step: &Step) -> usize {
    match &step.operator {
        Operator::Conv2d(conv) => {
            let area = conv.kernel * conv.kernel;
            conv.bias.len().next_multiple_of(BLOCK) * conv.channels.next_multiple_of(BLOCK) * area
        }
        Operator::Norm(norm) => norm.weight.len(),
        Operator::Position { embedding } => embedding.len(),
        Operator::MaxPool { .. } | Operator::Attention { .. } | Operator::Gelu => 0,
    }
}

/// Bytes of a buffer of `len` numbers; buffers are copied in words of 32 bits.
fn bytes_of(len: usize, precision: Precision) -> u64 {
    (len.div_ceil(precision.per_word()) * size_of::<u32>()) as u64
}

/// Numbers as a buffer holds them.
fn encode(values: &[f32], precision: Precision) -> Cow<'_, [u8]> {
    if precision != Precision::F16 {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    let mut halves = vec![f16::ZERO; values.len().next_multiple_of(2)];
    halves[..values.len()].convert_from_f32_slice(values);
    Cow::Owned(bytemuck::cast_slice(&halves).to_vec())
}

/// The way back of [`encode`].
fn decode(bytes: &[u8], precision: Precision) -> Cow<'_, [f32]> {
    if precision != Precision::F16 {
        return Cow::Borrowed(bytemuck::cast_slice(bytes));
    }
    Cow::Owned(bytemuck::cast_slice::<_, f16>(bytes).to_f32_vec())
}

/// Waits until all submitted work is done.
pub(crate) async fn done(device: &wgpu::Device, queue: &wgpu::Queue) -> Result<(), GpuError> {
    let (send, done) = oneshot::channel();
    queue.on_submitted_work_done(move || {
        let _ = send.send(());
    });
    #[cfg(not(target_family = "wasm"))]
    device.poll(wgpu::PollType::wait_indefinitely()).map_err(|error| GpuError::Refused(error.to_string()))?;
    #[cfg(target_family = "wasm")]
    let _ = device;
    done.await.map_err(|_| GpuError::Lost)
}

/// Asks for a buffer's bytes. Before [`done`] is waited for: one after the other would cost a second
/// round trip.
pub(crate) fn map(staging: &wgpu::Buffer) -> impl Future<Output = Result<(), GpuError>> + use<> {
    let (send, mapped) = oneshot::channel();
    staging.map_async(wgpu::MapMode::Read, .., move |result| {
        let _ = send.send(result);
    });
    async {
        match mapped.await {
            Ok(Ok(())) => Ok(()),
            _ => Err(GpuError::Lost),
        }
    }
}

/// Takes what it needs from the bytes that [`map`] gave, and gives them back.
pub(crate) fn unmap<T>(staging: &wgpu::Buffer, take: impl FnOnce(&[u8]) -> T) -> Result<T, GpuError> {
    let taken = {
        let view = staging.get_mapped_range(..).map_err(|error| GpuError::Refused(error.to_string()))?;
        take(&view)
    };
    staging.unmap();
    Ok(taken)
}

pub(crate) fn compile(device: &wgpu::Device, shader: &Specialized) -> wgpu::ComputePipeline {
    let source = wgpu::ShaderSource::Wgsl(shader.source().into());
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label: None, source });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: None,
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    })
}

/// An adapter for a test. Without one it panics, so that no test passes by not running;
/// `KILN_SKIP_GPU=1` skips such tests and says so.
#[cfg(test)]
pub(crate) fn for_tests() -> Option<Adapter> {
    if std::env::var_os("KILN_SKIP_GPU").is_some() {
        eprintln!("skipped: KILN_SKIP_GPU is set");
        return None;
    }
    let adapter = pollster::block_on(Adapter::request());
    Some(adapter.expect("a Vulkan, Metal or DX12 adapter, or KILN_SKIP_GPU=1 to go without"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{error, noise, plans};
    use crate::reference;

    #[test]
    fn every_step_agrees_with_the_reference_in_double_precision() {
        if for_tests().is_none() {
            return;
        }
        for (is_software, plan) in
            [true, false].into_iter().flat_map(|form| plans().into_iter().map(move |plan| (form, plan)))
        {
            let adapter = Adapter { is_software, ..for_tests().unwrap() };
            let image = noise(plan.input.iter().product(), 1);
            let expected = reference::run(&plan, &image);
            for (precision, limit) in [(Precision::F32, 1e-5), (Precision::F16, 1e-2)] {
                if !adapter.stores(precision) {
                    eprintln!("skipped: {} does not store {precision:?}", adapter.name);
                    continue;
                }
                let executor = pollster::block_on(GpuExecutor::new(&adapter, &plan, precision)).unwrap();
                // The second run finds the buffers as the first left them.
                for _ in 0..2 {
                    let (found, _) = pollster::block_on(executor.run(&image)).unwrap();
                    let error = error(&found, &expected);
                    assert!(error < limit, "{error} with {precision:?} in {:?}", plan.shapes());
                }
            }
        }
    }

    #[test]
    fn a_precision_that_no_shader_stores_is_refused() {
        let Some(adapter) = for_tests() else { return };
        let made = pollster::block_on(GpuExecutor::new(&adapter, &plans()[0], Precision::Bf16));
        assert!(matches!(made, Err(GpuError::Precision(..))));
    }

    #[test]
    fn a_lost_device_is_an_error() {
        let Some(adapter) = for_tests() else { return };
        let plan = plans().pop().unwrap();
        let executor = pollster::block_on(GpuExecutor::new(&adapter, &plan, Precision::F32)).unwrap();
        let image = noise(plan.input.iter().product(), 1);
        executor.destroy();
        assert!(matches!(pollster::block_on(executor.run(&image)), Err(GpuError::Lost | GpuError::Refused(_))));
    }
}
